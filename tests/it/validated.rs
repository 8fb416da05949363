//! Validation within phases: the best weights are those that a phase ends with, a phase without better ones ends early, and
//! runs that are stopped or killed anywhere end with the same bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernels::Backend;
use network::data::Dataset;
use network::eval::Accuracy;
use serde_json::Value;
use space::{Arch, preset};
use supernet::train::{
    Observer, PlannedPhase, Recipe, RunFolder, RunOutcome, StepRecord, TrainConfig, Trainer, ValidationRecord,
};

use crate::cli::json;
use crate::common::short_recipe;

/// A phase of 16 steps and one of 34, validated every four steps. The first one's rate is 0, so that it ends early; the
/// second one's rises until it spoils what it has learned.
fn recipe() -> String {
    let phases = short_recipe(1.0, &[("still", 0.0, 1, 1), ("rising", 1.5, 9, 9)]);
    let phases = phases.replacen(
        "[[phases]]",
        "[validation]\nevery_epochs = 0.25\nimages = 300\npatience = 20\n\n[[phases]]",
        1,
    );
    let (still, rising) = phases.split_at(phases.find("name = \"rising\"").expect("a phase"));
    let rising = rising.replace("epochs = 1.0\nwarmup_epochs = 0\n", "epochs = 0.125\nwarmup_epochs = 2.0\n");
    format!("{still}{rising}")
}

fn patient(patience: u64) -> String {
    recipe().replacen("patience = 20", &format!("patience = {patience}"), 1)
}

/// Sets the flag after a step, or when the validation after so many steps is told.
struct Stopper<'a> {
    stop: &'a AtomicBool,
    step: Option<u64>,
    validation: Option<u64>,
}

impl Observer for Stopper<'_> {
    fn phase(&mut self, _: &PlannedPhase, _: u64) {}

    fn step(&mut self, record: &StepRecord) {
        if Some(record.step) == self.step {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn evaluated(&mut self, _: &Arch, _: Accuracy) {}

    fn validated(&mut self, record: &ValidationRecord) {
        if Some(record.step) == self.validation {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn train(folder: &Path, recipe: &str, [step, validation]: [Option<u64>; 2]) -> RunOutcome {
    let config = TrainConfig { seed: 1, checkpoint_every: Duration::ZERO, backend: Backend::detect() };
    let recipe = Recipe::from_toml("validated", recipe).expect("a recipe");
    let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
    let run = RunFolder::open(folder, true).expect("a folder");
    let mut trainer =
        Trainer::new(preset("tiny").expect("a preset"), dataset, &recipe, run, config).expect("it fits");
    let stop = AtomicBool::new(false);
    trainer.run(&stop, &mut Stopper { stop: &stop, step, validation }).expect("no errors")
}

/// The lines of the log of these events, with nothing in them that may differ.
fn lines(folder: &Path, events: &[&str]) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect();
    lines.retain(|line| events.iter().any(|event| line["event"] == *event));
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().expect("an object").remove("ms")));
    lines
}

const ALL: [&str; 4] = ["step", "validation", "evaluation", "ended_early"];

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> =
        names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_phase_ends_with_the_weights_of_its_best_validation() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = |recipe: String| recipe.replacen("images = 300\n", "", 1);
    assert_eq!(train(folder.path(), &whole(recipe()), [None; 2]), RunOutcome::Finished);
    let validations = lines(folder.path(), &["validation"]);
    let steps: Vec<_> = validations.iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps, [4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 50]);
    let evaluations = lines(folder.path(), &["evaluation"]);
    for phase in ["still", "rising"] {
        let of = |lines: &[Value]| -> Vec<Value> {
            lines.iter().filter(|line| line["phase"] == phase).cloned().collect()
        };
        let validations = of(&validations);
        let best = validations.iter().rfind(|line| line["is_best"] == true).expect("a best one");
        let last = validations.last().expect("one");
        if phase == "still" {
            assert_eq!(best["step"], 16, "of equal ones that at the end");
        } else {
            assert_ne!(best["step"], last["step"], "the end is not the best: {validations:?}");
        }
        let counted = of(&evaluations).iter().map(|line| line["correct"].clone()).collect::<Vec<_>>();
        let subnetworks = best["subnetworks"].as_array().expect("a list").iter();
        assert_eq!(counted, subnetworks.map(|subnetwork| subnetwork["correct"].clone()).collect::<Vec<_>>());
    }
    let left = ["checkpoint", "log", "plan", "run", "supernet", "teacher"];
    let names = files(folder.path());
    assert!(
        names.iter().zip(left).all(|(name, part)| name.starts_with(part)) && names.len() == 6,
        "{names:?}"
    );
}

#[test]
fn a_phase_without_a_better_validation_ends_early() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(train(folder.path(), &patient(2), [None; 2]), RunOutcome::Finished);
    let early = lines(folder.path(), &["ended_early"]);
    let first = &early[0];
    assert_eq!((&first["phase"], &first["step"]), (&"still".into(), &12.into()));
    assert_eq!((&first["best_step"], &first["next_step"]), (&4.into(), &16.into()));
    let steps: Vec<_> =
        lines(folder.path(), &["step"]).iter().filter_map(|line| line["step"].as_u64()).collect();
    assert_eq!(steps[..14], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17]);
}

#[test]
fn a_validated_run_that_is_stopped_anywhere_ends_with_the_same_bytes() {
    for (patience, every) in [(2, 1), (20, 3)] {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let whole = at("whole");
        let parts = at("parts");
        assert_eq!(train(&whole, &patient(patience), [None; 2]), RunOutcome::Finished);
        let number = |line: &Value| line["step"].as_u64();
        let ways =
            lines(&whole, &["step", "validation"]).into_iter().map(|line| match line["event"] == "step" {
                true => [number(&line), None],
                false => [None, number(&line)],
            });
        for way in ways.step_by(every) {
            assert_ne!(train(&parts, &patient(patience), way), RunOutcome::Finished, "{way:?}");
        }
        assert_eq!(train(&parts, &patient(patience), [None; 2]), RunOutcome::Finished);
        let bytes = |run: &str, file: &str| std::fs::read(at(run).join(file)).expect("weights");
        for file in ["supernet.safetensors", "teacher.safetensors", "checkpoint.safetensors"] {
            assert!(bytes("whole", file) == bytes("parts", file), "{file}, patience {patience}");
        }
        assert_eq!(lines(&whole, &ALL), lines(&parts, &ALL), "patience {patience}");
        assert_eq!(files(&whole), files(&parts));
    }
}

#[test]
#[cfg(unix)]
fn a_validated_run_that_is_killed_ends_with_the_same_bytes() {
    use crate::failures::{When, interrupt};
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    std::fs::write(at.join("recipe.toml"), patient(2)).expect("written");
    let train = "train --space tiny --data digits --recipe recipe.toml";
    let whole = json("supernet", at, &format!("{train} --out whole"));
    let validations = whole["validations"].as_array().expect("a list");
    assert_eq!(validations.len(), lines(&at.join("whole"), &["validation"]).len());
    assert_eq!((&validations[0]["step"], &validations[0]["is_best"]), (&4.into(), &true.into()));
    let go_on = format!("{train} --checkpoint-seconds 0 --out run --resume");
    for signal in ["-KILL", "-KILL", "-TERM", "-KILL", "-KILL"] {
        interrupt(at, "supernet", &go_on, signal, When::Changed("run/log.jsonl"));
    }
    json("supernet", at, &go_on);
    let bytes = |run: &str| std::fs::read(at.join(run).join("supernet.safetensors")).expect("weights");
    assert!(bytes("whole") == bytes("run"));
    assert_eq!(lines(&at.join("whole"), &ALL), lines(&at.join("run"), &ALL));
    assert_eq!(files(&at.join("whole")), files(&at.join("run")));
}
