//! The protocol of measuring: which layer when, how often, and when to stop. Sees time only through a
//! [`Stopwatch`].
//!
//! Every visit of a layer prepares it afresh, so that a table averages over where its buffers happen to lie,
//! and memory stays that of one layer. All unfinished layers are visited once a round, in random order, so
//! that slow drift of the machine hits all alike.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use supernet::space::LayerSpec;

use super::engine::{Engine, Stopwatch};
use super::stats::{self, Row};
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// How layers are measured.
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
    /// Samples of a layer in one round.
    pub visit_samples: usize,
    /// Least number of samples: two rounds.
    pub min_samples: usize,
    /// Most samples; a layer that is not known well enough by then is marked.
    pub max_samples: usize,
    /// How well the median must be known: half of its 95 % interval over itself; 3 %.
    pub half_width: f64,
    /// Time after which no new visit begins, as the stopwatch sees it.
    pub budget: Duration,
    /// Decides the order of visits.
    pub seed: u64,
    /// What an earlier, cut short measuring with the same settings sampled.
    pub taken: BTreeMap<String, Sampled>,
}

/// Samples of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Runs a sample; 0 until calibrated.
    pub inner: u64,
    /// Microseconds a run.
    pub samples: Vec<f64>,
}

impl Default for MeasureConfig {
    fn default() -> Self {
        Self {
            sample: Duration::from_micros(200),
            sample_ticks: 1000,
            warmup_window: 8,
            max_warmup: 40,
            visit_samples: 10,
            min_samples: 20,
            max_samples: 200,
            half_width: 0.03,
            budget: Duration::from_secs(600),
            seed: 0,
            taken: BTreeMap::new(),
        }
    }
}

impl MeasureConfig {
    /// The protocol in words, for the table.
    pub fn describe(&self) -> String {
        format!(
            "inner loop of at least {} us or {} ticks a sample; warm-up until {} samples show no falling trend (Mann-Kendall, 5 %), at most {}; rounds of {} samples over all layers in random order; {} to {} samples until the median's 95 % order-statistic interval is within {} % of it; outliers by modified z-score above 3.5 are counted, not removed",
            self.sample.as_micros(),
            self.sample_ticks,
            self.warmup_window,
            self.max_warmup,
            self.visit_samples,
            self.min_samples,
            self.max_samples,
            100.0 * self.half_width,
        )
    }
}

/// How far measuring has come; reported after each visit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress<'a> {
    /// Key of the layer that was visited.
    pub key: &'a str,
    /// The round, counted from 1.
    pub round: usize,
    /// Layers that need no further visit.
    pub finished: usize,
    /// Layers in all.
    pub layers: usize,
    /// Time that was measured so far.
    pub spent: Duration,
    /// Runs a sample of this layer.
    pub inner: u64,
    /// What the visit sampled.
    pub samples: &'a [f64],
}

/// What came of measuring.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// A row for each layer that was visited.
    pub rows: BTreeMap<String, Row>,
    /// Keys of layers for which the budget did not suffice.
    pub unmeasured: Vec<String>,
    /// Time that was measured.
    pub spent: Duration,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

struct Entry<'a> {
    key: &'a str,
    layers: &'a [LayerSpec],
    sampled: Sampled,
}

impl Entry<'_> {
    fn finished(&self, config: &MeasureConfig) -> bool {
        let samples = &self.sampled.samples;
        samples.len() >= config.max_samples
            || (samples.len() >= config.min_samples && stats::converged(samples, config.half_width))
    }
}

/// Measures entries, each some layers under a key, until each is known well enough, the budget is spent, or
/// `stop` is set.
///
/// # Errors
/// Passes on what the engine says.
pub fn measure(
    layers: &BTreeMap<String, Vec<LayerSpec>>,
    engine: &dyn Engine,
    stopwatch: &mut dyn Stopwatch,
    config: &MeasureConfig,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<()>,
    stop: &AtomicBool,
) -> Result<Measured> {
    let mut entries = Vec::with_capacity(layers.len());
    for (key, layers) in layers {
        entries.push(Entry { key, layers, sampled: config.taken.get(key).cloned().unwrap_or_default() });
    }
    let mut bench = Bench { engine, stopwatch, config, spent_ns: 0 };
    let mut order_rng = rng(config.seed, Purpose::Measure);
    for round in 1.. {
        let order = unfinished(&entries, config, &mut order_rng);
        for &index in &order {
            if stop.load(Ordering::Relaxed) || bench.spent() >= config.budget {
                return Ok(outcome(entries, config, bench.spent(), stop.load(Ordering::Relaxed)));
            }
            let before = entries[index].sampled.samples.len();
            bench.visit(&mut entries[index])?;
            let finished = entries.iter().filter(|entry| entry.finished(config)).count();
            let (key, layers, spent) = (entries[index].key, entries.len(), bench.spent());
            let Sampled { inner, samples } = &entries[index].sampled;
            let (inner, samples) = (*inner, &samples[before..]);
            progress(Progress { key, round, finished, layers, spent, inner, samples })?;
        }
        if order.is_empty() {
            break;
        }
    }
    Ok(outcome(entries, config, bench.spent(), false))
}

fn unfinished(entries: &[Entry], config: &MeasureConfig, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..entries.len()).filter(|&index| !entries[index].finished(config)).collect();
    order.shuffle(rng);
    order
}

fn outcome(entries: Vec<Entry>, config: &MeasureConfig, spent: Duration, interrupted: bool) -> Measured {
    let (measured, unmeasured): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| !entry.sampled.samples.is_empty());
    let row =
        |entry: Entry| (entry.key.to_string(), stats::summarize(&entry.sampled.samples, config.half_width));
    let unmeasured = unmeasured.into_iter().map(|entry| entry.key.to_string()).collect();
    Measured { rows: measured.into_iter().map(row).collect(), unmeasured, spent, interrupted }
}

struct Bench<'a> {
    engine: &'a dyn Engine,
    stopwatch: &'a mut dyn Stopwatch,
    config: &'a MeasureConfig,
    spent_ns: u64,
}

impl Bench<'_> {
    fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns)
    }

    /// Prepares a layer, warms it up and takes a round's samples.
    fn visit(&mut self, entry: &mut Entry) -> Result<()> {
        let (engine, mut run) = (self.engine, None);
        self.spent_ns += self.stopwatch.time(&mut || {
            run = Some(engine.prepare(entry.layers)?);
            Ok(())
        })?;
        let mut run = run.expect("set by the call that was timed");
        let Sampled { inner, samples } = &mut entry.sampled;
        let first = *inner == 0;
        if first {
            *inner = self.calibrate(1, &mut *run)?;
        }
        self.warm_up(*inner, &mut *run)?;
        if first {
            // a cold run is slow: what sufficed for it may be too few now
            *inner = self.calibrate(*inner, &mut *run)?;
        }
        let wanted = self.config.visit_samples.max(1).min(self.config.max_samples - samples.len());
        for _ in 0..wanted {
            samples.push(self.sample(*inner, &mut *run)?);
        }
        Ok(())
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

/// Each layer as an entry of its own.
pub fn single(layers: BTreeMap<String, LayerSpec>) -> BTreeMap<String, Vec<LayerSpec>> {
    layers.into_iter().map(|(key, layer)| (key, vec![layer])).collect()
}

/// Most runs in one sample: ends calibration on a clock that stands still.
const MOST_RUNS: u64 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::engine::{EngineFacts, Run};
    use crate::latency::plan::space_layers;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use supernet::space::preset;

    /// A device whose time is a number: each run adds what `cost` says of (layer, runs of it so far).
    struct FakeEngine {
        now: Rc<Cell<u64>>,
        visited: RefCell<Vec<String>>,
        cost: fn(&str, u64) -> u64,
    }

    impl Engine for FakeEngine {
        fn describe(&self) -> EngineFacts {
            let (engine, engine_version) = ("fake".to_string(), "1".to_string());
            EngineFacts { engine, engine_version, threads: 1, dtype: "f32".to_string(), batch: 1 }
        }

        fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>> {
            let (key, mut runs) = (layers[0].key(), 0);
            self.visited.borrow_mut().push(key.clone());
            Ok(Box::new(move || {
                self.now.set(self.now.get() + (self.cost)(&key, runs));
                runs += 1;
                Ok(())
            }))
        }
    }

    struct FakeClock(Rc<Cell<u64>>);

    impl Stopwatch for FakeClock {
        fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
            let before = self.0.get();
            run()?;
            Ok(self.0.get() - before)
        }

        fn tick(&self) -> u64 {
            1
        }
    }

    fn run(cost: fn(&str, u64) -> u64, config: &MeasureConfig) -> (Measured, Vec<String>) {
        let layers = single(space_layers(&preset("tiny").expect("a preset")).expect("a checked space"));
        let now = Rc::new(Cell::new(0));
        let engine = FakeEngine { now: now.clone(), visited: RefCell::default(), cost };
        let stop = AtomicBool::new(false);
        let measured = measure(&layers, &engine, &mut FakeClock(now), config, &mut |_| Ok(()), &stop)
            .expect("no errors");
        (measured, engine.visited.into_inner())
    }

    fn length(key: &str) -> u64 {
        1000 + 10 * key.len() as u64
    }

    #[test]
    fn a_steady_device_is_measured_exactly_in_two_rounds() {
        let config = MeasureConfig::default();
        let (measured, visited) = run(|key, _| length(key), &config);
        assert!(measured.unmeasured.is_empty() && !measured.interrupted);
        assert_eq!(visited.len(), 2 * measured.rows.len());
        for (key, row) in &measured.rows {
            let exact = length(key) as f64 / 1e3;
            assert_eq!((row.median_us, row.low_us, row.high_us, row.mad_us), (exact, exact, exact, 0.0));
            assert_eq!((row.samples, row.outliers, row.converged), (20, 0, true));
        }
        assert_eq!(run(|key, _| length(key), &config).1, visited, "same seed, same order");
        let other = MeasureConfig { seed: 1, ..config };
        assert_ne!(run(|key, _| length(key), &other).1, visited);
        let (first, second) = visited.split_at(visited.len() / 2);
        assert_ne!(first, second, "each round has its own order");
    }

    #[test]
    fn warming_up_is_no_part_of_the_samples() {
        // the first 2,000 runs of a visit are up to three times slower
        let cost = |key: &str, runs: u64| length(key) + 2 * length(key) * 2000u64.saturating_sub(runs) / 2000;
        let (measured, _) = run(cost, &MeasureConfig::default());
        for (key, row) in &measured.rows {
            let exact = length(key) as f64 / 1e3;
            assert!((row.median_us / exact - 1.0).abs() < 0.03, "{key}: {} for {exact}", row.median_us);
        }
    }

    #[test]
    fn what_never_settles_is_marked() {
        // every sample of about 200 us is either short or long
        let cost =
            |key: &str, runs: u64| if (runs / 200).is_multiple_of(2) { length(key) } else { 3 * length(key) };
        let (measured, _) = run(cost, &MeasureConfig { max_samples: 40, ..MeasureConfig::default() });
        let unsettled = measured.rows.values().filter(|row| !row.converged).count();
        assert!(unsettled > measured.rows.len() / 2, "{unsettled} of {}", measured.rows.len());
        assert!(measured.rows.values().all(|row| row.samples <= 40));
    }

    #[test]
    fn the_budget_ends_it_and_what_was_not_reached_is_listed() {
        let config = MeasureConfig { budget: Duration::from_millis(30), ..MeasureConfig::default() };
        let (measured, visited) = run(|key, _| length(key), &config);
        assert_eq!(measured.rows.len(), visited.len());
        assert!(!measured.rows.is_empty() && !measured.unmeasured.is_empty());
        assert!(measured.spent >= config.budget && measured.spent < 2 * config.budget);
        assert!(measured.rows.values().all(|row| !row.converged || row.samples >= 10));
    }

    #[test]
    fn what_was_sampled_before_a_kill_counts() {
        let config = MeasureConfig::default();
        let (whole, visited) = run(|key, _| length(key), &config);
        let sampled = |key: &String| Sampled { inner: 100, samples: vec![length(key) as f64 / 1e3; 20] };
        let taken =
            visited.iter().skip(1).filter(|key| **key != visited[0]).map(|key| (key.clone(), sampled(key)));
        let (rest, again) = run(|key, _| length(key), &MeasureConfig { taken: taken.collect(), ..config });
        assert_eq!(again, [visited[0].clone(), visited[0].clone()], "only what is not known yet is visited");
        assert_eq!(rest.rows, whole.rows);
    }

    #[test]
    fn a_stop_and_an_engine_error_end_it() {
        let layers = single(space_layers(&preset("tiny").expect("a preset")).expect("a checked space"));
        let now = Rc::new(Cell::new(0));
        let engine = FakeEngine { now: now.clone(), visited: RefCell::default(), cost: |_, _| 1000 };
        let stop = AtomicBool::new(false);
        let mut visits = 0;
        let mut progress = |_: Progress<'_>| {
            visits += 1;
            stop.store(visits == 3, Ordering::Relaxed);
            Ok(())
        };
        let config = MeasureConfig::default();
        let measured =
            measure(&layers, &engine, &mut FakeClock(now), &config, &mut progress, &stop).expect("no errors");
        assert!(measured.interrupted && measured.rows.len() == 3);

        struct Broken;
        impl Stopwatch for Broken {
            fn time(&mut self, _: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
                Err(supernet::Error::invalid("clock", "time", "some", "none").into())
            }
            fn tick(&self) -> u64 {
                1
            }
        }
        let stop = AtomicBool::new(false);
        assert!(measure(&layers, &engine, &mut Broken, &config, &mut |_| Ok(()), &stop).is_err());
    }
}
