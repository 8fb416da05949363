use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::latency::drift::tests::setting;
use crate::latency::engine::EngineFacts;
use crate::latency::engine::Run;
use crate::latency::fold::layer_rows;
use crate::latency::plan::space_layers;
use crate::latency::stats::Row;
use supernet::space::preset;

/// A device whose time is a number: each run adds what `cost` says of (layer, runs of it so far, time).
struct FakeEngine {
    now: AtomicU64,
    visited: Mutex<Vec<String>>,
    cost: Cost,
}

/// Each layer as a subject of its own.
fn single(layers: BTreeMap<String, LayerSpec>) -> BTreeMap<Subject, Vec<LayerSpec>> {
    layers.into_iter().map(|(key, layer)| (Subject::Layer(key), vec![layer])).collect()
}

type Cost = fn(&str, u64, u64) -> u64;

impl FakeEngine {
    fn new(cost: Cost) -> Self {
        Self { now: AtomicU64::new(0), visited: Mutex::default(), cost }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn pass(&self, key: &str, runs: u64) {
        self.now.fetch_add((self.cost)(key, runs, self.now()), Ordering::Relaxed);
    }
}

impl Engine for FakeEngine {
    fn describe(&self) -> EngineFacts {
        setting().engine
    }

    fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>> {
        let (key, mut runs) = (layers[0].key(), 0);
        self.visited.lock().expect("no panic").push(key.clone());
        Ok(Box::new(move || {
            self.pass(&key, runs);
            runs += 1;
            Ok(())
        }))
    }
}

struct FakeClock<'a>(&'a FakeEngine);

impl Stopwatch for FakeClock<'_> {
    fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let before = self.0.now();
        run()?;
        Ok(self.0.now() - before)
    }

    fn tick(&self) -> u64 {
        1
    }
}

struct Outcome {
    measured: Measured,
    rows: BTreeMap<String, Row>,
    visited: Vec<String>,
}

/// Takes its place here.
const SENTINEL: &str = "sentinel";

fn tiny() -> BTreeMap<String, LayerSpec> {
    space_layers(&preset("tiny").expect("a preset")).expect("a checked space")
}

fn run_with(cost: Cost, config: &MeasureConfig, log: &mut RowsLog, stop_after: usize) -> Outcome {
    let layers = tiny();
    let engine = FakeEngine::new(cost);
    let (stop, mut visits) = (AtomicBool::new(false), 0);
    let mut progress = |_: Progress<'_>| {
        visits += 1;
        stop.store(visits == stop_after, Ordering::Relaxed);
    };
    let mut sentinel = || {
        engine.pass(SENTINEL, 0);
        Ok(())
    };
    let instruments =
        Instruments { engine: &engine, stopwatch: &mut FakeClock(&engine), sentinel: &mut sentinel };
    let subjects = single(layers.clone());
    let measured = measure(&subjects, instruments, config, log, &mut progress, &stop).expect("no errors");
    let rows = layer_rows(&measured.observed, config.half_width);
    let visited = engine.visited.into_inner().expect("no panic");
    Outcome { measured, rows, visited }
}

fn run(cost: Cost, config: &MeasureConfig) -> Outcome {
    run_with(cost, config, &mut RowsLog::in_memory(setting()), 0)
}

fn length(key: &str) -> u64 {
    1000 + 10 * key.len() as u64
}

fn steady(key: &str, _: u64, _: u64) -> u64 {
    length(key)
}

#[test]
fn a_steady_device_is_measured_exactly_in_six_rounds() {
    let config = MeasureConfig::default();
    let Outcome { measured, rows, visited } = run(steady, &config);
    assert!(measured.unmeasured.is_empty() && !measured.interrupted);
    assert_eq!(visited.len(), 6 * rows.len());
    for (key, row) in &rows {
        let exact = length(key) as f64 / 1e3;
        assert_eq!((row.median_us, row.low_us, row.high_us, row.mad_us), (exact, exact, exact, 0.0));
        assert_eq!((row.samples, row.outliers, row.visits, row.discarded), (30, 0, 6, 0));
        assert!(row.converged);
    }
    assert_eq!(run(steady, &config).visited, visited, "same seed, same order");
    assert_ne!(run(steady, &MeasureConfig { seed: 1, ..config }).visited, visited);
    let (first, second) = visited[..2 * rows.len()].split_at(rows.len());
    assert_ne!(first, second, "each round has its own order");
}

#[test]
fn warming_up_is_no_part_of_the_samples() {
    // the first 2,000 runs of a visit are up to three times slower
    let cost: Cost = |key, runs, _| length(key) + 2 * length(key) * 2000u64.saturating_sub(runs) / 2000;
    for (key, row) in run(cost, &MeasureConfig::default()).rows {
        let exact = length(&key) as f64 / 1e3;
        assert!((row.median_us / exact - 1.0).abs() < 0.03, "{key}: {} for {exact}", row.median_us);
    }
}

#[test]
fn what_never_settles_is_marked() {
    // these layers are at times three times as long, and nothing else is
    let cost: Cost = |key, _, now| {
        let long = key.starts_with("linear") || key.starts_with("pool");
        if long && (now / 50_000_000).is_multiple_of(2) { 3 * length(key) } else { length(key) }
    };
    let rows = run(cost, &MeasureConfig { max_visits: 8, ..MeasureConfig::default() }).rows;
    for (key, row) in &rows {
        let steady = !(key.starts_with("linear") || key.starts_with("pool"));
        assert_eq!(row.converged, steady, "{key}: {row:?}");
    }
    assert!(rows.values().all(|row| row.visits <= 8));
}

#[test]
fn a_disturbance_changes_nothing() {
    let undisturbed = run(steady, &MeasureConfig::default());
    // something else takes half of the processor in the second of every three fifths of a second
    let cost: Cost = |key, _, now| if (now / 600_000_000) % 3 == 1 { 2 * length(key) } else { length(key) };
    let disturbed = run(cost, &MeasureConfig::default());
    let discarded: usize = disturbed.rows.values().map(|row| row.discarded).sum();
    assert!(discarded > 50, "{discarded}");
    assert!(disturbed.measured.spent > undisturbed.measured.spent);
    for (key, row) in &disturbed.rows {
        let exact = length(key) as f64 / 1e3;
        assert_eq!((row.median_us, row.low_us, row.high_us), (exact, exact, exact), "{key}");
        assert!(row.converged);
    }
}

#[test]
fn slow_drift_is_divided_out() {
    // the machine becomes a tenth slower in the course of the measuring
    let cost: Cost = |key, _, now| length(key) + length(key) * (now / 1_000_000) / 20_000;
    let Outcome { measured, rows, .. } = run(cost, &MeasureConfig::default());
    assert!(measured.spent.as_secs_f64() > 1.0, "{:?}", measured.spent);
    let scales: Vec<f64> = rows.iter().map(|(key, row)| row.median_us * 1e3 / length(key) as f64).collect();
    let spread = scales.iter().fold(0.0_f64, |most, scale| most.max((scale / scales[0] - 1.0).abs()));
    assert!(spread < 0.005, "{spread}: all are scaled to one moment");
}

#[test]
fn where_nothing_can_be_trusted_it_ends_and_says_so() {
    // every other millisecond is three times slower
    let cost: Cost =
        |key, _, now| if (now / 300_000).is_multiple_of(2) { length(key) } else { 3 * length(key) };
    let config = MeasureConfig { most_visits: 8, ..MeasureConfig::default() };
    let Outcome { measured, rows, .. } = run(cost, &config);
    assert!(measured.unmeasured.is_empty());
    assert!(measured.observed.values().all(|observed| observed.visited <= 8));
    let marked = rows.values().filter(|row| !row.converged && row.discarded > 0).count();
    assert!(marked > rows.len() / 2, "{marked} of {}", rows.len());
}

#[test]
fn the_budget_ends_it_and_what_was_not_reached_is_listed() {
    let config = MeasureConfig { budget: Duration::from_millis(100), ..MeasureConfig::default() };
    let Outcome { measured, rows, visited } = run(steady, &config);
    assert_eq!(rows.len(), visited.len());
    assert!(!rows.is_empty() && !measured.unmeasured.is_empty());
    assert!(measured.spent >= config.budget && measured.spent < 2 * config.budget);
    assert!(rows.values().all(|row| !row.converged));
}

#[test]
fn what_was_sampled_before_a_kill_counts() {
    let config = MeasureConfig::default();
    let whole = run(steady, &config);
    let mut log = RowsLog::in_memory(setting());
    let first = run_with(steady, &config, &mut log, 100);
    assert!(first.measured.interrupted && first.visited.len() == 100);
    let rest = run_with(steady, &config, &mut log, 0);
    assert_eq!(rest.visited.len(), whole.visited.len() - 100);
    assert_eq!(rest.rows, whole.rows);
    let again = run_with(steady, &config, &mut log, 0);
    assert_eq!(again.measured.spent, Duration::ZERO, "not even the sentinel is run");
}

#[test]
fn an_engine_error_ends_it() {
    struct Broken;
    impl Stopwatch for Broken {
        fn time(&mut self, _: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
            Err(supernet::Error::invalid("clock", "time", "some", "none").into())
        }
        fn tick(&self) -> u64 {
            1
        }
    }
    let layers = tiny();
    let engine = FakeEngine::new(steady);
    let mut watched = || Ok(());
    let instruments = Instruments { engine: &engine, stopwatch: &mut Broken, sentinel: &mut watched };
    let (stop, config) = (AtomicBool::new(false), MeasureConfig::default());
    let mut log = RowsLog::in_memory(setting());
    assert!(measure(&single(layers.clone()), instruments, &config, &mut log, &mut |_| (), &stop).is_err());
}
