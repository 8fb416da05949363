use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use latency::EngineFacts;
use latency::testing::setting;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use space::{Arch, preset, sampler};

use super::*;
use crate::latency::engine::{Run, Stepped};

/// The machine's slowdown over time.
struct Machine {
    /// When each state ends, in nanoseconds, and its level.
    states: Vec<(u64, f64)>,
}

impl Machine {
    fn steady(level: f64) -> Self {
        Self { states: vec![(u64::MAX, level)] }
    }

    /// States of random lengths from `shortest` to `longest` seconds, a share of the time at one of the levels.
    fn random(seed: u64, disturbed: f64, lengths: (f64, f64), levels: &[(f64, f64)]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut states = Vec::new();
        let mut end = 0.0;
        while end < 400.0 {
            let length = (rng.random_range(lengths.0.ln()..lengths.1.ln())).exp();
            let (low, high) = levels[rng.random_range(0..levels.len())];
            let slow = rng.random_range(low..=high);
            let ratio = disturbed / (1.0 - disturbed);
            for (level, length) in [(1.0, length), (slow, length * ratio)] {
                end += length;
                states.push(((end * 1e9) as u64, level));
            }
        }
        Self { states }
    }

    fn level(&self, now: u64) -> f64 {
        let place = self.states.partition_point(|(end, _)| *end <= now);
        self.states.get(place).map_or(1.0, |(_, level)| *level)
    }
}

/// A device whose time is a number: each run adds what its layers take at the machine's present level.
struct FakeEngine<'a> {
    now: AtomicU64,
    visited: Mutex<Vec<String>>,
    machine: &'a Machine,
    /// Slowdown per second.
    drift: f64,
}

impl<'a> FakeEngine<'a> {
    fn new(machine: &'a Machine) -> Self {
        Self { now: AtomicU64::new(0), visited: Mutex::default(), machine, drift: 0.0 }
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn pass(&self, ns: f64) {
        let level = self.machine.level(self.now()) * (1.0 + self.drift * self.now() as f64 / 1e9);
        self.now.fetch_add((ns * level) as u64, Ordering::Relaxed);
    }
}

/// A layer's undisturbed time, in nanoseconds.
fn length(layer: &LayerSpec) -> f64 {
    20_000.0 + 200.0 * layer.key().len() as f64
}

impl Engine for FakeEngine<'_> {
    fn describe(&self) -> EngineFacts {
        setting().engine
    }

    fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>> {
        self.visited.lock().expect("no panic").push(layers[0].key());
        self.pass(300_000.0);
        let lengths: Vec<f64> = layers.iter().map(length).collect();
        let mut runs = 0;
        Ok(Box::new(move || {
            runs += 1;
            // what is cold takes longer
            let cold = if runs < 5 { 3.0 } else { 1.0 };
            lengths.iter().for_each(|ns| self.pass(cold * ns));
            Ok(())
        }))
    }

    fn prepare_stepped(&self, layers: &[LayerSpec]) -> Result<Option<Stepped<'_>>> {
        let lengths: Vec<f64> = layers.iter().map(length).collect();
        Ok(Some(Box::new(move |done: &mut dyn FnMut()| {
            for ns in &lengths {
                self.pass(*ns);
                done();
            }
            Ok(())
        })))
    }
}

struct FakeClock<'a>(&'a FakeEngine<'a>);

impl RunTimer for FakeClock<'_> {
    fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let before = self.0.now();
        run()?;
        Ok(self.0.now() - before)
    }

    fn tick(&self) -> u64 {
        1
    }

    fn now(&mut self) -> u64 {
        self.0.now()
    }
}

/// Undisturbed time of the sentinel, in nanoseconds.
const SENTINEL_NS: f64 = 110_000.0;

/// Forty layers of `fashion`.
fn layers() -> Subjects {
    let all = preset("fashion").expect("a preset").layers();
    all.into_iter().take(40).map(|(key, layer)| (Subject::Layer(key), vec![layer])).collect()
}

struct Outcome {
    measured: Measured,
    rows: BTreeMap<Subject, Row>,
    met: bool,
    visited: Vec<String>,
}

fn run_with(
    engine: FakeEngine<'_>,
    subjects: &Subjects,
    config: &MeasureConfig,
    log: &mut RowsLog,
    stop_after: usize,
) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut visits = 0;
    let conditions = Conditions::default;
    let instruments = Instruments {
        engine: &engine,
        stopwatch: &mut FakeClock(&engine),
        sentinel: &mut || {
            engine.pass(SENTINEL_NS);
            Ok(())
        },
        conditions,
    };
    let measured = measure(
        MeasureTask { subjects, space: Some("print"), config },
        instruments,
        log,
        &mut |_: Progress<'_>| {
            visits += 1;
            stop.store(visits == stop_after, Ordering::Relaxed);
        },
        &stop,
    )
    .expect("no errors");
    let folded = Folded::new(log.rows(), config.kept_us, config.half_width);
    let rows = subjects.keys().filter_map(|subject| Some((subject.clone(), folded.row(subject)?))).collect();
    let met = !folded.comparable.is_empty();
    let visited = engine.visited.into_inner().expect("no panic");
    Outcome { measured, rows, met, visited }
}

fn run(machine: &Machine, config: &MeasureConfig) -> Outcome {
    run_with(FakeEngine::new(machine), &layers(), config, &mut RowsLog::in_memory(setting()), 0)
}

fn seconds(budget: u64) -> MeasureConfig {
    MeasureConfig { budget: Duration::from_secs(budget), ..MeasureConfig::default() }
}

/// The undisturbed latency over what a layer takes, less 1.
fn error(subject: &Subject, row: &Row) -> f64 {
    let Subject::Layer(key) = subject else { unreachable!() };
    let layer: LayerSpec = key.parse().expect("a key");
    1e3 * row.us / length(&layer) - 1.0
}

#[test]
fn a_steady_device_is_measured_exactly() {
    let steady = Machine::steady(1.0);
    let config = seconds(20);
    let Outcome { measured, rows, visited, met } = run(&steady, &config);
    assert!(met && measured.unmeasured.is_empty() && measured.unaccepted == 0 && measured.unfinished == 0);
    assert!(
        measured.spent >= config.budget / 2 && measured.spent < config.budget,
        "through half of the budget"
    );
    for (subject, row) in &rows {
        assert!(error(subject, row).abs() < 1e-4, "{subject:?}: {row:?}");
        assert!(row.converged && row.confirmed == row.visits && row.visits >= undisturbed::LEAST_VISITS);
    }
    assert_eq!(run(&steady, &config).visited, visited, "same seed, same order");
    assert_ne!(run(&steady, &MeasureConfig { seed: 1, ..config }).visited, visited);
    let (first, second) = visited[..2 * rows.len()].split_at(rows.len());
    assert_ne!(first, second, "each round has its own order");
}

/// Whatever the machine does, what counts is within 2 % of the undisturbed latency; the share of layers that count.
fn accepted(what: &str, machine: &Machine, config: &MeasureConfig) -> f64 {
    let outcome = run(machine, config);
    let counts = outcome.rows.iter().filter(|(_, row)| row.accepted);
    let worst = counts.clone().map(|(subject, row)| error(subject, row).abs()).fold(0.0, f64::max);
    let share = counts.count() as f64 / outcome.rows.len() as f64;
    eprintln!("{what}: {:.0} % count, the worst {:.2} % off", 100.0 * share, 100.0 * worst);
    assert!(worst < 0.02, "{what}: {worst}");
    assert!(outcome.met || share == 0.0, "{what}: none without the fast state");
    share
}

#[test]
fn the_fast_state_is_found_or_its_absence_is_said() {
    let config = seconds(60);
    let hump = [(1.2, 1.9)];
    for (index, (disturbed, lengths, least)) in [
        (0.1, (1e-3, 0.1), 1.0),
        (0.5, (1e-3, 1.0), 1.0),
        (0.7, (1e-3, 60.0), 0.0),
        (0.9, (1e-3, 0.1), 0.9),
        (0.9, (1e-3, 10.0), 0.0),
        (0.5, (10.0, 60.0), 0.0),
    ]
    .into_iter()
    .enumerate()
    {
        let machine = Machine::random(index as u64, disturbed, lengths, &hump);
        let what = format!("{disturbed} of the time disturbed, for {lengths:?} s");
        assert!(accepted(&what, &machine, &config) >= least, "{what}");
    }
    let levels = [(1.12, 1.14), (1.3, 1.35), (1.8, 1.9)];
    let machine = Machine::random(20, 0.6, (1e-3, 1.0), &levels);
    assert_eq!(accepted("three slower levels", &machine, &config), 1.0);
}

#[test]
fn a_machine_that_is_never_fast_says_so() {
    // neighbors that change all the time, none of them away
    let mut never = Machine::random(3, 0.999_999, (1e-9, 1e-8), &[(1.2, 1.9)]);
    never.states.retain(|(_, level)| *level > 1.0);
    assert_eq!(accepted("never fast, nothing known", &never, &seconds(30)), 0.0);
    // always as slow: only an earlier session shows it
    let kept = MeasureConfig { kept_us: Some(SENTINEL_NS / 1e3), ..seconds(30) };
    assert_eq!(accepted("never fast, fast time known", &Machine::steady(1.4), &kept), 0.0);
    let outcome = run(&Machine::steady(1.4), &kept);
    assert!(!outcome.met && outcome.measured.unaccepted == outcome.rows.len());
    assert_eq!(accepted("always fast", &Machine::steady(1.0), &kept), 1.0);
}

#[test]
fn slow_drift_is_within_bounds() {
    let machine = Machine::random(7, 0.5, (1e-3, 0.1), &[(1.2, 1.9)]);
    let engine = FakeEngine { drift: 0.02 / 60.0, ..FakeEngine::new(&machine) };
    let outcome = run_with(engine, &layers(), &seconds(60), &mut RowsLog::in_memory(setting()), 0);
    for (subject, row) in &outcome.rows {
        assert!(row.accepted && (-0.005..0.02).contains(&error(subject, row)), "{subject:?}: {row:?}");
    }
}

#[test]
fn long_networks_are_timed_layer_by_layer() {
    let space = preset("ofa-mbv3-w1.0").expect("a preset");
    let mut subjects = Subjects::new();
    for arch in [sampler::smallest(&space), sampler::largest(&space)] {
        let layers = space.lower(&arch).expect("legal");
        subjects.insert(Subject::Network(arch), [&layers[..], &layers, &layers].concat());
    }
    // no state lasts as long as a run
    let machine = Machine::random(5, 0.7, (1e-4, 5e-4), &[(1.2, 1.9)]);
    let mut log = RowsLog::in_memory(setting());
    let outcome = run_with(FakeEngine::new(&machine), &subjects, &seconds(60), &mut log, 0);
    for (subject, row) in &outcome.rows {
        let exact: f64 = subjects[subject].iter().map(length).sum::<f64>() / 1e3;
        assert!(exact > 1200.0 && row.accepted, "{exact} {row:?}");
        assert!((row.us / exact - 1.0).abs() < 0.02, "{} for {exact}", row.us);
        assert!(row.typical_us > 1.15 * exact, "{} for {exact}", row.typical_us);
    }
    assert!(log.rows().visits().all(|visit| matches!(visit.samples, Samples::InPlace(_))));
    assert!(log.rows().visits().all(|visit| visit.space.as_deref() == Some("print")));
}

#[test]
fn short_networks_are_timed_whole() {
    let arch: Arch = "r8:k3e3/k3e3".parse().expect("an arch");
    let layers = preset("tiny").and_then(|space| space.lower(&arch)).expect("legal");
    let subjects: Subjects = [(Subject::Network(arch), layers)].into();
    let mut log = RowsLog::in_memory(setting());
    let outcome = run_with(FakeEngine::new(&Machine::steady(1.0)), &subjects, &seconds(2), &mut log, 0);
    assert!(outcome.rows.values().all(|row| row.accepted));
    assert!(log.rows().visits().all(|visit| matches!(visit.samples, Samples::Whole(_))));
}

#[test]
fn the_budget_ends_it_and_what_was_not_reached_is_listed() {
    let config = MeasureConfig { budget: Duration::from_millis(100), ..MeasureConfig::default() };
    let Outcome { measured, rows, visited, .. } = run(&Machine::steady(1.0), &config);
    assert_eq!(rows.len(), visited.len());
    assert!(!rows.is_empty() && !measured.unmeasured.is_empty());
    assert!(measured.spent >= config.budget && measured.spent < 2 * config.budget);
    assert!(rows.values().all(|row| !row.accepted));
}

#[test]
fn half_of_the_time_at_most_is_spent_waiting() {
    // the fast state is known, and never met
    let config = MeasureConfig { kept_us: Some(SENTINEL_NS / 1e3), ..seconds(20) };
    let waiting = run(&Machine::steady(1.4), &config).visited.len();
    let not = run(&Machine::steady(1.0), &MeasureConfig { spread: 1.0, ..config }).visited.len();
    assert!(waiting > not / 4 && waiting < not, "{waiting} visits, {not} where there is nothing to wait for");
}

#[test]
fn what_was_sampled_before_a_kill_counts_and_the_least_visited_come_first() {
    let machine = Machine::steady(1.0);
    let config = seconds(20);
    let mut log = RowsLog::in_memory(setting());
    let first = run_with(FakeEngine::new(&machine), &layers(), &config, &mut log, 100);
    assert!(first.measured.interrupted && first.visited.len() == 100);
    let rest = run_with(FakeEngine::new(&machine), &layers(), &config, &mut log, 0);
    let left: Vec<&String> = rest.visited[..20].iter().collect();
    assert!(
        left.iter().all(|key| !first.visited[80..].contains(key)),
        "those of the third round that are left"
    );
    assert!(rest.rows.values().all(|row| row.converged));
    let again = run_with(FakeEngine::new(&machine), &layers(), &config, &mut log, 0);
    assert_eq!(again.visited.len(), 0, "all is known");
}

#[test]
fn an_engine_error_ends_it() {
    struct Broken;
    impl RunTimer for Broken {
        fn time(&mut self, _: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
            Err(base::Error::invalid("clock", "time", "some", "none").into())
        }
        fn tick(&self) -> u64 {
            1
        }
        fn now(&mut self) -> u64 {
            0
        }
    }
    let machine = Machine::steady(1.0);
    let engine = FakeEngine::new(&machine);
    let conditions = Conditions::default;
    let instruments =
        Instruments { engine: &engine, stopwatch: &mut Broken, sentinel: &mut || Ok(()), conditions };
    let stop = AtomicBool::new(false);
    let config = MeasureConfig::default();
    let mut log = RowsLog::in_memory(setting());
    let task = MeasureTask { subjects: &layers(), space: None, config: &config };
    assert!(measure(task, instruments, &mut log, &mut |_| (), &stop).is_err());
}
