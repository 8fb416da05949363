//! The families whose edges or layers choose operators, from training to verified folders that run elsewhere.

use std::path::Path;
use std::sync::OnceLock;

use base::random::rng_for;
use extract::accuracy::AccuracyEstimator;
use space::{Arch, SearchSpace, cost, preset, sampler};

use crate::testing::commands::{assert_fails, binary, command, document, json, run, stdout};
use crate::testing::files::{plan_of, read_json, scratch};
use crate::testing::python::{assert_logits, logits, python_with, run_script, side_of, write_npy};

const SUPERNET: &str = "--supernet run/supernet.safetensors --data digits";

/// A folder with a supernet of a space, trained by the recipe that is its default.
fn train(space: &str) -> tempfile::TempDir {
    let folder = scratch();
    let line = format!("train --space {space} --data digits --seed 3 --scale 0.1 --out run");
    json("supernet", folder.path(), &line);
    assert_eq!(plan_of(&folder.path().join("run"))["plan"]["recipe"], "uniform");
    folder
}

/// A folder with a trained supernet of `tiny-cell`.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| train("tiny-cell")).path()
}

fn space() -> SearchSpace {
    preset("tiny-cell").expect("a preset")
}

/// Random networks are the supernet's bit for bit, and run as `model.onnx` and in numpy.
fn check_folders(at: &Path, space: &SearchSpace, count: u64) {
    let python = python_with("predict.py", "numpy, safetensors");
    let onnx = python_with("run_onnx.py", "numpy, onnxruntime");
    for index in 0..count {
        let arch = sampler::random(space, &mut rng_for("cells", 1, &[index])).to_string();
        let line =
            format!("export {SUPERNET} --arch {arch} --calibration-images 200 --format onnx --out model");
        let exported = json("extract", at, &line);
        assert_eq!(
            (&exported["arch"], &exported["max_abs_difference"]),
            (&arch.as_str().into(), &0.0.into())
        );
        let verified = json("extract", at, &format!("verify model {SUPERNET}"));
        let apart = verified["onnx"]["max_relative_difference"].as_f64();
        assert!(apart.is_some_and(|apart| apart < 2e-5), "{arch}: {apart:?}");
        write_npy(&at.join("random.npy"), side_of(&arch));
        let predicted = json("extract", at, "predict model random.npy --logits");
        let expected = logits(&predicted["predictions"][0]["logits"]);
        for (script, python) in [("predict.py", &python), ("run_onnx.py", &onnx)] {
            let Some(python) = python else { continue };
            assert_logits(&arch, &run_script(at, python, script, &["model", "random.npy"]), &expected);
        }
    }
}

#[test]
fn cells_verify_and_run_elsewhere() {
    check_folders(trained(), &space(), 20);
}

#[test]
fn layers_with_skips_verify_and_run_elsewhere() {
    check_folders(train("tiny-macro").path(), &preset("tiny-macro").expect("a preset"), 20);
}

/// The shared weights evaluate all 125 cells, and a search under a limit finds the best of those within it.
#[test]
fn a_search_with_shared_weights_finds_the_best_of_all() {
    let at = trained();
    let evaluator = format!(
        "'{}' trial --supernet run/supernet.safetensors --data digits --serve --quiet",
        binary("supernet").display()
    );
    let search = |more: &str| {
        let line = format!(
            "search --space tiny-cell --resolutions 8 --strategy random --evaluations 2000 {more} --json"
        );
        let mut command = command("extract", at, &line);
        document(&command.arg("--evaluator").arg(&evaluator).output().expect("a binary that starts"))
    };
    search("--log all.jsonl --out all.json");
    let logged = std::fs::read_to_string(at.join("all.jsonl")).expect("a log");
    let params = |arch: &str| cost(&space().lower(&arch.parse().expect("an arch")).expect("legal")).params;
    let mut best = f64::NEG_INFINITY;
    let mut cells = std::collections::BTreeSet::new();
    for line in logged.lines().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let Some(arch) = line["arch"].as_str() else { continue };
        cells.insert(arch.to_string());
        if params(arch) <= 8_000 {
            best = best.max(line["values"][0]["mean"].as_f64().expect("a number"));
        }
    }
    assert_eq!(cells.len(), 125);
    search("--max-params 8K --out small.json");
    let found = read_json(at.join("small.json"));
    let arch = found["best"]["arch"].as_str().expect("text");
    assert!(params(arch) <= 8_000, "{arch}");
    let top1 = found["best"]["values"]["top1"]["mean"].as_f64().expect("a number");
    assert!((top1 - best).abs() < 1e-8, "{top1} {best}");
}

/// A predictor's best cell is proved, and explained in accuracies that exist.
#[test]
fn a_predictor_searches_cells_exactly() {
    let at = trained();
    json("supernet", at, &format!("sample {SUPERNET} --count 80 --calibration-images 200 --out rows.jsonl"));
    json("extract", at, "fit --accuracy rows.jsonl --out estimator.safetensors");
    let search =
        "search --space tiny-cell --estimator estimator.safetensors --strategy exact --max-params 8K";
    let found = json("extract", at, &format!("{search} --out exact.json"));
    let best: Arch = found["best"]["arch"].as_str().expect("text").parse().expect("an arch");
    let estimator = AccuracyEstimator::read(&at.join("estimator.safetensors")).expect("an estimator");
    let params = |arch: &Arch| cost(&space().lower(arch).expect("legal")).params;
    let all: Vec<Arch> = space().genome().all().iter().map(|row| space().arch(row)).collect();
    let all: Vec<Arch> = all.into_iter().filter(|arch| params(arch) <= 8_000).collect();
    let predicted = estimator.predict(&all).expect("of the space");
    let most = predicted.iter().copied().fold(0.0, f32::max);
    let place = all.iter().position(|arch| *arch == best).expect("within the limit");
    assert_eq!(predicted[place], most, "{best}");
    let line = "explain exact.json --space tiny-cell --estimator estimator.safetensors";
    let text = stdout(&run("extract", at, line));
    let accuracy = text.lines().find(|line| line.starts_with("accuracy")).expect("a line").to_string();
    let numbers = accuracy.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    let numbers: Vec<f64> = numbers.collect();
    assert!(numbers.len() == 3 && numbers.iter().all(|share| (0.0..=100.0).contains(share)), "{accuracy}");
}

#[test]
fn it_is_told_what_it_lacks() {
    let at = trained();
    let export = format!("export {SUPERNET} --arch smallest --format ofa --out theirs");
    assert_fails("extract", at, &export, 1, "family: expected one that PyTorch's ofa has");
    let export = format!("export {SUPERNET} --arch r8:|none~0|+|sep~0|none~1| --out none");
    let words = "operator of edge 0 to 2: expected one of nor_conv_3x3, nor_conv_1x1, avg_pool_3x3";
    assert_fails("extract", at, &export, 1, words);
}

/// Whether the output depends on each node of a cell of four, given whether each edge is there: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2.
fn read_nodes(edges: [bool; 6]) -> [bool; 4] {
    let two = edges[5];
    let one = edges[4] || (edges[2] && two);
    [true, one, two, true]
}

/// Parameters of the published cells; their networks also have the convolutions that no output depends on. For 150 of 15,625 the
/// table has those of an equal cell, in which two edges that do the same are one or the other way round.
#[test]
fn parameters_are_those_that_are_published() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/benchmarks/nasbench201.csv");
    let Ok(text) = std::fs::read_to_string(file) else {
        println!("skipped: the public table of NAS-Bench-201 is not here");
        return;
    };
    let space = preset("nas-bench-201").expect("a preset");
    let operators = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"];
    let of_conv = |side: u64| -> u64 { [16, 32, 64].iter().map(|c| 5 * (side * side * c * c + 2 * c)).sum() };
    let mut cells = 0;
    let mut equal = 0;
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, code, _, params, ..] = fields[..] else { panic!("{line}") };
        let digits: Vec<usize> = code.bytes().map(|digit| usize::from(digit - b'0')).collect();
        let name = |edge: usize| operators[digits[edge]];
        let choices = format!(
            "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|",
            name(0),
            name(1),
            name(2),
            name(3),
            name(4),
            name(5)
        );
        let read = read_nodes(std::array::from_fn(|edge| digits[edge] != 0));
        let unread: u64 = [1, 2, 2, 3, 3, 3]
            .into_iter()
            .zip(&digits)
            .filter(|(to, _)| !read[*to])
            .map(|(_, digit)| match digit {
                2 => of_conv(1),
                3 => of_conv(3),
                _ => 0,
            })
            .sum();
        let arch = format!("r32:{choices}").parse().expect("an arch");
        let built = cost(&space.lower(&arch).expect("legal")).params;
        let published = (params.parse::<f64>().expect("a number") * 1e6).round() as u64;
        equal += usize::from(built + unread == published);
        cells += 1;
    }
    assert_eq!((equal, cells), (15_625 - 150, 15_625));
}
