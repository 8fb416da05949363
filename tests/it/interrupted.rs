//! An interrupted search writes its best result so far, marked as such, and every command that reads it warns.

use std::path::Path;
use std::time::Duration;

use candle_core::{Device, Tensor};
use extract::accuracy::{AccuracyEstimator, OfaPredictor};
use extract::ofa::PredictorFile;
use extract::search::Found;
use space::preset;

use super::predictors::wide_predictor;

use crate::testing::commands::{command, json, pipeline, run, stderr, succeeds};
use crate::testing::files::{read_text, scratch, write_file};
use crate::testing::signals::{signal_and_wait, start};

/// The budget of the search in candidates, for annealing and climbing.
const CANDIDATES: u64 = 60_000;

/// Searches on the reference kernels, which takes minutes, and sends SIGINT after some time; the exit code.
#[cfg(unix)]
fn search_and_interrupt(at: &Path, line: &str, after: Duration) -> Option<i32> {
    let mut search = command("extract", at, line);
    search.env("ONCE_FOR_ALL_KERNELS", "reference");
    let child = start(search);
    std::thread::park_timeout(after);
    signal_and_wait(child, "-INT")
}

#[test]
#[cfg(unix)]
fn an_interrupted_search_is_marked_and_every_reader_says_so() {
    let folder = scratch();
    let at = folder.path();
    let space = preset("ofa-mbv3-w1.2").expect("a preset");
    let mut tensors = wide_predictor(OfaPredictor::Tutorial, 128, 1000);
    // keeps predictions in 0..=1, however high a search climbs
    let last = (&tensors["4.weight"] * 0.02).expect("a small tensor");
    tensors.insert("4.weight".to_string(), last);
    tensors.insert("4.bias".to_string(), Tensor::new(&[0.5f32], &Device::Cpu).expect("a number"));
    let file = PredictorFile { place: "x.pth", name: "x.pth", blake3: "abc", tensors: &tensors };
    let estimator = AccuracyEstimator::import(&space, file, &[]).expect("a predictor");
    estimator.write(&at.join("estimator.safetensors")).expect("written");
    let line =
        "search --space ofa-mbv3-w1.2 --estimator estimator.safetensors --max-macs 300M --out found.json";
    // A signal before the command heeds it, or before annealing has met anything, proves nothing: the next one comes later.
    // The whole search takes minutes, at some hundred candidates per second.
    let amid = [1, 2, 4, 8, 16].into_iter().find(|seconds| {
        let code = search_and_interrupt(at, line, Duration::from_secs(*seconds));
        if code.is_none() {
            return false; // the system ended it
        }
        assert_eq!(code, Some(130), "after {seconds} s: still at work, and stopped in order");
        let found = Found::read(&at.join("found.json")).expect("whole");
        assert!(found.interrupted, "after {seconds} s");
        let candidates = found.run["candidates"].as_u64().expect("a number");
        assert!(candidates < CANDIDATES * 9 / 10, "after {seconds} s: {candidates}");
        // one at each resolution, where chains begin, is looked at before
        candidates > 100
    });
    assert!(amid.is_some(), "no signal came amid annealing");
    let found = Found::read(&at.join("found.json")).expect("whole");
    assert!(found.best.count("macs") <= 300_000_000, "the limit holds for the best so far");

    let words = |name: &str, line: &str| {
        let output = run(name, at, line);
        stderr(&output)
    };
    let warning = "found.json: the search that wrote it was interrupted";
    let costs = "space ofa-mbv3-w1.2 --arch found.json";
    assert!(words("supernet", costs).contains(warning));
    assert!(!words("supernet", &format!("{costs} --quiet")).contains(warning));
    assert!(!words("supernet", "space ofa-mbv3-w1.2 --arch smallest").contains("interrupted"));
}

/// All other commands that read the file, with a search in `tiny`.
#[test]
fn every_command_that_reads_an_interrupted_search_says_so() {
    let from = pipeline();
    let search = "search --space tiny --estimator estimator.safetensors --max-macs 600K --out whole.json";
    json("extract", from, search);
    let mut found = Found::read(&from.join("whole.json")).expect("own file");
    found.interrupted = true;
    found.write(&from.join("half.json")).expect("written");
    let supernet = "--supernet run/supernet.safetensors --data digits";
    for (name, line) in [
        ("extract", format!("export {supernet} --arch FOUND --out interrupted-model")),
        ("extract", "plot --accuracy accuracy.jsonl --found FOUND --out interrupted.svg".to_string()),
        ("extract", "table table.json --space tiny --arch FOUND --threads 1 --no-add".to_string()),
        ("supernet", format!("eval {supernet} --arch FOUND")),
        ("supernet", "space tiny --arch FOUND".to_string()),
        ("supernet", "bench --space tiny --arch FOUND --resolution 8 --batch 2 --steps 1".to_string()),
    ] {
        for (file, expected) in [("half.json", true), ("whole.json", false)] {
            let words = succeeds(name, from, &line.replace("FOUND", file));
            let says = words.contains(&format!("{file}: the search that wrote it was interrupted"));
            assert_eq!(says, expected, "{name} {line}: {words}");
        }
    }
}

/// Logs of predictions and of evaluations as a kill leaves them: some lines, and half of one.
#[test]
fn a_search_goes_on_with_its_log() {
    let at = pipeline();
    let evaluated = "--supernet run/supernet.safetensors --data digits";
    for (name, more) in [("predicted", ""), ("evaluated", evaluated)] {
        let search = |part: &str| {
            let files = format!("--out {name}-{part}.json --log {name}-{part}.jsonl");
            let line = "search --space tiny --estimator estimator.safetensors --max-macs 600K";
            json("extract", at, &format!("{line} {more} {files}"));
            let mut found = Found::read(&at.join(format!("{name}-{part}.json"))).expect("own file");
            found.run.clear();
            (found, read_text(at.join(format!("{name}-{part}.jsonl"))))
        };
        let whole = search("whole");
        let lines: Vec<&str> = whole.1.split_inclusive('\n').collect();
        let half = &lines[..lines.len() / 2];
        assert!(half.len() > 5, "{name}: {}", whole.1);
        let torn = format!("{}{{\"arch\":\"r", half.concat());
        write_file(at.join(format!("{name}-parts.jsonl")), torn);
        assert_eq!(search("parts"), whole, "{name}");
        assert_eq!(search("parts"), whole, "{name}: a full log answers");
    }
    let other =
        "search --space tiny --estimator estimator.safetensors --max-macs 600K --seed 1 --out other.json";
    let output = run("extract", at, &format!("{other} --log predicted-whole.jsonl"));
    let words = stderr(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("predicted-whole.jsonl: seed: expected 1, got 0"), "{words}");
}
