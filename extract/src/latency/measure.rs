//! The protocol of measuring: the order of visits, their number, and when to stop. Sees time only through a [`RunTimer`].
//!
//! Every visit prepares its subject afresh, so that a table averages over where its buffers happen to lie, and memory
//! stays that of one subject. All unfinished subjects are visited once per round, layers and sub-networks alike, in random
//! order. A sentinel is read just before and after samples are taken; what counts of them is decided by
//! [`undisturbed`] from all rows, anew each round and after a kill.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use latency::{Conditions, Folded, Record, Row, Rows, RowsLog, Samples, Subject, undisturbed};
use rand::seq::SliceRandom;
use space::LayerSpec;

use super::engine::{Engine, RunTimer};
use super::timer::{Timer, Visited, Watch};
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// The protocol's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureConfig {
    /// Least length of one sample: a run shorter than this is repeated in an inner loop. 25 us, far shorter than the fast
    /// state of a shared machine lasts (170 us in the median), and well above the cost of reading a clock (tens of ns).
    pub sample: Duration,
    /// Least length of one sample in ticks of the clock: 500, so that its resolution is .2 %.
    pub sample_ticks: u64,
    /// Time that a subject runs before its samples count: 1 ms.
    pub warm_up: Duration,
    /// Length of a visit's samples: 3 ms; something longer is run ten times.
    pub visit: Duration,
    /// Sub-networks whose inference takes this or longer are timed layer by layer: 1 ms, which the fast state of a shared
    /// machine hardly ever lasts.
    pub in_place_from: Duration,
    /// Visits after which a subject is left as it is: 150.
    pub most_visits: usize,
    /// Target uncertainty of a latency: half of its 95 % interval over itself; 5 %.
    pub half_width: f64,
    /// Time after which no new visit begins.
    pub budget: Duration,
    /// Share of the budget through which visits are spread at least: a half.
    pub spread: f64,
    /// Decides the order of visits.
    pub seed: u64,
    /// The sentinel's fast time in earlier sessions, in microseconds.
    pub kept_us: Option<f64>,
}

impl Default for MeasureConfig {
    fn default() -> Self {
        Self {
            sample: Duration::from_micros(25),
            sample_ticks: 500,
            warm_up: Duration::from_millis(1),
            visit: Duration::from_millis(3),
            in_place_from: Duration::from_millis(1),
            most_visits: 150,
            half_width: 0.05,
            budget: Duration::from_secs(120),
            spread: 0.5,
            seed: 0,
            kept_us: None,
        }
    }
}

impl MeasureConfig {
    /// The usual protocol within another budget.
    pub fn within(budget: Duration) -> Self {
        Self { budget, ..Self::default() }
    }

    /// The protocol in words, for the table.
    pub fn describe(&self) -> String {
        format!(
            "fast mode (median of the samples within 8 % of their .5 % quantile) of samples of at least {} us or {} ticks, {} ms per visit after {} ms of warming up, each visit prepared afresh, in rounds over all in random order; accepted when at least {} visits, of which {} confirm it by a sample within 5 % and a reading of the sentinel within 5 % of its own fast time; left when {} confirm it and half of its 95 % interval is within {} %; sub-networks of {} ms and more layer by layer in place, summed",
            self.sample.as_micros(),
            self.sample_ticks,
            self.visit.as_millis(),
            self.warm_up.as_millis(),
            undisturbed::LEAST_VISITS,
            undisturbed::LEAST_CONFIRMED,
            undisturbed::ENOUGH_CONFIRMED,
            100.0 * self.half_width,
            self.in_place_from.as_millis(),
        )
    }
}

/// The layers of each subject.
pub type Subjects = BTreeMap<Subject, Vec<LayerSpec>>;

/// The progress of measuring, reported after each visit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// The visited subject.
    pub subject: &'a Subject,
    /// The round, counted from 1.
    pub round: usize,
    /// Subjects that count already, as of the round's beginning.
    pub finished: usize,
    /// Subjects in all.
    pub subjects: usize,
    /// Time since measuring began.
    pub spent: Duration,
}

/// The result of measuring.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Subjects that were never visited.
    pub unmeasured: Vec<Subject>,
    /// Number of subjects that do not count: too few visits, or too few that confirm them.
    pub unaccepted: usize,
    /// Number of subjects that would have been visited again, had the budget not been spent or `stop` been set.
    pub unfinished: usize,
    /// Time that it took.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// The engine, the timer and the sources of the machine's conditions.
pub struct Instruments<'a> {
    /// Runs them.
    pub engine: &'a dyn Engine,
    /// Times them.
    pub stopwatch: &'a mut dyn RunTimer,
    /// Work that takes the same time whenever the machine is equally fast.
    pub sentinel: &'a mut (dyn FnMut() -> Result<()> + Send),
    /// Reads the operating system's figures of the machine.
    pub conditions: fn() -> Conditions,
}

/// Seconds after which the conditions are read again.
const CONDITIONS_SECONDS: f64 = 5.0;

/// The subjects to measure, and the protocol.
#[derive(Clone, Copy)]
pub struct MeasureTask<'a> {
    /// Layers and sub-networks.
    pub subjects: &'a Subjects,
    /// Fingerprint of the space of the sub-networks; `None` where there are only layers.
    pub space: Option<&'a str>,
    /// The protocol's settings.
    pub config: &'a MeasureConfig,
}

/// Measures subjects until each is known well enough, the budget is spent, or `stop` is set. Samples
/// already in the log count too; new ones are appended to it. The least visited subjects come first.
///
/// # Errors
/// Returns the errors of the engine and the log.
pub fn measure(
    task: MeasureTask<'_>,
    instruments: Instruments<'_>,
    log: &mut RowsLog,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Measured> {
    let MeasureTask { subjects, space, config } = task;
    let Instruments { engine, stopwatch, sentinel, conditions } = instruments;
    let mut timer = Timer::new(stopwatch, config);
    let mut watch = Watch::new(sentinel);
    let mut order_rng = rng(config.seed, Purpose::Measure);
    let mut looked_at = 0.0;
    for round in 1.. {
        let state = State::of(log.rows(), config);
        watch.fast_us = state.fast_us;
        let mut order: Vec<_> =
            subjects.iter().filter(|(subject, _)| !state.is_finished(subject, config)).collect();
        order.shuffle(&mut order_rng);
        order.sort_by_key(|(subject, _)| state.visits(subject));
        let finished = subjects.keys().filter(|subject| state.is_accepted(subject)).count();
        if order.is_empty() {
            break;
        }
        for (subject, layers) in order {
            let spent = timer.elapsed();
            if stop.load(Ordering::Relaxed) || spent >= config.budget {
                let interrupted = stop.load(Ordering::Relaxed);
                log.push(Record::Conditions(conditions()))?;
                return Ok(outcome(&task, log.rows(), spent, interrupted));
            }
            if spent.as_secs_f64() >= looked_at + CONDITIONS_SECONDS {
                looked_at = spent.as_secs_f64();
                log.push(Record::Conditions(conditions()))?;
            }
            let space = space.filter(|_| matches!(subject, Subject::Network(_)));
            let in_place = state.in_place.get(subject).copied();
            let visited = Visited { subject, layers, space, in_place };
            let mut done = Ok(());
            engine.isolated(&mut || done = timer.visit(engine, &visited, &mut watch, log));
            done?;
            progress(Progress { subject, round, finished, subjects: subjects.len(), spent: timer.elapsed() });
        }
    }
    let spent = timer.elapsed();
    if looked_at > 0.0 {
        log.push(Record::Conditions(conditions()))?;
    }
    Ok(outcome(&task, log.rows(), spent, false))
}

/// The state of each subject, as of the rows so far.
struct State {
    rows: BTreeMap<Subject, Row>,
    in_place: BTreeMap<Subject, bool>,
    fast_us: Option<f64>,
    seconds: f64,
}

impl State {
    fn of(rows: &Rows, config: &MeasureConfig) -> Self {
        let folded = Folded::new(rows, config.kept_us, config.half_width);
        let known =
            folded.measured.keys().filter_map(|subject| Some((subject.clone(), folded.row(subject)?)));
        let in_place =
            rows.visits().map(|visit| (visit.subject.clone(), matches!(visit.samples, Samples::InPlace(_))));
        Self {
            rows: known.collect(),
            in_place: in_place.collect(),
            fast_us: folded.fast_us(),
            seconds: folded.seconds(),
        }
    }

    fn visits(&self, subject: &Subject) -> usize {
        self.rows.get(subject).map_or(0, |row| row.visits)
    }

    fn is_accepted(&self, subject: &Subject) -> bool {
        self.rows.get(subject).is_some_and(|row| row.accepted)
    }

    fn is_finished(&self, subject: &Subject, config: &MeasureConfig) -> bool {
        let spread = self.seconds >= config.spread * config.budget.as_secs_f64();
        self.rows.get(subject).is_some_and(|row| {
            let enough = row.converged && row.confirmed >= undisturbed::ENOUGH_CONFIRMED;
            (enough && spread) || row.visits >= config.most_visits
        })
    }
}

fn outcome(task: &MeasureTask<'_>, rows: &Rows, spent: Duration, interrupted: bool) -> Measured {
    let MeasureTask { subjects, config, .. } = *task;
    let state = State::of(rows, config);
    let unmeasured = subjects.keys().filter(|subject| state.visits(subject) == 0).cloned().collect();
    let unaccepted = subjects.keys().filter(|subject| !state.is_accepted(subject)).count();
    let unfinished = subjects.keys().filter(|subject| !state.is_finished(subject, config)).count();
    Measured { unmeasured, unaccepted, unfinished, spent, interrupted }
}

#[cfg(test)]
#[path = "measure/tests.rs"]
mod tests;
