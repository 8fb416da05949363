//! The protocol of measuring: what when, how often, and when to stop. Sees time only through a [`Stopwatch`].
//!
//! Every visit prepares its subject afresh, so that a table averages over where its buffers happen to lie, and memory
//! stays that of one subject. All unfinished subjects are visited once a round, in random order, so that slow drift of
//! the machine hits all alike. A sentinel is read before and after samples are taken: sampling waits until the machine
//! is undisturbed, and what was disturbed meanwhile is sampled again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::seq::SliceRandom;
use supernet::space::LayerSpec;

use super::drift::{is_quiet, undisturbed_us};
use super::engine::{Engine, Run, Stopwatch};
use super::fold::{Observed, fold};
use super::rows::{Record, Rows, RowsLog, Subject, Visit};
use super::stats;
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

    /// The same for whole sub-networks, which need fewer visits: they are compared in number, not one by one.
    #[must_use]
    pub fn for_networks(&self) -> Self {
        Self { min_visits: 2, max_visits: 6, most_visits: 12, ..self.clone() }
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
    /// Time that was measured.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// What runs and times the subjects, and the layer that is measured between any two visits.
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
    let mut timer = Timer { stopwatch, config, spent_ns: 0 };
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
    Measured { observed, unmeasured, spent, interrupted }
}

/// The sentinel, and what it took of late; not calibrated before it is needed.
struct Watch<'a> {
    run: &'a mut (dyn FnMut() -> Result<()> + Send),
    inner: u64,
    last_us: f64,
    recent: VecDeque<f64>,
}

/// Readings by which the present speed of an undisturbed machine is told.
const RECENT: usize = 200;
/// Samples of one reading, of which the median counts; the one before them, whose caches others have filled, does not.
const READING: usize = 3;
/// Readings to wait for an undisturbed machine before sampling goes on all the same: about a third of a second.
const WAIT: usize = 1000;

impl<'a> Watch<'a> {
    fn new(run: &'a mut (dyn FnMut() -> Result<()> + Send), rows: &Rows) -> Self {
        let readings: Vec<f64> = rows.visits().filter_map(|visit| visit.sentinel_us).flatten().collect();
        let recent = readings[readings.len().saturating_sub(RECENT)..].iter().copied().collect();
        Self { run, inner: 0, last_us: 0.0, recent }
    }

    /// Calibrates it, the first time, and reads it.
    fn begin(&mut self, timer: &mut Timer<'_>) -> Result<()> {
        if self.inner == 0 {
            timer.warm_up(1, self.run)?;
            self.inner = 1;
            let shortest = timer.config.sample_ticks.saturating_mul(timer.stopwatch.tick());
            while timer.time(self.inner, self.run)? < shortest && self.inner < MOST_RUNS {
                self.inner *= 2;
            }
            self.read(timer)?;
        }
        Ok(())
    }

    /// The sentinel's time now, in microseconds a run.
    fn read(&mut self, timer: &mut Timer<'_>) -> Result<f64> {
        timer.sample(self.inner, self.run)?;
        let samples = (0..READING).map(|_| timer.sample(self.inner, self.run)).collect::<Result<Vec<_>>>()?;
        self.last_us = stats::median(&samples);
        self.recent.push_back(self.last_us);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        Ok(self.last_us)
    }

    /// Whether the last reading is of an undisturbed machine.
    fn is_quiet(&self) -> bool {
        undisturbed_us(self.recent.iter().copied().collect()).is_none_or(|us| is_quiet(self.last_us, us))
    }

    /// Reads it until the machine is undisturbed, or patience is at an end.
    fn wait(&mut self, timer: &mut Timer<'_>) -> Result<()> {
        for _ in 0..WAIT {
            if self.is_quiet() {
                break;
            }
            self.read(timer)?;
        }
        Ok(())
    }
}

struct Timer<'a> {
    stopwatch: &'a mut dyn Stopwatch,
    config: &'a MeasureConfig,
    spent_ns: u64,
}

impl Timer<'_> {
    fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns)
    }

    fn prepare<'e>(&mut self, engine: &'e dyn Engine, layers: &[LayerSpec]) -> Result<Run<'e>> {
        let mut run = None;
        self.spent_ns += self.stopwatch.time(&mut || {
            run = Some(engine.prepare(layers)?);
            Ok(())
        })?;
        Ok(run.expect("set by the call that was timed"))
    }

    /// Prepares a subject, warms it up and samples it; `inner` runs a sample, if that is known already.
    fn visit(
        &mut self,
        engine: &dyn Engine,
        (subject, layers): (&Subject, &[LayerSpec]),
        inner: u64,
        watch: &mut Watch<'_>,
        log: &mut RowsLog,
    ) -> Result<()> {
        watch.begin(self)?;
        let mut run = self.prepare(engine, layers)?;
        let inner = self.calibrated(inner, &mut *run)?;
        self.sample_quietly((subject, inner), &mut *run, watch, log)
    }

    /// Takes samples between readings of the sentinel until there are enough of an undisturbed machine, or patience is
    /// at an end.
    fn sample_quietly(
        &mut self,
        (subject, inner): (&Subject, u64),
        run: &mut dyn FnMut() -> Result<()>,
        watch: &mut Watch<'_>,
        log: &mut RowsLog,
    ) -> Result<()> {
        let wanted = self.config.visit_samples.max(1);
        let (mut good, mut taken, mut again) = (0, 0, false);
        while good < wanted && taken < self.config.patience.max(1) * wanted {
            watch.wait(self)?;
            let (before, began) = (watch.last_us, self.spent());
            let mut samples_us = Vec::new();
            while samples_us.len() < wanted
                && (samples_us.is_empty() || self.spent() - began < self.config.between_readings)
            {
                samples_us.push(self.sample(inner, run)?);
            }
            let sentinel_us = Some([before, watch.read(self)?]);
            taken += samples_us.len();
            good += if watch.is_quiet() { samples_us.len() } else { 0 };
            log.push(Record::Visit(Visit {
                subject: subject.clone(),
                again,
                inner,
                samples_us,
                sentinel_us,
            }))?;
            again = true;
        }
        Ok(())
    }

    /// Warms up; the number of runs in a sample, found out where it is 0.
    fn calibrated(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        if inner > 0 {
            self.warm_up(inner, run)?;
            return Ok(inner);
        }
        let inner = self.calibrate(1, run)?;
        self.warm_up(inner, run)?;
        // a cold run is slow: what sufficed for it may be too few now
        self.calibrate(inner, run)
    }

    /// Nanoseconds of `inner` runs.
    fn time(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let spent = self.stopwatch.time(&mut || (0..inner).try_for_each(|_| run()))?;
        self.spent_ns += spent;
        Ok(spent)
    }

    /// Microseconds a run; at least a thousandth of a tick, so that a clock that stood still gives no zero.
    fn sample(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let least = 1e-3 * self.stopwatch.tick().max(1) as f64;
        Ok((self.time(inner, run)? as f64).max(least) / inner as f64 / 1e3)
    }

    /// The number of runs, `start` or more, that makes a sample long enough.
    fn calibrate(&mut self, start: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let ticks = self.config.sample_ticks.saturating_mul(self.stopwatch.tick());
        let target = (self.config.sample.as_nanos() as u64).max(ticks).max(1);
        let mut inner = start;
        loop {
            let spent = self.time(inner, run)?;
            if spent >= target || inner >= MOST_RUNS {
                return Ok(inner);
            }
            let wanted = 1.1 * inner as f64 * target as f64 / spent.max(1) as f64;
            inner = (wanted.ceil() as u64).clamp(inner + 1, 10 * inner).min(MOST_RUNS);
        }
    }

    /// Throws samples away until the last few do not fall any more.
    fn warm_up(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let window = self.config.warmup_window;
        let mut samples = Vec::with_capacity(self.config.max_warmup);
        while samples.len() < self.config.max_warmup {
            samples.push(self.sample(inner, run)?);
            if samples.len() >= window && !stats::falling(&samples[samples.len() - window..]) {
                break;
            }
        }
        Ok(())
    }
}

/// Each layer as a subject of its own.
pub fn single(layers: BTreeMap<String, LayerSpec>) -> BTreeMap<Subject, Vec<LayerSpec>> {
    layers.into_iter().map(|(key, layer)| (Subject::Layer(key), vec![layer])).collect()
}

/// Most runs in one sample: ends calibration on a clock that stands still.
const MOST_RUNS: u64 = 1 << 24;

#[cfg(test)]
#[path = "measure/tests.rs"]
mod tests;
