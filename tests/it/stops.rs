//! A training that is stopped after any step, then resumed, ends with the same bytes.

use std::path::Path;
use std::sync::Arc;

use network::data::Dataset;
use space::preset;
use supernet::train::{Recipe, RunFolder, RunOutcome, Trainer};

use crate::testing::files::{read_text, scratch, weights_of};
use crate::testing::training::{StopAt, config_without_clock, train_until};

/// Trains until the chosen moment; with the number of steps of the whole run.
fn train(folder: &Path, at: StopAt) -> (RunOutcome, u64) {
    let space = preset("tiny").expect("a preset");
    let dataset = Dataset::open("digits").expect("embedded");
    let run = RunFolder::open(folder, true).expect("a folder");
    let recipe = Recipe::progressive().scaled(0.0007);
    let mut trainer =
        Trainer::new(space, Arc::new(dataset), &recipe, run, config_without_clock(2)).expect("it fits");
    let steps = trainer.plan().steps();
    (train_until(&mut trainer, at), steps)
}

#[test]
fn stopping_after_any_step_or_evaluation_changes_nothing() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    let (outcome, steps) = train(&at("whole"), StopAt::Never);
    assert_eq!(outcome, RunOutcome::Finished);
    let read = |run: &str| weights_of(&at(run));
    let evaluations = |run: &str| {
        let log = read_text(at(run).join("log.jsonl"));
        log.lines()
            .filter(|line| line.contains("\"event\":\"evaluation\""))
            .map(str::to_string)
            .collect::<Vec<_>>()
    };
    for step in 0..steps {
        let run = format!("stopped{step}");
        assert_eq!(train(&at(&run), StopAt::Step(step)).0, RunOutcome::Interrupted { step: step + 1 });
        assert_eq!(train(&at(&run), StopAt::Never).0, RunOutcome::Finished);
        assert!(read(&run) == read("whole"), "stopped after step {step}");
        assert_eq!(evaluations(&run), evaluations("whole"), "stopped after step {step}");
    }
    // stopped in every evaluation, one per resume
    while train(&at("evaluated"), StopAt::Evaluation).0 != RunOutcome::Finished {}
    assert!(read("evaluated") == read("whole"));
    assert_eq!(evaluations("evaluated"), evaluations("whole"));
}
