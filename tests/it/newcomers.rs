//! A family of networks that came last, from training to a verified folder: blocks that choose their operator, connections
//! that may not be there, networks that are no chains.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use extract::accuracy::AccuracyEstimator;
use extract::latency::{LatencyKind, LatencyTable};
use extract::search::cost_index;
use serde_json::Value;
use space::{Arch, Cost, SearchSpace, cost, preset};

use crate::cli::{json, run};
use crate::examples::{assert_logits, logits, python_with, run_script, write_npy};

const SUPERNET: &str = "--supernet run/supernet.safetensors --data digits";

/// A trained supernet of the space, and accuracies of some of its networks.
fn trained() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
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

/// Every network there is.
fn all() -> Vec<Arch> {
    let space = space();
    space.genome().all().iter().map(|row| space.arch(row)).collect()
}

fn costs(arch: &Arch) -> Cost {
    cost(&space().lower(arch).expect("legal"))
}

#[test]
fn phases_open_operators_and_connections_last() {
    let log = std::fs::read_to_string(trained().join("run/plan.json")).expect("a plan");
    let plan: Value = serde_json::from_str(&log).expect("JSON");
    let phases = plan["plan"]["phases"].as_array().expect("phases").iter();
    let names: Vec<&str> = phases.map(|phase| phase["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["full", "kernel", "width 1", "width 2", "operator 1", "operator 2", "connection"]);
}

/// What a search under limits finds is the best of every network that keeps them.
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
    for (flags, keeps) in [
        (
            "--max-macs 300K".to_string(),
            Box::new(|at: usize| costs(&all[at]).macs <= 300_000) as Box<dyn Fn(usize) -> bool>,
        ),
        (format!("--max-latency {half}us"), Box::new(|at: usize| latencies[at] <= half)),
        (
            "--max-memory 20KB --max-params 20K".to_string(),
            Box::new(|at: usize| {
                costs(&all[at]).peak_activation_bytes <= 20_000 && costs(&all[at]).params <= 20_000
            }),
        ),
    ] {
        let line = format!(
            "search --space tiny-choice --estimator estimator.safetensors --latency-table table.json {flags}"
        );
        let found = json("extract", at, &format!("{line} --out found.json"));
        let best: Arch = found["best"]["arch"].as_str().expect("text").parse().expect("an arch");
        let kept: BTreeSet<usize> = (0..all.len()).filter(|at| keeps(*at)).collect();
        assert!(kept.len() > 10 && kept.len() < all.len(), "{flags}: {}", kept.len());
        let place = all.iter().position(|arch| *arch == best).expect("one of all");
        let most = kept.iter().map(|at| accuracies[*at]).fold(0.0, f32::max);
        assert!(kept.contains(&place), "{flags}: {best}");
        assert_eq!(accuracies[place], most, "{flags}: {best} of {}", kept.len());
    }
}

/// Every kind of network goes into a folder that verifies, and runs elsewhere.
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
        let side = text[1..].split(':').next().and_then(|side| side.parse().ok()).expect("a resolution");
        write_npy(&at.join("random.npy"), side);
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
    let refused = |line: &str| {
        let output = run("extract", at, line);
        assert_eq!(output.status.code(), Some(1), "{line}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let told = refused(&format!("export {SUPERNET} --arch smallest --format ofa --out theirs"));
    assert!(
        told.contains("family: expected one that PyTorch's ofa has") && !at.join("theirs").exists(),
        "{told}"
    );
    let told = refused(&format!("export {SUPERNET} --arch r8:s,c/c,c --out none"));
    assert!(told.contains("operator of stage 1, block 1: expected one of mbconv, conv, got skip"), "{told}");
}
