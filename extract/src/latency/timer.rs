//! One visit: prepare, calibrate, warm up, and sample between readings of the sentinel.

use std::collections::VecDeque;
use std::time::Duration;

use supernet::space::LayerSpec;

use super::drift::{is_quiet, undisturbed_us};
use super::engine::{Engine, Run, Stopwatch};
use super::measure::MeasureConfig;
use super::rows::{LEAST_US, MOST_RUNS, Record, Rows, RowsLog, Subject, Visit};
use super::stats;
use crate::error::Result;

/// Times runs, and adds up what it timed.
pub(super) struct Timer<'a> {
    stopwatch: &'a mut dyn Stopwatch,
    config: &'a MeasureConfig,
    spent_ns: u64,
}

impl<'a> Timer<'a> {
    pub fn new(stopwatch: &'a mut dyn Stopwatch, config: &'a MeasureConfig) -> Self {
        Self { stopwatch, config, spent_ns: 0 }
    }

    /// All that was timed so far.
    pub fn spent(&self) -> Duration {
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
    pub fn visit(
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

    /// Microseconds a run; at least the least that rows may hold, so that a clock that stood still gives no zero.
    fn sample(&mut self, inner: u64, run: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        Ok((self.time(inner, run)? as f64 / inner as f64 / 1e3).max(LEAST_US))
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

/// The sentinel, and what it took of late; not calibrated before it is needed.
pub(super) struct Watch<'a> {
    run: &'a mut (dyn FnMut() -> Result<()> + Send),
    inner: u64,
    last_us: f64,
    recent: VecDeque<f64>,
}

/// Readings by which the present speed of an undisturbed machine is told.
const RECENT: usize = 200;
/// Samples of one reading, of which the median counts; the one before them, whose caches others have filled, does not.
const READING: usize = 3;
/// Readings to wait for an undisturbed machine before sampling goes on all the same: about a fifth of a second.
const WAIT: usize = 600;

impl<'a> Watch<'a> {
    pub fn new(run: &'a mut (dyn FnMut() -> Result<()> + Send), rows: &Rows) -> Self {
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
    fn look(&mut self, timer: &mut Timer<'_>) -> Result<f64> {
        timer.sample(self.inner, self.run)?;
        let samples = (0..READING).map(|_| timer.sample(self.inner, self.run)).collect::<Result<Vec<_>>>()?;
        self.last_us = stats::median(&samples);
        Ok(self.last_us)
    }

    /// The same, remembered: it tells what is usual.
    fn read(&mut self, timer: &mut Timer<'_>) -> Result<f64> {
        self.look(timer)?;
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

    /// Looks at it until the machine is undisturbed, or patience is at an end. What is seen meanwhile is not remembered:
    /// a long disturbance would become what is usual.
    fn wait(&mut self, timer: &mut Timer<'_>) -> Result<()> {
        for _ in 0..WAIT {
            if self.is_quiet() {
                break;
            }
            self.look(timer)?;
        }
        Ok(())
    }
}
