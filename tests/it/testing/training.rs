//! Short recipes, and trainings that are stopped at a chosen moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernels::Backend;
use network::eval::Accuracy;
use space::Arch;
use supernet::train::{Observer, RunOutcome, StepRecord, TrainConfig, Trainer, ValidationRecord};

/// When a run is asked to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StopAt {
    Never,
    /// After the step of this number.
    Step(u64),
    /// In the next evaluation.
    Evaluation,
    /// When the validation after so many steps is reported.
    Validation(u64),
}

/// Sets the flag at the chosen moment.
struct Stopper<'a> {
    stop: &'a AtomicBool,
    at: StopAt,
}

impl Stopper<'_> {
    fn stop_if(&self, is_reached: bool) {
        if is_reached {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Observer for Stopper<'_> {
    fn step(&mut self, record: &StepRecord) {
        self.stop_if(matches!(self.at, StopAt::Step(step) if step == record.step));
    }

    fn evaluated(&mut self, _: &Arch, _: Accuracy) {
        self.stop_if(matches!(self.at, StopAt::Evaluation));
    }

    fn validated(&mut self, record: &ValidationRecord) {
        self.stop_if(matches!(self.at, StopAt::Validation(step) if step == record.step));
    }
}

/// Trains until the chosen moment, or to the end.
pub(crate) fn train_until(trainer: &mut Trainer, at: StopAt) -> RunOutcome {
    let stop = AtomicBool::new(false);
    trainer.run(&stop, &mut Stopper { stop: &stop, at }).expect("no errors")
}

/// A configuration whose only checkpoints are those that do not come by the clock.
pub(crate) fn config_without_clock(seed: u64) -> TrainConfig {
    TrainConfig { seed, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() }
}

/// A recipe of phases of so many epochs each: name, learning rate, number of allowed kernels and of depths.
pub(crate) fn short_recipe(epochs: f64, phases: &[(&str, f64, usize, usize)]) -> String {
    let mut text =
        "version = 1\nname = \"short\"\nbatch = 64\nlr_batch = 64\nmomentum = 0.9\nweight_decay = 3e-5\n\
                    label_smoothing = 0.1\n\n"
            .to_string();
    for (name, lr, kernel, depth) in phases {
        text += &format!(
            "[[phases]]\nname = \"{name}\"\nallowed = {{ kernel = {kernel}, depth = {depth}, expand = 1 }}\nsubnetworks = 1\n\
             epochs = {epochs:?}\nwarmup_epochs = 0\nlr = {lr:?}\ndistill = false\nsort_channels = false\n\n"
        );
    }
    text
}
