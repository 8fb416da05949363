//! A training that is stopped after any step, and gone on with, ends with the same bytes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernels::Backend;
use network::data::Dataset;
use network::eval::Accuracy;
use space::{Arch, preset};
use supernet::train::{
    Observer, PlannedPhase, Recipe, RunFolder, RunOutcome, StepRecord, TrainConfig, Trainer,
};

/// Sets the flag after a step, in an evaluation, or when a phase begins.
struct Stopper<'a> {
    stop: &'a AtomicBool,
    at: Option<u64>,
    in_evaluation: bool,
}

impl Observer for Stopper<'_> {
    fn phase(&mut self, _: &PlannedPhase, _: u64) {}

    fn step(&mut self, record: &StepRecord) {
        if Some(record.step) == self.at && !self.in_evaluation {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn evaluated(&mut self, _: &Arch, _: Accuracy) {
        if self.at.is_some() && self.in_evaluation {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn train(folder: &Path, at: Option<u64>, in_evaluation: bool) -> (RunOutcome, u64) {
    let config =
        TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
    let space = preset("tiny").expect("a preset");
    let dataset = Dataset::open("digits").expect("embedded");
    let run = RunFolder::open(folder, true).expect("a folder");
    let recipe = Recipe::progressive().scaled(0.0007);
    let mut trainer = Trainer::new(space, Arc::new(dataset), &recipe, run, config).expect("it fits");
    let stop = AtomicBool::new(false);
    let steps = trainer.plan().steps();
    let outcome = trainer.run(&stop, &mut Stopper { stop: &stop, at, in_evaluation }).expect("no errors");
    (outcome, steps)
}

#[test]
fn stopping_after_any_step_or_evaluation_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let (outcome, steps) = train(&at("whole"), None, false);
    assert_eq!(outcome, RunOutcome::Finished);
    let read = |run: &str| std::fs::read(at(run).join("supernet.safetensors")).expect("weights");
    let evaluations = |run: &str| {
        let log = std::fs::read_to_string(at(run).join("log.jsonl")).expect("a log");
        log.lines()
            .filter(|line| line.contains("\"event\":\"evaluation\""))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    for step in 0..steps {
        let run = format!("stopped{step}");
        assert_eq!(train(&at(&run), Some(step), false).0, RunOutcome::Interrupted { step: step + 1 });
        assert_eq!(train(&at(&run), None, false).0, RunOutcome::Finished);
        assert!(read(&run) == read("whole"), "stopped after step {step}");
        assert_eq!(evaluations(&run), evaluations("whole"), "stopped after step {step}");
    }
    // stopped in an evaluation, again and again until there is none left
    while train(&at("evaluated"), Some(0), true).0 != RunOutcome::Finished {}
    assert!(read("evaluated") == read("whole"));
    assert_eq!(evaluations("evaluated"), evaluations("whole"));
}
