//! Steps one after the other: batches in, lines of the log out, saved every so often and when asked to stop.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::feeder::Feeder;
use super::record::{LogLine, StepRecord};
use super::run_folder::RunFolder;
use crate::data::Batch;
use crate::error::Result;
use crate::timing::{Every, Stopwatch};

/// What is trained a step at a time, and can be saved between two.
pub(super) trait Learner {
    /// The next step.
    fn next_step(&self) -> u64;
    /// Takes it.
    fn take_step(&mut self, batch: &Batch, watch: &mut Stopwatch) -> Result<StepRecord>;
    /// Saves the state between two steps.
    fn save(&mut self) -> Result<()>;
    /// Where the log lies.
    fn folder(&mut self) -> &mut RunFolder;
}

/// Which steps, and when to save.
pub(super) struct Pace<'a> {
    /// All steps of a phase, those that are taken already included.
    pub steps: Range<u64>,
    /// Time between two saves.
    pub every: Duration,
    /// Asks to save and to end.
    pub stop: &'a AtomicBool,
}

/// The steps that are left; whether all were taken, for `stop` saves and ends them. At the first step nothing is saved:
/// what was done on entering a phase would be done again on a resume.
pub(super) fn take_steps(
    learner: &mut impl Learner,
    pace: &Pace,
    batches: &mut Feeder,
    told: &mut dyn FnMut(&StepRecord),
) -> Result<bool> {
    let mut save = Every::new(pace.every);
    let mut watch = Stopwatch::start();
    while learner.next_step() < pace.steps.end {
        let begun = learner.next_step() > pace.steps.start;
        if begun && pace.stop.load(Ordering::Relaxed) {
            learner.save()?;
            return Ok(false);
        }
        let batch = match batches.next() {
            Ok(batch) => batch,
            Err(error) => {
                // what was learnt is kept, if it can be; why it ended is the batch
                if begun {
                    let _ = learner.save();
                }
                return Err(error);
            }
        };
        let record = learner.take_step(&batch, &mut watch)?;
        learner.folder().log(&LogLine::Step(record.clone()))?;
        told(&record);
        if save.due() && learner.next_step() < pace.steps.end {
            learner.save()?;
        }
    }
    Ok(true)
}
