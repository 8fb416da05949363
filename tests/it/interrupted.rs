//! A search that is interrupted in the middle writes what it has, marks it, and every command that reads it says so.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use candle_core::{Device, Tensor};
use extract::accuracy::{AccuracyEstimator, OfaPredictor};
use extract::ofa::PredictorFile;
use extract::search::Found;
use space::preset;

use super::cli::{binary, json, pipeline, run};
use super::predictors::wide_predictor;

/// What the search may look at, annealed and climbed.
const CANDIDATES: u64 = 60_000;

/// Searches with naive loops, which takes minutes, and sends SIGINT after some time; the exit code.
fn search_and_interrupt(at: &Path, line: &str, after: Duration) -> Option<i32> {
    let mut child = Command::new(binary("extract"))
        .current_dir(at)
        .env("ONCE_FOR_ALL_KERNELS", "reference")
        .args(line.split_whitespace())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a binary that starts");
    std::thread::park_timeout(after);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    child.wait().expect("a child").code()
}

#[test]
#[cfg(unix)]
fn an_interrupted_search_is_marked_and_every_reader_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let space = preset("ofa-mbv3-w1.2").expect("a preset");
    let mut tensors = wide_predictor(OfaPredictor::Tutorial, 128, 1000);
    // what it predicts stays a share, however high a search climbs
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
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let warning = "found.json: the search that wrote it was interrupted";
    let costs = "space ofa-mbv3-w1.2 --arch found.json";
    assert!(words("supernet", costs).contains(warning));
    assert!(!words("supernet", &format!("{costs} --quiet")).contains(warning));
    assert!(!words("supernet", "space ofa-mbv3-w1.2 --arch smallest").contains("interrupted"));
}

/// All other commands that take the file, with one of a space for which everything is at hand.
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
            let output = run(name, from, &line.replace("FOUND", file));
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name} {line}: {words}");
            let says = words.contains(&format!("{file}: the search that wrote it was interrupted"));
            assert_eq!(says, expected, "{name} {line}: {words}");
        }
    }
}

/// What is estimated, and what is counted, both as a kill leaves it: some lines, and half of one.
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
            (found, std::fs::read_to_string(at.join(format!("{name}-{part}.jsonl"))).expect("text"))
        };
        let whole = search("whole");
        let lines: Vec<&str> = whole.1.split_inclusive('\n').collect();
        let half = &lines[..lines.len() / 2];
        assert!(half.len() > 5, "{name}: {}", whole.1);
        let torn = format!("{}{{\"arch\":\"r", half.concat());
        std::fs::write(at.join(format!("{name}-parts.jsonl")), torn).expect("written");
        assert_eq!(search("parts"), whole, "{name}");
        assert_eq!(search("parts"), whole, "{name}: a full log answers");
    }
    let other =
        "search --space tiny --estimator estimator.safetensors --max-macs 600K --seed 1 --out other.json";
    let output = run("extract", at, &format!("{other} --log predicted-whole.jsonl"));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("predicted-whole.jsonl: seed: expected 1, got 0"), "{words}");
}
