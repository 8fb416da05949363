//! The family with a choice of operators and connections, whose networks are not chains, from training to a verified folder.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use extract::accuracy::AccuracyEstimator;
use extract::latency::{LatencyKind, LatencyTable};
use extract::search::cost_index;
use space::{Arch, Cost, SearchSpace, cost, preset};

use crate::testing::commands::{assert_fails, json};
use crate::testing::files::{plan_of, scratch};
use crate::testing::python::{assert_logits, logits, python_with, run_script, side_of, write_npy};

const SUPERNET: &str = "--supernet run/supernet.safetensors --data digits";

/// A folder with a trained supernet of the space, sampled accuracies, an estimator and a latency table.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = scratch();
        let at = folder.path();
        json("supernet", at, "train --space tiny-choice --data digits --seed 3 --scale 0.02 --out run");
        let sample = format!("sample {SUPERNET} --count 80 --calibration-images 200 --out accuracy.jsonl");
        json("supernet", at, &sample);
        json("extract", at, "fit --accuracy accuracy.jsonl --out estimator.safetensors");
        let measure = "measure --space tiny-choice --threads 1 --half-width 20 --budget 20 --networks 0";
        json("extract", at, &format!("{measure} --out table.json"));
        folder
    });
    folder.path()
}

fn space() -> SearchSpace {
    preset("tiny-choice").expect("a preset")
}

/// Every sub-network of the space.
fn all() -> Vec<Arch> {
    let space = space();
    space.genome().all().iter().map(|row| space.arch(row)).collect()
}

fn costs(arch: &Arch) -> Cost {
    cost(&space().lower(arch).expect("legal"))
}

#[test]
fn phases_open_operators_and_connections_last() {
    let plan = plan_of(&trained().join("run"));
    let phases = plan["plan"]["phases"].as_array().expect("phases").iter();
    let names: Vec<&str> = phases.map(|phase| phase["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["full", "kernel", "width 1", "width 2", "operator 1", "operator 2", "connection"]);
}

/// The result of a search under limits is the best of all sub-networks within them.
#[test]
fn a_search_finds_the_best_of_all() {
    let at = trained();
    let estimator = AccuracyEstimator::read(&at.join("estimator.safetensors")).expect("an estimator");
    let table = LatencyTable::read(&at.join("table.json")).expect("a table");
    let index = cost_index(&space(), &table, LatencyKind::Undisturbed).expect("all layers are covered");
    let all = all();
    let latencies = all.iter().map(|arch| index.costs(arch).expect("legal").latency_upper_us);
    let latencies: Vec<f64> = latencies.collect();
    let half = latencies.iter().fold(0.0f64, |most, latency| most.max(*latency)) / 2.0;
    let accuracies = estimator.predict(&all).expect("of the space");
    let check = |flags: &str, kept: BTreeSet<usize>| {
        let search =
            "search --space tiny-choice --estimator estimator.safetensors --latency-table table.json";
        let found = json("extract", at, &format!("{search} {flags} --out found.json"));
        let best: Arch = found["best"]["arch"].as_str().expect("text").parse().expect("an arch");
        assert!(kept.len() > 10 && kept.len() < all.len(), "{flags}: {}", kept.len());
        let place = all.iter().position(|arch| *arch == best).expect("one of all");
        let most = kept.iter().map(|place| accuracies[*place]).fold(0.0, f32::max);
        assert!(kept.contains(&place), "{flags}: {best}");
        assert_eq!(accuracies[place], most, "{flags}: {best} of {}", kept.len());
    };
    let within = |keeps: &dyn Fn(usize) -> bool| (0..all.len()).filter(|place| keeps(*place)).collect();
    check("--max-macs 300K", within(&|place| costs(&all[place]).macs <= 300_000));
    check(&format!("--max-latency {half}us"), within(&|place| latencies[place] <= half));
    let small = within(&|place| {
        let cost = costs(&all[place]);
        cost.peak_activation_bytes <= 20_000 && cost.params <= 20_000
    });
    check("--max-memory 20KB --max-params 20K", small);
}

/// Networks of every kind are exported, verify, and run in Python.
#[test]
fn folders_verify_and_run_elsewhere() {
    let at = trained();
    let python = python_with("predict.py", "numpy, safetensors");
    let onnx = python_with("run_onnx.py", "numpy, onnxruntime");
    for arch in ["largest", "smallest", "r8:+:c,i5e3/+:i3e3,s", "r12:i3e6,s/+:c,c"] {
        let exported =
            json("extract", at, &format!("export {SUPERNET} --arch {arch} --format onnx --out model"));
        assert_eq!(exported["max_abs_difference"], 0.0);
        let verified = json("extract", at, &format!("verify model {SUPERNET}"));
        assert!(
            verified["onnx"]["max_relative_difference"].as_f64().is_some_and(|apart| apart < 1e-5),
            "{arch}"
        );
        let text = exported["arch"].as_str().expect("text");
        write_npy(&at.join("random.npy"), side_of(text));
        let predicted = json("extract", at, "predict model random.npy --logits");
        let expected = logits(&predicted["predictions"][0]["logits"]);
        for (script, python) in [("predict.py", &python), ("run_onnx.py", &onnx)] {
            let Some(python) = python else { continue };
            assert_logits(arch, &run_script(at, python, script, &["model", "random.npy"]), &expected);
        }
    }
}

#[test]
fn it_is_told_what_it_lacks() {
    let at = trained();
    let export = format!("export {SUPERNET} --arch smallest --format ofa --out theirs");
    assert_fails("extract", at, &export, 1, "family: expected one that PyTorch's ofa has");
    assert!(!at.join("theirs").exists());
    let export = format!("export {SUPERNET} --arch r8:s,c/c,c --out none");
    let words = "operator of stage 1, block 1: expected one of mbconv, conv, got skip";
    assert_fails("extract", at, &export, 1, words);
}
