//! The monotonic clock as a [`Stopwatch`].

use supernet::timing;

use super::engine::Stopwatch;
use crate::error::Result;

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

impl Default for MonotonicStopwatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Stopwatch for MonotonicStopwatch {
    fn time(&mut self, run: &mut dyn FnMut() -> Result<()>) -> Result<u64> {
        let watch = timing::Stopwatch::start();
        run()?;
        Ok(watch.elapsed().as_nanos() as u64)
    }

    fn tick(&self) -> u64 {
        self.tick
    }
}
