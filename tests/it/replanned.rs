//! Runs that are resumed under another plan: phases before the checkpoint are fixed, later ones may change.

use std::path::Path;

use network::checkpoint::{Checkpoint, Provenance, Supernet};
use serde_json::Value;

use crate::testing::commands::{assert_fails, json, run, stderr, succeeds};
use crate::testing::files::{
    copy_files, names_in, plan_of, read_bytes, read_text, scratch, weights_of, write_file,
};
use crate::testing::formula::values;
use crate::testing::signals::{When, interrupt};
use crate::testing::training::short_recipe;

/// Two phases of one epoch each with these learning rates, and a third one if `more`.
fn recipe(lr: [f64; 2], more: bool) -> String {
    let phases = [("calm", lr[0], 1, 1), ("wild", lr[1], 9, 1), ("depth", 0.01, 9, 9)];
    short_recipe(1.0, if more { &phases } else { &phases[..2] })
}

const TRAIN: &str = "train --space tiny --data digits";

#[test]
fn after_a_divergence_the_finished_phase_serves_on() {
    let folder = scratch();
    let at = folder.path();
    for (name, lr, more) in [
        ("wild", [0.05, 1000.0], false),
        ("calm", [0.05, 0.02], false),
        ("more", [0.05, 0.02], true),
        ("other", [0.04, 0.02], true),
    ] {
        write_file(at.join(format!("{name}.toml")), recipe(lr, more));
    }
    assert_fails(
        "supernet",
        at,
        &format!("{TRAIN} --recipe wild.toml --out run"),
        1,
        "continue with --resume",
    );
    let kept = Checkpoint::read(&at.join("run/checkpoint.safetensors")).expect("sound").training;
    assert_eq!(kept.step, 16, "the end of the first phase");
    let files = ["plan.json", "log.jsonl", "checkpoint.safetensors", "teacher.safetensors"];
    copy_files(&at.join("run"), &at.join("again"), &files);
    assert_past_is_fixed(at);
    assert_goes_on_with_calm_phase(at, kept.step);
    assert_phase_is_added_at_the_end(at);
}

/// The phases that were done cannot be changed, and an attempt leaves the checkpoint as it is.
fn assert_past_is_fixed(at: &Path) {
    let before = read_bytes(at.join("run/checkpoint.safetensors"));
    for (flags, field) in [
        ("--recipe other.toml", "plan.phases[1].lr: expected 0.05, got 0.04"),
        ("--recipe calm.toml --seed 4", "plan.seed: expected 0, got 4"),
        ("--recipe calm.toml --batch 32", "plan.batch: expected 64, got 32"),
    ] {
        assert_fails("supernet", at, &format!("{TRAIN} {flags} --out run --resume"), 1, field);
    }
    assert!(read_bytes(at.join("run/checkpoint.safetensors")) == before);
}

/// The phase that diverged is repeated with another rate, and the files record both plans.
fn assert_goes_on_with_calm_phase(at: &Path, from_step: u64) {
    let message = succeeds("supernet", at, &format!("{TRAIN} --recipe calm.toml --out run --resume"));
    let note =
        format!("from step {from_step} on under another plan: plan.phases[2].lr 1000.0 before, 0.02 now");
    assert!(message.contains(&note), "{message}");
    let written = plan_of(&at.join("run"));
    assert_eq!((&written["earlier"][0]["from_step"], &written["from_step"]), (&0.into(), &from_step.into()));
    assert_eq!(written["earlier"][0]["plan"]["phases"][1]["lr"], 1000.0);
    let Provenance::Trained(training) =
        Supernet::read(&at.join("run/supernet.safetensors")).expect("done").provenance
    else {
        panic!("it was trained");
    };
    assert_eq!(written["hash"], training.plan);
}

/// A copy of the run ends with the same bytes; then a third plan adds a phase at its end.
fn assert_phase_is_added_at_the_end(at: &Path) {
    json("supernet", at, &format!("{TRAIN} --recipe calm.toml --out again --resume"));
    let bytes = |run: &str, file: &str| read_bytes(at.join(run).join(file));
    for file in ["supernet.safetensors", "checkpoint.safetensors"] {
        assert!(bytes("run", file) == bytes("again", file), "{file}");
    }
    let more = json("supernet", at, &format!("{TRAIN} --recipe more.toml --out again --resume"));
    assert_eq!(more["resumed_from_step"], 32);
    assert_eq!(plan_of(&at.join("again"))["earlier"].as_array().map(Vec::len), Some(2));
    assert!(bytes("run", "supernet.safetensors") != bytes("again", "supernet.safetensors"));
    // a finished run is left as it is under its own plan
    let done = bytes("again", "supernet.safetensors");
    json("supernet", at, &format!("{TRAIN} --recipe more.toml --out again --resume"));
    assert!(bytes("again", "supernet.safetensors") == done);
}

#[test]
fn a_run_under_two_plans_that_is_killed_ends_with_the_same_bytes() {
    let folder = scratch();
    let at = folder.path();
    write_file(at.join("first.toml"), recipe([0.05, 0.05], false));
    write_file(at.join("second.toml"), recipe([0.05, 0.01], true));
    json("supernet", at, &format!("{TRAIN} --recipe first.toml --out whole"));
    let names = names_in(&at.join("whole"));
    copy_files(&at.join("whole"), &at.join("parts"), &names.iter().map(String::as_str).collect::<Vec<_>>());
    // a finished phase cannot be changed
    assert_fails(
        "supernet",
        at,
        &format!("{TRAIN} --recipe second.toml --out whole --resume"),
        1,
        "plan.phases[2].lr: expected 0.05, got 0.01",
    );
    write_file(at.join("second.toml"), recipe([0.05, 0.05], true));
    let go_on =
        |run: &str| format!("{TRAIN} --checkpoint-seconds 0 --recipe second.toml --out {run} --resume");
    json("supernet", at, &go_on("whole"));
    #[cfg(unix)]
    {
        interrupt(at, "supernet", &go_on("parts"), "-KILL", When::Changed("parts/plan.json"));
        interrupt(at, "supernet", &go_on("parts"), "-TERM", When::Changed("parts/log.jsonl"));
    }
    json("supernet", at, &go_on("parts"));
    assert!(weights_of(&at.join("whole")) == weights_of(&at.join("parts")));
}

/// The checkpoint of the diverging second phase is finite but useless; that of the first phase's end is good.
#[test]
fn a_resume_after_a_divergence_goes_back_to_the_end_of_a_phase() {
    let folder = scratch();
    let at = folder.path();
    for (name, lr) in [("calm", [0.05, 0.02]), ("wild", [0.05, 1000.0]), ("wild-first", [1000.0, 0.02])] {
        write_file(at.join(format!("{name}.toml")), recipe(lr, false));
    }
    let checkpoint = |file: &str| Checkpoint::read(&at.join("run").join(file)).expect("whole").training;
    let log = |run: &str| read_text(at.join(run).join("log.jsonl"));
    json("supernet", at, &format!("{TRAIN} --recipe calm.toml --out whole"));
    assert!(!at.join("whole/phase_end.safetensors").exists(), "it has served");

    let wild = format!("{TRAIN} --recipe wild.toml --out run --checkpoint-seconds 0");
    assert_fails("supernet", at, &wild, 1, "which goes back to the end of the previous phase");
    assert!(checkpoint("checkpoint.safetensors").step > 16, "saved in the phase that diverges");
    assert_eq!(checkpoint("phase_end.safetensors").step, 16);
    let last: Value = serde_json::from_str(log("run").lines().last().expect("a line")).expect("JSON");
    assert_eq!((&last["event"], &last["first_step"]), (&"diverged".into(), &16.into()));
    // a finished phase cannot be changed then either, and the same plan diverges again
    let other = format!("{TRAIN} --recipe wild-first.toml --out run --resume");
    assert_fails("supernet", at, &other, 1, "plan.phases[1].lr: expected 0.05, got 1000.0");
    assert!(checkpoint("checkpoint.safetensors").step > 16, "and nothing was done");
    for line in [format!("{wild} --resume"), format!("{TRAIN} --recipe calm.toml --out run --resume")] {
        let output = run("supernet", at, &line);
        let message = stderr(&output);
        assert_eq!(output.status.success(), line.contains("calm"), "{message}");
        let step = &last["step"];
        let note = format!(
            "the run diverged at step {step} of phase wild; it continues from the end of phase calm (step 16)"
        );
        assert!(message.contains(&note), "{message}");
    }
    assert!(!log("run").contains("diverged") && !at.join("run/phase_end.safetensors").exists());
    let weights = |run: &str| {
        let supernet = Supernet::read(&at.join(run).join("supernet.safetensors")).expect("done");
        supernet.weights.tensors().values().map(values).collect::<Vec<_>>()
    };
    assert!(weights("run") == weights("whole"));

    let wild_first = format!("{TRAIN} --recipe wild-first.toml --out first --checkpoint-seconds 0");
    assert_fails("supernet", at, &wild_first, 1, "which starts over");
    assert!(at.join("first/checkpoint.safetensors").exists());
    let message = succeeds("supernet", at, &format!("{TRAIN} --recipe calm.toml --out first --resume"));
    assert!(message.contains("of phase calm; it starts over"), "{message}");
    assert!(weights_of(&at.join("first")) == weights_of(&at.join("whole")), "a plan of its own");
}

#[test]
fn a_kept_checkpoint_is_one_to_go_back_to() {
    let folder = scratch();
    let at = folder.path();
    let phases = [("calm", 0.05, 1, 1), ("then/wild", 0.02, 9, 1), ("depth 1", 0.01, 9, 9)];
    write_file(at.join("three.toml"), short_recipe(1.0, &phases));
    let train = format!("{TRAIN} --recipe three.toml --keep-checkpoints --out run");
    json("supernet", at, &train);
    let kept = |name: &str| at.join("run/checkpoints").join(name);
    for (name, step) in
        [("1-calm.safetensors", 16), ("2-then-wild.safetensors", 32), ("3-depth-1.safetensors", 48)]
    {
        assert_eq!(Checkpoint::read(&kept(name)).expect(name).training.step, step);
    }
    let bytes = |name: &str| read_bytes(at.join("run").join(name));
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
        write_file(at.join("three.toml"), short_recipe(1.0, &phases));
        let output = run("supernet", at, &format!("{train} --resume --checkpoint-seconds 0"));
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(message.contains("from step 32 on under another plan: plan.phases[3].lr"), "{message}");
    }
    assert!(bytes("supernet.safetensors") != supernet && !log().contains("diverged"));
}
