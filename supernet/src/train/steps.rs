//! The loop of steps: reads batches, writes log lines, and saves at intervals and when stopped.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::timing::{Every, Stopwatch};
use network::data::Batch;

use super::prefetcher::Prefetcher;
use super::record::{LogLine, StepRecord};
use super::run_folder::RunFolder;
use crate::error::Result;

/// A training that advances step by step, and can be saved between steps.
pub(super) trait Learner {
    /// The next step.
    fn next_step(&self) -> u64;
    /// Takes the next step.
    fn take_step(&mut self, batch: &Batch, watch: &mut Stopwatch) -> Result<StepRecord>;
    /// Does the work between two steps, before each step but the first of a phase.
    fn pause(&mut self, _stop: &AtomicBool, _report: &mut dyn FnMut(&LogLine)) -> Result<Pause> {
        Ok(Pause::Nothing)
    }
    /// Saves the state between two steps.
    fn save(&mut self) -> Result<()>;
    /// The folder of the log.
    fn folder(&mut self) -> &mut RunFolder;
}

/// The result of the work between two steps.
pub(super) enum Pause {
    /// Nothing was due.
    Nothing,
    /// All that was due is done.
    Done,
    /// All that was due is done, and no further step of the phase is worthwhile.
    Enough,
    /// `stop` was set before all that was due was done.
    Stopped,
}

/// How the loop of steps ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All steps are taken.
    All,
    /// No further step is worthwhile.
    Enough,
    /// `stop` was set; the state is saved.
    Stopped,
}

/// Which steps, and when to save.
pub(super) struct Pace<'a> {
    /// All steps of a phase, including those taken already.
    pub steps: Range<u64>,
    /// Time between two saves.
    pub every: Duration,
    /// Set to save and stop.
    pub stop: &'a AtomicBool,
}

/// Takes the remaining steps, and does the work due between them; `stop` saves and ends the loop. Nothing is saved at
/// the first step: a resume would repeat the work of entering a phase.
pub(super) fn take_steps(
    learner: &mut impl Learner,
    pace: &Pace,
    batches: &mut Prefetcher,
    report: &mut dyn FnMut(&LogLine),
) -> Result<Taken> {
    let mut save = Every::new(pace.every);
    let mut watch = Stopwatch::start();
    let taken_up = learner.next_step();
    while learner.next_step() < pace.steps.end {
        let begun = learner.next_step() > pace.steps.start;
        if begun {
            let pause = learner.pause(pace.stop, report)?;
            match pause {
                Pause::Enough => return Ok(Taken::Enough),
                // no part of the next step's time
                Pause::Done => drop(watch.lap()),
                Pause::Nothing | Pause::Stopped => {}
            }
            if matches!(pause, Pause::Stopped) || pace.stop.load(Ordering::Relaxed) {
                learner.save()?;
                return Ok(Taken::Stopped);
            }
            // only now, so that the saved state includes the work between the steps
            if learner.next_step() > taken_up && save.due() {
                learner.save()?;
            }
        }
        let batch = match batches.next() {
            Ok(batch) => batch,
            Err(error) => {
                // progress is saved if possible; the error to report is the batch's
                if begun {
                    let _ = learner.save();
                }
                return Err(error);
            }
        };
        let record = learner.take_step(&batch, &mut watch)?;
        let line = LogLine::Step(record);
        learner.folder().log(&line)?;
        report(&line);
    }
    Ok(Taken::All)
}
