//! A run that goes on under another plan: what lies behind its checkpoint stays, what lies before may change.

use std::path::Path;

use network::checkpoint::{Checkpoint, Provenance, Supernet};
use serde_json::Value;

use crate::cli::{fails, json, run};
use crate::common::short_recipe;

/// Two phases of one epoch each, with these rates; a third where `more`.
fn recipe(lr: [f64; 2], more: bool) -> String {
    let phases = [("calm", lr[0], 1, 1), ("wild", lr[1], 9, 1), ("depth", 0.01, 9, 9)];
    short_recipe(1.0, if more { &phases } else { &phases[..2] })
}

fn plan(at: &Path, run: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(at.join(run).join("plan.json")).expect("a plan"))
        .expect("JSON")
}

const TRAIN: &str = "train --space tiny --data digits";

#[test]
fn after_a_divergence_the_finished_phase_serves_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for (name, lr, more) in [
        ("wild", [0.05, 1000.0], false),
        ("calm", [0.05, 0.02], false),
        ("more", [0.05, 0.02], true),
        ("other", [0.04, 0.02], true),
    ] {
        std::fs::write(at.join(format!("{name}.toml")), recipe(lr, more)).expect("written");
    }
    let message = fails("supernet", at, &format!("{TRAIN} --recipe wild.toml --out run"), 1);
    assert!(message.contains("continue with --resume"), "{message}");
    let kept = Checkpoint::read(&at.join("run/checkpoint.safetensors")).expect("sound").training;
    assert_eq!(kept.step, 16, "the end of the first phase");
    let copy = |to: &str| {
        std::fs::create_dir(at.join(to)).expect("made");
        for file in ["plan.json", "log.jsonl", "checkpoint.safetensors", "teacher.safetensors"] {
            std::fs::copy(at.join("run").join(file), at.join(to).join(file)).expect("copied");
        }
    };
    copy("again");
    // what was done cannot be changed, and is left as it is
    let before = std::fs::read(at.join("run/checkpoint.safetensors")).expect("a file");
    for (flags, field) in [
        ("--recipe other.toml", "plan.phases[1].lr: expected 0.05, got 0.04"),
        ("--recipe calm.toml --seed 4", "plan.seed: expected 0, got 4"),
        ("--recipe calm.toml --batch 32", "plan.batch: expected 64, got 32"),
    ] {
        let message = fails("supernet", at, &format!("{TRAIN} {flags} --out run --resume"), 1);
        assert!(message.contains(field), "{message}");
    }
    assert!(std::fs::read(at.join("run/checkpoint.safetensors")).expect("a file") == before);

    let output = run("supernet", at, &format!("{TRAIN} --recipe calm.toml --out run --resume"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    let told =
        format!("from step {} on under another plan: plan.phases[2].lr 1000.0 before, 0.02 now", kept.step);
    assert!(message.contains(&told), "{message}");
    let written = plan(at, "run");
    assert_eq!((&written["earlier"][0]["from_step"], &written["from_step"]), (&0.into(), &kept.step.into()));
    assert_eq!(written["earlier"][0]["plan"]["phases"][1]["lr"], 1000.0);
    let Provenance::Trained(training) =
        Supernet::read(&at.join("run/supernet.safetensors")).expect("done").provenance
    else {
        panic!("it was trained");
    };
    assert_eq!(written["hash"], training.plan);

    // the same again, with phases to come added at its end: the same bytes until there, and a third plan
    json("supernet", at, &format!("{TRAIN} --recipe calm.toml --out again --resume"));
    let bytes = |run: &str, file: &str| std::fs::read(at.join(run).join(file)).expect("weights");
    for file in ["supernet.safetensors", "checkpoint.safetensors"] {
        assert!(bytes("run", file) == bytes("again", file), "{file}");
    }
    let more = json("supernet", at, &format!("{TRAIN} --recipe more.toml --out again --resume"));
    assert_eq!(more["resumed_from_step"], 32);
    assert_eq!(plan(at, "again")["earlier"].as_array().map(Vec::len), Some(2));
    assert!(bytes("run", "supernet.safetensors") != bytes("again", "supernet.safetensors"));
    // a finished one under its own plan is left as it is
    let done = bytes("again", "supernet.safetensors");
    json("supernet", at, &format!("{TRAIN} --recipe more.toml --out again --resume"));
    assert!(bytes("again", "supernet.safetensors") == done);
}

#[test]
fn a_run_under_two_plans_that_is_killed_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("first.toml"), recipe([0.05, 0.05], false)).expect("written");
    std::fs::write(at.join("second.toml"), recipe([0.05, 0.01], true)).expect("written");
    json("supernet", at, &format!("{TRAIN} --recipe first.toml --out whole"));
    std::fs::create_dir(at.join("parts")).expect("made");
    for entry in std::fs::read_dir(at.join("whole")).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, at.join("parts").join(path.file_name().expect("a name"))).expect("copied");
    }
    // a finished phase cannot be changed
    let message = fails("supernet", at, &format!("{TRAIN} --recipe second.toml --out whole --resume"), 1);
    assert!(message.contains("plan.phases[2].lr: expected 0.05, got 0.01"), "{message}");
    std::fs::write(at.join("second.toml"), recipe([0.05, 0.05], true)).expect("written");
    let go_on =
        |run: &str| format!("{TRAIN} --checkpoint-seconds 0 --recipe second.toml --out {run} --resume");
    json("supernet", at, &go_on("whole"));
    #[cfg(unix)]
    {
        use crate::failures::{When, interrupt};
        interrupt(at, "supernet", &go_on("parts"), "-KILL", When::Changed("parts/plan.json"));
        interrupt(at, "supernet", &go_on("parts"), "-TERM", When::Changed("parts/log.jsonl"));
    }
    json("supernet", at, &go_on("parts"));
    let bytes = |run: &str| std::fs::read(at.join(run).join("supernet.safetensors")).expect("weights");
    assert!(bytes("whole") == bytes("parts"));
}

/// A checkpoint of its second phase is finite and worthless; that of its first phase's end is neither.
#[test]
fn a_resume_after_a_divergence_goes_back_to_the_end_of_a_phase() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    for (name, lr) in [("calm", [0.05, 0.02]), ("wild", [0.05, 1000.0]), ("wild-first", [1000.0, 0.02])] {
        std::fs::write(at.join(format!("{name}.toml")), recipe(lr, false)).expect("written");
    }
    let checkpoint = |file: &str| Checkpoint::read(&at.join("run").join(file)).expect("whole").training;
    let log = |run: &str| std::fs::read_to_string(at.join(run).join("log.jsonl")).expect("a log");
    json("supernet", at, &format!("{TRAIN} --recipe calm.toml --out whole"));
    assert!(!at.join("whole/phase_end.safetensors").exists(), "it has served");

    let wild = format!("{TRAIN} --recipe wild.toml --out run --checkpoint-seconds 0");
    let message = fails("supernet", at, &wild, 1);
    assert!(message.contains("which goes back to the end of the phase before"), "{message}");
    assert!(checkpoint("checkpoint.safetensors").step > 16, "saved in the phase that diverges");
    assert_eq!(checkpoint("phase_end.safetensors").step, 16);
    let last: Value = serde_json::from_str(log("run").lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["event"], &last["first_step"]), (&"diverged".into(), &16.into()));
    // a finished phase is as it was, also then; and the same plan diverges again
    let other = format!("{TRAIN} --recipe wild-first.toml --out run --resume");
    let message = fails("supernet", at, &other, 1);
    assert!(message.contains("plan.phases[1].lr: expected 0.05, got 1000.0"), "{message}");
    assert!(checkpoint("checkpoint.safetensors").step > 16, "and nothing was done");
    for line in [format!("{wild} --resume"), format!("{TRAIN} --recipe calm.toml --out run --resume")] {
        let output = run("supernet", at, &line);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), line.contains("calm"), "{message}");
        let step = &last["step"];
        let told = format!(
            "the run diverged at step {step} of phase wild; it continues from the end of phase calm (step 16)"
        );
        assert!(message.contains(&told), "{message}");
    }
    assert!(!log("run").contains("diverged") && !at.join("run/phase_end.safetensors").exists());
    let weights = |run: &str| {
        let supernet = Supernet::read(&at.join(run).join("supernet.safetensors")).expect("done");
        supernet.weights.tensors().values().map(crate::common::values).collect::<Vec<_>>()
    };
    assert!(weights("run") == weights("whole"));

    let wild_first = format!("{TRAIN} --recipe wild-first.toml --out first --checkpoint-seconds 0");
    let message = fails("supernet", at, &wild_first, 1);
    assert!(message.contains("which starts over"), "{message}");
    assert!(at.join("first/checkpoint.safetensors").exists());
    let output = run("supernet", at, &format!("{TRAIN} --recipe calm.toml --out first --resume"));
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && message.contains("of phase calm; it starts over"), "{message}");
    let bytes = |run: &str| std::fs::read(at.join(run).join("supernet.safetensors")).expect("weights");
    assert!(bytes("first") == bytes("whole"), "a plan of its own");
}

#[test]
fn a_kept_checkpoint_is_one_to_go_back_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let phases = [("calm", 0.05, 1, 1), ("then/wild", 0.02, 9, 1), ("depth 1", 0.01, 9, 9)];
    std::fs::write(at.join("three.toml"), short_recipe(1.0, &phases)).expect("written");
    let train = format!("{TRAIN} --recipe three.toml --keep-checkpoints --out run");
    json("supernet", at, &train);
    let kept = |name: &str| at.join("run/checkpoints").join(name);
    for (name, step) in
        [("1-calm.safetensors", 16), ("2-then-wild.safetensors", 32), ("3-depth-1.safetensors", 48)]
    {
        assert_eq!(Checkpoint::read(&kept(name)).expect(name).training.step, step);
    }
    let bytes = |name: &str| std::fs::read(at.join("run").join(name)).expect("a file");
    let log = || String::from_utf8(bytes("log.jsonl")).expect("text");
    let evaluations = || {
        log().lines().filter(|line| line.contains("\"evaluation\"")).map(str::to_string).collect::<Vec<_>>()
    };
    let supernet = bytes("supernet.safetensors");
    let evaluated = evaluations();
    let last = bytes("checkpoints/3-depth-1.safetensors");
    std::fs::copy(kept("1-calm.safetensors"), at.join("run/checkpoint.safetensors")).expect("copied");
    assert!(bytes("checkpoints/3-depth-1.safetensors") == last, "a copy of its own");
    std::fs::remove_file(at.join("run/supernet.safetensors")).expect("removed");
    let again = json("supernet", at, &format!("{train} --resume"));
    assert_eq!(again["resumed_from_step"], 16);
    assert!(bytes("supernet.safetensors") == supernet);
    assert_eq!(evaluations(), evaluated, "each once");
    // under another plan, and then after a divergence of that
    for (lr, code) in [(1000.0, 1), (0.03, 0)] {
        std::fs::copy(kept("2-then-wild.safetensors"), at.join("run/checkpoint.safetensors"))
            .expect("copied");
        let phases = [("calm", 0.05, 1, 1), ("then/wild", 0.02, 9, 1), ("depth 1", lr, 9, 9)];
        std::fs::write(at.join("three.toml"), short_recipe(1.0, &phases)).expect("written");
        let output = run("supernet", at, &format!("{train} --resume --checkpoint-seconds 0"));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains("from step 32 on under another plan: plan.phases[3].lr"), "{message}");
    }
    assert!(bytes("supernet.safetensors") != supernet && !log().contains("diverged"));
}
