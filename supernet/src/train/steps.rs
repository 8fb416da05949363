//! Steps one after the other: batches in, lines of the log out, saved every so often and when asked to stop.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::timing::{Every, Stopwatch};
use network::data::Batch;

use super::prefetcher::Prefetcher;
use super::record::{LogLine, StepRecord};
use super::run_folder::RunFolder;
use crate::error::Result;

/// What is trained a step at a time, and can be saved between two.
pub(super) trait Learner {
    /// The next step.
    fn next_step(&self) -> u64;
    /// Takes it.
    fn take_step(&mut self, batch: &Batch, watch: &mut Stopwatch) -> Result<StepRecord>;
    /// What is done between two steps, once for each of them.
    fn pause(&mut self, _stop: &AtomicBool, _told: &mut dyn FnMut(&LogLine)) -> Result<Pause> {
        Ok(Pause::Nothing)
    }
    /// Saves the state between two steps.
    fn save(&mut self) -> Result<()>;
    /// Where the log lies.
    fn folder(&mut self) -> &mut RunFolder;
}

/// What was done between two steps.
pub(super) enum Pause {
    /// Nothing.
    Nothing,
    /// What was due.
    Done,
    /// What was due, which says that no further step of the phase is worth while.
    Enough,
    /// Not all that was due, for `stop` was set.
    Stopped,
}

/// How steps came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// All are taken.
    All,
    /// No further step is worth while.
    Enough,
    /// `stop` was set; the state is saved.
    Stopped,
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

/// The steps that are left, and what is due between them; `stop` saves and ends them. At the first step nothing is saved:
/// what was done on entering a phase would be done again on a resume.
pub(super) fn take_steps(
    learner: &mut impl Learner,
    pace: &Pace,
    batches: &mut Prefetcher,
    told: &mut dyn FnMut(&LogLine),
) -> Result<Taken> {
    let mut save = Every::new(pace.every);
    let mut watch = Stopwatch::start();
    let taken_up = learner.next_step();
    while learner.next_step() < pace.steps.end {
        let begun = learner.next_step() > pace.steps.start;
        if begun {
            let pause = learner.pause(pace.stop, told)?;
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
            // only now, so that the state knows what was done between the steps
            if learner.next_step() > taken_up && save.due() {
                learner.save()?;
            }
        }
        let batch = match batches.next() {
            Ok(batch) => batch,
            Err(error) => {
                // what was learned is kept, if it can be; why it ended is the batch
                if begun {
                    let _ = learner.save();
                }
                return Err(error);
            }
        };
        let record = learner.take_step(&batch, &mut watch)?;
        let line = LogLine::Step(record);
        learner.folder().log(&line)?;
        told(&line);
    }
    Ok(Taken::All)
}
