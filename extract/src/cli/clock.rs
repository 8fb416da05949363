//! The monotonic clock, for the commands that measure or report how long they took.

use std::time::Instant;

use extract::latency::Stopwatch;

/// Seconds since `started`, to a millisecond.
pub fn seconds_since(started: Instant) -> f64 {
    (started.elapsed().as_secs_f64() * 1e3).round() / 1e3
}

/// Seconds since 1970 in UTC, for the `run` object of files; 0 if the machine's clock stands before that.
pub fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |elapsed| elapsed.as_secs())
}

/// Times calls with the operating system's monotonic clock.
pub struct MonotonicStopwatch {
    tick: u64,
}

impl MonotonicStopwatch {
    /// Finds the clock's resolution: the least step that it was seen to take.
    pub fn new() -> Self {
        let step = || {
            let start = Instant::now();
            loop {
                let step = start.elapsed().as_nanos() as u64;
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
        let start = Instant::now();
        run()?;
        Ok(start.elapsed().as_nanos() as u64)
    }

    fn tick(&self) -> u64 {
        self.tick
    }
}
