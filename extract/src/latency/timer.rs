//! One visit: prepare, warm up, read the sentinel, sample, read it again.
//!
//! Each visit runs on new threads, whose part of the allocator is empty, as in a freshly started program. In
//! a heap that many other networks had used before, the measured latencies of networks were up to 7 % off.

use std::time::Duration;

use latency::rows::{LEAST_US, MOST_RUNS};
use latency::undisturbed::NEAR;
use latency::{Record, RowsLog, Samples, Subject, Visit};
use space::LayerSpec;

use super::engine::{Engine, Run, RunTimer, Stepped};
use super::measure::MeasureConfig;
use crate::error::Result;

/// Times runs, and keeps track of the time since measuring began and of the time spent waiting.
pub(super) struct Timer<'a> {
    stopwatch: &'a mut dyn RunTimer,
    config: &'a MeasureConfig,
    began_ns: u64,
    waited_ns: u64,
}

/// A subject to visit.
pub(super) struct Visited<'a> {
    pub subject: &'a Subject,
    pub layers: &'a [LayerSpec],
    /// Fingerprint of the space that a sub-network is of.
    pub space: Option<&'a str>,
    /// Whether it is timed layer by layer, if an earlier visit has shown that.
    pub in_place: Option<bool>,
}

/// Least and most samples of a visit.
const LEAST_SAMPLES: usize = 10;
const MOST_SAMPLES: usize = 100;
/// Calls that warm up at least.
const WARM_UP_CALLS: usize = 3;
/// The visit of a slow subject ends after this many times the usual length of a visit.
const LONG_VISIT: u64 = 8;
/// Runs per preparation of a network that is timed layer by layer; each run is a line in the rows.
const RUNS_IN_PLACE: usize = 4;

/// A prepared run: timed whole, or layer by layer.
enum Prepared<'e> {
    Whole(Run<'e>),
    InPlace(Stepped<'e>),
}

impl<'a> Timer<'a> {
    pub fn new(stopwatch: &'a mut dyn RunTimer, config: &'a MeasureConfig) -> Self {
        let began_ns = stopwatch.now();
        Self { stopwatch, config, began_ns, waited_ns: 0 }
    }

    /// Time since measuring began.
    pub fn elapsed(&mut self) -> Duration {
        Duration::from_nanos(self.elapsed_ns())
    }

    fn elapsed_ns(&mut self) -> u64 {
        self.stopwatch.now() - self.began_ns
    }

    /// Prepares a subject, warms it up and samples it; appends what it took to the log.
    pub fn visit(
        &mut self,
        engine: &dyn Engine,
        visited: &Visited<'_>,
        watch: &mut Watch<'_>,
        log: &mut RowsLog,
    ) -> Result<()> {
        watch.begin(self)?;
        match self.prepare(engine, visited)? {
            (Prepared::Whole(mut run), shortest_ns) => {
                let inner = self.inner(shortest_ns);
                let waited = watch.wait(self)?;
                let samples = Samples::Whole(self.sample(inner, &mut *run)?);
                let after = watch.read(self)?.lowest;
                self.write(visited, Line { inner, samples, waited, after, again: false }, log)
            }
            (Prepared::InPlace(mut run), _) => self.sample_in_place(visited, &mut *run, watch, log),
        }
    }

    /// The subject, warmed up, and the shortest time of a run, in nanoseconds. A network that takes longer than the fast
    /// state of a shared machine lasts is timed layer by layer, where the engine can do that.
    fn prepare<'e>(&mut self, engine: &'e dyn Engine, visited: &Visited<'_>) -> Result<(Prepared<'e>, u64)> {
        if visited.in_place != Some(true) {
            let mut run = engine.prepare(visited.layers)?;
            let shortest = self.warm_up(&mut *run)?;
            let long = matches!(visited.subject, Subject::Network(_))
                && shortest >= self.config.in_place_from.as_nanos() as u64;
            if visited.in_place.is_some() || !long {
                return Ok((Prepared::Whole(run), shortest));
            }
        }
        match engine.prepare_stepped(visited.layers)? {
            Some(mut run) => {
                run(&mut || ())?;
                Ok((Prepared::InPlace(run), 0))
            }
            None => {
                let mut run = engine.prepare(visited.layers)?;
                let shortest = self.warm_up(&mut *run)?;
                Ok((Prepared::Whole(run), shortest))
            }
        }
    }

    /// Runs it until it is warm; the shortest run, in nanoseconds.
    fn warm_up(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let start = self.elapsed_ns();
        let most = self.config.warm_up.as_nanos() as u64;
        let mut shortest = u64::MAX;
        let mut calls = 0;
        while calls < WARM_UP_CALLS || self.elapsed_ns() - start < most {
            shortest = shortest.min(self.stopwatch.time(run)?);
            calls += 1;
            // a clock that stands still warms nothing up
            if calls as u64 >= MOST_RUNS {
                break;
            }
        }
        Ok(shortest)
    }

    /// Runs per sample.
    fn inner(&self, shortest_ns: u64) -> u64 {
        let ticks = self.config.sample_ticks.saturating_mul(self.stopwatch.tick());
        let target = (self.config.sample.as_nanos() as u64).max(ticks);
        target.div_ceil(shortest_ns.max(1)).clamp(1, MOST_RUNS)
    }

    /// Samples, in microseconds per run. The first one, whose caches the sentinel has filled, does not count.
    fn sample(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
        self.time(inner, run)?;
        let start = self.elapsed_ns();
        let visit = self.config.visit.as_nanos() as u64;
        let mut samples = Vec::with_capacity(MOST_SAMPLES);
        loop {
            samples.push(significant(self.time(inner, run)? as f64 / inner as f64 / 1e3));
            let spent = self.elapsed_ns() - start;
            let enough = spent >= visit && samples.len() >= LEAST_SAMPLES;
            if enough || samples.len() >= MOST_SAMPLES || spent >= LONG_VISIT * visit {
                return Ok(samples);
            }
        }
    }

    /// Nanoseconds of `inner` runs.
    fn time(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        self.stopwatch.time(&mut || (0..inner).try_for_each(|_| run()))
    }

    /// Times the layers of some runs, each between readings of the sentinel.
    fn sample_in_place(
        &mut self,
        visited: &Visited<'_>,
        run: &mut dyn FnMut(&mut dyn FnMut()) -> Result<()>,
        watch: &mut Watch<'_>,
        log: &mut RowsLog,
    ) -> Result<()> {
        for index in 0..RUNS_IN_PLACE {
            let waited = watch.wait(self)?;
            let mut laps = Vec::with_capacity(visited.layers.len());
            let stopwatch = &mut *self.stopwatch;
            let mut last = 0;
            last += stopwatch.now();
            run(&mut || {
                let now = stopwatch.now();
                laps.push(significant((now - last) as f64 / 1e3));
                last = now;
            })?;
            let after = watch.read(self)?.lowest;
            let samples = Samples::InPlace(vec![laps]);
            let again = index > 0;
            self.write(visited, Line { inner: 1, samples, waited, after, again }, log)?;
        }
        Ok(())
    }

    fn write(&mut self, visited: &Visited<'_>, line: Line, log: &mut RowsLog) -> Result<()> {
        let Line { inner, samples, waited, after, again } = line;
        Ok(log.push(Record::Visit(Visit {
            subject: visited.subject.clone(),
            space: visited.space.map(str::to_string),
            again,
            inner,
            samples,
            arrival_us: Some(waited.arrival),
            sentinel_us: Some([waited.before, after]),
            at_seconds: Some(self.elapsed().as_millis() as f64 / 1e3),
        }))?)
    }
}

/// The records that a visit adds to the log.
struct Line {
    inner: u64,
    samples: Samples,
    waited: Waited,
    after: f64,
    again: bool,
}

/// The sentinel's time before a visit, in microseconds.
#[derive(Clone, Copy)]
struct Waited {
    /// When the visit arrived: whatever the machine did then.
    arrival: f64,
    /// Just before the samples, when waiting was over.
    before: f64,
}

/// One reading of the sentinel, in microseconds per run.
struct Reading {
    lowest: f64,
    middle: f64,
}

/// A time to five significant digits: finer than any is known. At least the least that rows may hold, so that a clock
/// that stood still gives no zero.
fn significant(us: f64) -> f64 {
    let us = us.max(LEAST_US);
    let scale = 10f64.powi(4 - us.log10().floor() as i32);
    (us * scale).round() / scale
}

/// The sentinel, and how fast it is known to be.
pub(super) struct Watch<'a> {
    run: &'a mut (dyn FnMut() -> Result<()> + Send),
    inner: u64,
    /// The sentinel's fast time, in microseconds, once known.
    pub fast_us: Option<f64>,
}

/// Runs of one reading.
const READING: usize = 3;
/// Runs to wait for the fast state: about as long as the visit itself takes.
const WAIT: usize = 40;

impl<'a> Watch<'a> {
    pub fn new(run: &'a mut (dyn FnMut() -> Result<()> + Send)) -> Self {
        Self { run, inner: 0, fast_us: None }
    }

    /// Finds out how many runs are long enough for the clock, the first time.
    fn begin(&mut self, timer: &mut Timer<'_>) -> Result<()> {
        if self.inner == 0 {
            self.inner = 1;
            let shortest = timer.config.sample_ticks.saturating_mul(timer.stopwatch.tick());
            while timer.time(self.inner, self.run)? < shortest && self.inner < MOST_RUNS {
                self.inner *= 2;
            }
        }
        Ok(())
    }

    fn look(&mut self, timer: &mut Timer<'_>) -> Result<f64> {
        Ok(significant(timer.time(self.inner, self.run)? as f64 / self.inner as f64 / 1e3))
    }

    /// The sentinel's time now.
    fn read(&mut self, timer: &mut Timer<'_>) -> Result<Reading> {
        let mut runs = [0.0; READING];
        for run in &mut runs {
            *run = self.look(timer)?;
        }
        runs.sort_by(f64::total_cmp);
        Ok(Reading { lowest: runs[0], middle: runs[READING / 2] })
    }

    /// Waits until the fast state is met, or patience is at an end: a visit that begins in it is likely to see it. Half of
    /// the time at most is spent waiting.
    fn wait(&mut self, timer: &mut Timer<'_>) -> Result<Waited> {
        let Reading { lowest, middle: arrival } = self.read(timer)?;
        let mut before = lowest;
        let Some(fast) = self.fast_us else { return Ok(Waited { arrival, before }) };
        let start = timer.elapsed_ns();
        for _ in 0..WAIT {
            let waited = timer.waited_ns + (timer.elapsed_ns() - start);
            if before <= (1.0 + NEAR) * fast || 2 * waited > timer.elapsed_ns() {
                break;
            }
            before = self.look(timer)?;
        }
        timer.waited_ns += timer.elapsed_ns() - start;
        Ok(Waited { arrival, before })
    }
}
