//! A search's budget in seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::timing::Stopwatch;
use extract::search::SearchReport;

/// Pause between two looks at the clock.
const LOOK: Duration = Duration::from_millis(20);

/// A time after which a search ends with the best so far.
pub struct TimeBudget(Arc<AtomicBool>);

impl TimeBudget {
    /// Sets `stop` when the time is over; without a time never.
    pub fn start(time: Option<Duration>, stop: &Arc<AtomicBool>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        if let Some(time) = time {
            let (over, stop) = (over.clone(), stop.clone());
            std::thread::spawn(move || {
                let clock = Stopwatch::start();
                while clock.elapsed_ms() < time.as_secs_f64() * 1e3 {
                    std::thread::sleep(LOOK);
                }
                // a search that a signal has ended was interrupted
                if !stop.load(Ordering::Relaxed) {
                    over.store(true, Ordering::Relaxed);
                    stop.store(true, Ordering::Relaxed);
                }
            });
        }
        Self(over)
    }

    /// Whether the time ended the search.
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// A search that ran out of time has ended, and was not interrupted.
    pub fn settle(&self, report: &mut SearchReport) {
        if self.is_over() && report.interrupted {
            report.interrupted = false;
        }
    }
}

/// A time as a flag has it.
pub fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let seconds = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        (number > 0.0 && number * seconds <= 1e8).then_some(number * seconds)
    });
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a time above 0 such as 90s, 10m or 2h".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90s", 90.0), ("1.5m", 90.0), ("250ms", 0.25), ("2h", 7200.0)] {
            assert_eq!(time(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["90", "0s", "-1m", "m", "1e300h", "nans"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_time_that_is_over_stops() {
        let stop = Arc::new(AtomicBool::new(false));
        assert!(!TimeBudget::start(None, &stop).is_over());
        let budget = TimeBudget::start(Some(Duration::from_millis(5)), &stop);
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
        }
        assert!(budget.is_over());
        let late = TimeBudget::start(Some(Duration::from_millis(1)), &stop);
        std::thread::sleep(Duration::from_millis(60));
        assert!(!late.is_over(), "it was stopped before");
    }
}
