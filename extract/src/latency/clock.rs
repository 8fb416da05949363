//! The monotonic clock and a GPU's events, each as a [`RunTimer`].

use base::timing;
use kernels::Backend;

use super::engine::RunTimer;
use crate::error::Result;

/// A [`RunTimer`] on the monotonic clock.
pub struct MonotonicStopwatch {
    tick: u64,
    /// The time that reading the clock adds, in nanoseconds.
    cost: u64,
    made: timing::Stopwatch,
}

impl MonotonicStopwatch {
    /// Finds the clock's resolution, its smallest observed step, and the time that reading it takes.
    pub fn new() -> Self {
        let tick = (0..100).map(|_| clock_step()).min().unwrap_or(1);
        let readings = (0..1000).map(|_| timing::Stopwatch::start().elapsed().as_nanos() as u64);
        let cost = readings.min().unwrap_or(0);
        Self { tick, cost, made: timing::Stopwatch::start() }
    }
}

/// One step of the clock, in nanoseconds.
fn clock_step() -> u64 {
    let watch = timing::Stopwatch::start();
    loop {
        let step = watch.elapsed().as_nanos() as u64;
        if step > 0 {
            return step;
        }
    }
}

impl Default for MonotonicStopwatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RunTimer for MonotonicStopwatch {
    fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let watch = timing::Stopwatch::start();
        run()?;
        Ok((watch.elapsed().as_nanos() as u64).saturating_sub(self.cost))
    }

    fn tick(&self) -> u64 {
        self.tick
    }

    fn now(&mut self) -> u64 {
        self.made.elapsed().as_nanos() as u64
    }
}

/// A [`RunTimer`] on a GPU's events: from when it has done what it was given before to when it has done what it was
/// given meanwhile.
pub struct EventStopwatch {
    backend: Backend,
    made: timing::Stopwatch,
}

impl EventStopwatch {
    /// Events of the GPU of these kernels.
    pub fn new(backend: &Backend) -> Self {
        Self { backend: backend.clone(), made: timing::Stopwatch::start() }
    }
}

impl RunTimer for EventStopwatch {
    fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let before = self.backend.moment()?;
        run()?;
        let ms = self.backend.moment()?.ms_since(&before)?;
        Ok((ms.max(0.0) * 1e6) as u64)
    }

    /// Half a microsecond, as CUDA's documentation of events says.
    fn tick(&self) -> u64 {
        500
    }

    fn now(&mut self) -> u64 {
        self.made.elapsed().as_nanos() as u64
    }
}

/// The timer of a backend: a GPU's events, or the clock.
pub fn stopwatch_of(backend: &Backend) -> Box<dyn RunTimer> {
    match backend.gpu() {
        Some(_) => Box::new(EventStopwatch::new(backend)),
        None => Box::new(MonotonicStopwatch::new()),
    }
}
