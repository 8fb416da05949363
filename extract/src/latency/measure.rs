//! The protocol of measuring: what when, how often, and when to stop. Sees time only through a [`Stopwatch`].
//!
//! Every visit prepares its subject afresh, so that a table averages over where its buffers happen to lie, and memory
//! stays that of one subject. All unfinished subjects are visited once a round, in random order, so that slow drift of
//! the machine hits all alike. A sentinel is read before and after samples are taken: sampling waits until the machine
//! is undisturbed, and what was disturbed meanwhile is sampled again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::seq::SliceRandom;
use supernet::space::LayerSpec;

use super::engine::{Engine, Stopwatch};
use super::fold::{Observed, fold};
use super::rows::{RowsLog, Subject};
use super::stats;
use super::timer::{Timer, Watch};
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// How subjects are measured.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureConfig {
    /// Least length of one sample: a run shorter than this is repeated in an inner loop. 200 us, well above
    /// the cost of reading a clock (tens of ns).
    pub sample: Duration,
    /// Least length of one sample in ticks of the clock: 1,000, so that its resolution is .1 %.
    pub sample_ticks: u64,
    /// Warm-up ends when this many samples in a row show no falling trend: 8, the least with which the trend
    /// test finds a moderate one.
    pub warmup_window: usize,
    /// Warm-up ends after this many samples anyway.
    pub max_warmup: usize,
    /// Samples that a visit should have of an undisturbed machine: 5.
    pub visit_samples: usize,
    /// Samples for one between two readings of the sentinel, as many as fit into this: 2 ms, some six times what a
    /// reading takes.
    pub between_readings: Duration,
    /// Tries to get those samples, over their number.
    pub patience: usize,
    /// Least number of visits that count: 6, the least whose medians have a 95 % interval.
    pub min_visits: usize,
    /// Visits that count after which a subject is left as it is.
    pub max_visits: usize,
    /// Visits after which it is left as it is even if the machine was disturbed at most of them.
    pub most_visits: usize,
    /// How well the median must be known: half of its 95 % interval over itself; 3 %.
    pub half_width: f64,
    /// Time after which no new visit begins, as the stopwatch sees it.
    pub budget: Duration,
    /// Decides the order of visits.
    pub seed: u64,
    /// The sentinel's usual time in an earlier measuring, in microseconds, to whose speed this one is scaled.
    pub reference_us: Option<f64>,
}

impl Default for MeasureConfig {
    fn default() -> Self {
        Self {
            sample: Duration::from_micros(200),
            sample_ticks: 1000,
            warmup_window: 8,
            max_warmup: 40,
            visit_samples: 5,
            between_readings: Duration::from_millis(2),
            patience: 4,
            min_visits: 6,
            max_visits: 20,
            most_visits: 30,
            half_width: 0.03,
            budget: Duration::from_secs(1800),
            seed: 0,
            reference_us: None,
        }
    }
}

impl MeasureConfig {
    /// The protocol in words, for the table.
    pub fn describe(&self) -> String {
        format!(
            "inner loop of at least {} us or {} ticks a sample; warm-up until {} samples show no falling trend (Mann-Kendall, 5 %), at most {}; visits of {} samples, each prepared afresh, in rounds over all in random order; a sentinel is read before and after samples of {} ms, by which those of a disturbed machine are discarded and slow drift is divided out; {} to {} visits until the 95 % order-statistic interval of their medians is within {} % of the median; outliers by modified z-score above 3.5 are counted, not removed",
            self.sample.as_micros(),
            self.sample_ticks,
            self.warmup_window,
            self.max_warmup,
            self.visit_samples,
            self.between_readings.as_millis(),
            self.min_visits,
            self.max_visits,
            100.0 * self.half_width,
        )
    }

    /// The same for whole sub-networks, with three visits that count, whatever their spread: they are judged in number,
    /// not one by one.
    #[must_use]
    pub fn for_networks(&self) -> Self {
        Self { min_visits: 3, max_visits: 3, most_visits: 12, ..self.clone() }
    }
}

/// How far measuring has come; reported after each visit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// What was visited.
    pub subject: &'a Subject,
    /// The round, counted from 1.
    pub round: usize,
    /// Subjects that need no further visit, as of the round's beginning.
    pub finished: usize,
    /// Subjects in all.
    pub subjects: usize,
    /// Time that was measured so far.
    pub spent: Duration,
}

/// What came of measuring.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What is known of each subject that was visited.
    pub observed: BTreeMap<Subject, Observed>,
    /// Those for which the budget did not suffice.
    pub unmeasured: Vec<Subject>,
    /// How many are not known as well as was asked for, because the budget was spent or `stop` set.
    pub unfinished: usize,
    /// Time that was measured.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// What runs and times the subjects, and what is read before and after samples are taken.
pub struct Instruments<'a> {
    /// Runs them.
    pub engine: &'a dyn Engine,
    /// Times them.
    pub stopwatch: &'a mut dyn Stopwatch,
    /// Tells how fast the machine is: runs once what takes the same time whenever the machine is as fast.
    pub sentinel: &'a mut (dyn FnMut() -> Result<()> + Send),
}

/// Measures subjects, each some layers, until each is known well enough, the budget is spent, or `stop` is set. What
/// the log holds already counts; what is sampled is appended to it.
///
/// # Errors
/// Passes on what the engine and the log say.
pub fn measure(
    subjects: &BTreeMap<Subject, Vec<LayerSpec>>,
    instruments: Instruments<'_>,
    config: &MeasureConfig,
    log: &mut RowsLog,
    progress: &mut dyn FnMut(Progress<'_>),
    stop: &AtomicBool,
) -> Result<Measured> {
    let Instruments { engine, stopwatch, sentinel } = instruments;
    let mut timer = Timer::new(stopwatch, config);
    let mut watch = Watch::new(sentinel, log.rows());
    let mut order_rng = rng(config.seed, Purpose::Measure);
    for round in 1.. {
        let observed = fold(log.rows(), config.reference_us);
        let mut order = unfinished(subjects, &observed, config);
        order.shuffle(&mut order_rng);
        let finished = subjects.len() - order.len();
        if order.is_empty() {
            break;
        }
        for (subject, layers) in order {
            if stop.load(Ordering::Relaxed) || timer.spent() >= config.budget {
                let stopped = stop.load(Ordering::Relaxed);
                return Ok(outcome(subjects, log, config, timer.spent(), stopped));
            }
            let inner = observed.get(subject).map_or(0, |observed| observed.inner);
            let mut visited = Ok(());
            engine.isolated(&mut || visited = timer.visit(engine, (subject, layers), inner, &mut watch, log));
            visited?;
            progress(Progress { subject, round, finished, subjects: subjects.len(), spent: timer.spent() });
        }
    }
    Ok(outcome(subjects, log, config, timer.spent(), false))
}

type Pending<'a> = Vec<(&'a Subject, &'a [LayerSpec])>;

fn unfinished<'a>(
    subjects: &'a BTreeMap<Subject, Vec<LayerSpec>>,
    observed: &BTreeMap<Subject, Observed>,
    config: &MeasureConfig,
) -> Pending<'a> {
    let finished = |observed: &Observed| {
        let visits = observed.visits.len();
        visits >= config.max_visits
            || observed.visited >= config.most_visits
            || (visits >= config.min_visits && stats::converged(&observed.visits, config.half_width))
    };
    let pending = subjects.iter().filter(|(subject, _)| !observed.get(subject).is_some_and(finished));
    pending.map(|(subject, layers)| (subject, layers.as_slice())).collect()
}

fn outcome(
    subjects: &BTreeMap<Subject, Vec<LayerSpec>>,
    log: &RowsLog,
    config: &MeasureConfig,
    spent: Duration,
    interrupted: bool,
) -> Measured {
    let mut observed = fold(log.rows(), config.reference_us);
    observed.retain(|subject, _| subjects.contains_key(subject));
    let unmeasured = subjects.keys().filter(|subject| !observed.contains_key(subject)).cloned().collect();
    let unfinished = unfinished(subjects, &observed, config).len();
    Measured { observed, unmeasured, unfinished, spent, interrupted }
}

#[cfg(test)]
#[path = "measure/tests.rs"]
mod tests;
