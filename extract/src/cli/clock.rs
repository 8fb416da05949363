//! Times calls with the operating system's monotonic clock, for the commands that measure.

use extract::latency::Stopwatch;
use supernet::timing;

/// A [`Stopwatch`] on the monotonic clock.
pub struct MonotonicStopwatch {
    tick: u64,
}

impl MonotonicStopwatch {
    /// Finds the clock's resolution: the least step that it was seen to take.
    pub fn new() -> Self {
        let step = || {
            let watch = timing::Stopwatch::start();
            loop {
                let step = watch.elapsed().as_nanos() as u64;
                if step > 0 {
                    return step;
                }
            }
        };
        let tick = (0..100).map(|_| step()).min().unwrap_or(1);
        Self { tick }
    }
}

impl Stopwatch for MonotonicStopwatch {
    fn time(&mut self, run: &mut dyn FnMut() -> extract::Result<()>) -> extract::Result<u64> {
        let watch = timing::Stopwatch::start();
        run()?;
        Ok(watch.elapsed().as_nanos() as u64)
    }

    fn tick(&self) -> u64 {
        self.tick
    }
}

/// Seconds since `watch` was started, to a millisecond.
pub fn seconds_since(watch: timing::Stopwatch) -> f64 {
    watch.elapsed_ms().round() / 1e3
}
