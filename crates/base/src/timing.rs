//! The only clock: stopwatches, medians and spread, intervals for saving.
//!
//! Times are reported and logged; they never reach a weight, a choice or a hash.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Measures from its creation.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    start: Instant,
}

impl Stopwatch {
    /// Starts to measure.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Milliseconds since the start.
    pub fn elapsed_ms(&self) -> f64 {
        self.elapsed().as_secs_f64() * 1e3
    }

    /// Milliseconds from the start of another stopwatch to the start of this one.
    pub fn ms_since(&self, earlier: &Self) -> f64 {
        (self.start - earlier.start).as_secs_f64() * 1e3
    }

    /// Time since the start or the last lap, and starts anew.
    pub fn lap(&mut self) -> Duration {
        let now = Instant::now();
        let lap = now - self.start;
        self.start = now;
        lap
    }
}

/// Seconds since 1970, for the `run` objects of files.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Nanoseconds from 1970 to a file's time; negative before 1970. `None` more than about 292 years from then.
pub fn nanoseconds(time: SystemTime) -> Option<i64> {
    let whole = |duration: Duration| i64::try_from(duration.as_nanos()).ok();
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => whole(before.duration()).map(|nanoseconds| -nanoseconds),
    }
}

/// Nanoseconds since 1970, to compare with the times of files.
pub fn unix_nanoseconds() -> i64 {
    nanoseconds(SystemTime::now()).unwrap_or(i64::MAX)
}

/// Seconds since 1970, with their fractions.
pub fn unix_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Reports when an interval has passed.
#[derive(Clone, Copy, Debug)]
pub struct Every {
    interval: Duration,
    watch: Stopwatch,
}

impl Every {
    /// Due each time that `interval` has passed.
    pub fn new(interval: Duration) -> Self {
        Self { interval, watch: Stopwatch::start() }
    }

    /// Whether the interval has passed since the last time that it had.
    pub fn due(&mut self) -> bool {
        let due = self.watch.elapsed() >= self.interval;
        if due {
            self.watch = Stopwatch::start();
        }
        due
    }
}

/// Median and the tenth and ninetieth percentile of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Half of the samples lie below.
    pub median: f64,
    /// A tenth of the samples lies below.
    pub p10: f64,
    /// Nine tenths of the samples lie below.
    pub p90: f64,
}

impl Spread {
    /// The spread of samples; of none, zeros.
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self { median: quantile(&sorted, 0.5), p10: quantile(&sorted, 0.1), p90: quantile(&sorted, 0.9) }
    }
}

/// The quantile of sorted samples, interpolated between neighbors (type 7 of Hyndman and Fan 1996).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let below = place.floor() as usize;
    let above = place.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// Clock ticks per second in `/proc`, the same on every Linux.
const TICKS: f64 = 100.0;

/// Processor time that all threads of this process have taken so far, in seconds, if the system reports it.
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // the name of the program, in parentheses, may hold anything
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let [user, system]: [f64; 2] = [fields.next()?.parse().ok()?, fields.next()?.parse().ok()?];
    Some((user + system) / TICKS)
}

/// Most memory that this process has held so far, in megabytes (10^6 bytes), if the system reports it.
pub fn peak_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time() {
        let Some(before) = cpu_seconds() else { return };
        let work = |sum: u64| (0..1_000_000).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        // of so much work, a tenth takes 30 ms on any machine
        let sums = (0..1000).scan(0, |sum, _| {
            *sum = work(*sum);
            cpu_seconds().filter(|now| *now < before + 0.03)
        });
        assert!(sums.count() < 1000, "processor time does not rise");
    }

    #[test]
    fn spread_interpolates() {
        let spread = Spread::of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!(spread.median, 2.5);
        assert!((spread.p10 - 1.3).abs() < 1e-12 && (spread.p90 - 3.7).abs() < 1e-12, "{spread:?}");
        assert_eq!(Spread::of(&[]).median, 0.0);
        assert_eq!(Spread::of(&[7.0]).p90, 7.0);
    }

    #[test]
    fn every_is_due_at_once_for_no_interval() {
        assert!(Every::new(Duration::ZERO).due());
        assert!(!Every::new(Duration::from_secs(3600)).due());
    }
}
