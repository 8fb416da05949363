//! Validation within phases: a phase ends with its best weights, or early if none get better, and runs that are stopped or
//! killed anywhere end with the same bytes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kernels::Backend;
use network::data::Dataset;
use serde_json::Value;
use space::preset;
use supernet::train::{Recipe, RunFolder, RunOutcome, TrainConfig, Trainer};

use crate::testing::commands::json;
use crate::testing::files::{log_of, names_in, read_bytes, scratch, weights_of, write_file};
use crate::testing::signals::{When, interrupt};
use crate::testing::training::{StopAt, short_recipe, train_until};

/// A phase of 16 steps and one of 34, validated every four steps. The learning rate of the first is 0, so that it ends
/// early; that of the second rises until the network gets worse.
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

fn train(folder: &Path, recipe: &str, stop_at: StopAt) -> RunOutcome {
    let config = TrainConfig { seed: 1, checkpoint_every: Duration::ZERO, backend: Backend::detect() };
    let recipe = Recipe::from_toml("validated", recipe).expect("a recipe");
    let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
    let run = RunFolder::open(folder, true).expect("a folder");
    let mut trainer =
        Trainer::new(preset("tiny").expect("a preset"), dataset, &recipe, run, config).expect("it fits");
    train_until(&mut trainer, stop_at)
}

/// The log lines of these events, without durations.
fn lines(folder: &Path, events: &[&str]) -> Vec<Value> {
    let mut lines = log_of(folder);
    lines.retain(|line| events.iter().any(|event| line["event"] == *event));
    for line in &mut lines {
        line.as_object_mut().expect("an object").remove("ms");
    }
    lines
}

const ALL: [&str; 4] = ["step", "validation", "evaluation", "ended_early"];

#[test]
fn a_phase_ends_with_the_weights_of_its_best_validation() {
    let folder = scratch();
    let on_all_images = recipe().replacen("images = 300\n", "", 1);
    assert_eq!(train(folder.path(), &on_all_images, StopAt::Never), RunOutcome::Finished);
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
    let names = names_in(folder.path());
    assert!(
        names.iter().zip(left).all(|(name, part)| name.starts_with(part)) && names.len() == 6,
        "{names:?}"
    );
}

#[test]
fn a_phase_without_a_better_validation_ends_early() {
    let folder = scratch();
    assert_eq!(train(folder.path(), &patient(2), StopAt::Never), RunOutcome::Finished);
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
        let folder = scratch();
        let at = |name: &str| folder.path().join(name);
        let whole = at("whole");
        let parts = at("parts");
        assert_eq!(train(&whole, &patient(patience), StopAt::Never), RunOutcome::Finished);
        for line in lines(&whole, &["step", "validation"]).iter().step_by(every) {
            let step = line["step"].as_u64().expect("a number");
            let stop_at = if line["event"] == "step" { StopAt::Step(step) } else { StopAt::Validation(step) };
            assert_ne!(train(&parts, &patient(patience), stop_at), RunOutcome::Finished, "{stop_at:?}");
        }
        assert_eq!(train(&parts, &patient(patience), StopAt::Never), RunOutcome::Finished);
        let bytes = |run: &str, file: &str| read_bytes(at(run).join(file));
        for file in ["supernet.safetensors", "teacher.safetensors", "checkpoint.safetensors"] {
            assert!(bytes("whole", file) == bytes("parts", file), "{file}, patience {patience}");
        }
        assert_eq!(lines(&whole, &ALL), lines(&parts, &ALL), "patience {patience}");
        assert_eq!(names_in(&whole), names_in(&parts));
    }
}

#[test]
#[cfg(unix)]
fn a_validated_run_that_is_killed_ends_with_the_same_bytes() {
    let folder = scratch();
    let at = folder.path();
    write_file(at.join("recipe.toml"), patient(2));
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
    assert!(weights_of(&at.join("whole")) == weights_of(&at.join("run")));
    assert_eq!(lines(&at.join("whole"), &ALL), lines(&at.join("run"), &ALL));
    assert_eq!(names_in(&at.join("whole")), names_in(&at.join("run")));
}
