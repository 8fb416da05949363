//! Measurements of one subject by session, and their combination.

use base::document::rounded;
use serde::{Deserialize, Serialize};

use super::undisturbed::{self, NEAR};

/// One session's measurement of a layer or a sub-network, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// The session's id.
    pub session: String,
    /// The fast mode of the samples; their median if no sentinel was read.
    pub us: f64,
    /// Ends of the 95 % interval of `us`; absent if the samples are too few for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_us: Option<[f64; 2]>,
    /// Median of all samples, disturbed or not.
    pub typical_us: f64,
    /// Median absolute deviation of the samples from that.
    pub mad_us: f64,
    /// Relative deviation of single visits of the fast state.
    #[serde(default)]
    pub spread: f64,
    /// Number of samples.
    pub samples: usize,
    /// Number of visits.
    pub visits: usize,
    /// Visits that confirm `us` by a sample near it and a fast reading of the sentinel.
    #[serde(default)]
    pub confirmed: usize,
    /// Whether a sentinel was read.
    #[serde(default)]
    pub watched: bool,
    /// Whether it is the sum over layers that were timed one by one within the whole network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
    /// If no sentinel was read: whether the interval is as narrow as requested.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub narrow: bool,
}

/// The combination of all sessions for a layer or a sub-network, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The undisturbed latency; the typical one if no sentinel was read.
    pub us: f64,
    /// Ends of the 95 % interval of `us`; absent if the samples are too few for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_us: Option<[f64; 2]>,
    /// Median of all samples, disturbed or not.
    pub typical_us: f64,
    /// Median absolute deviation of the samples from that.
    pub mad_us: f64,
    /// Number of samples.
    pub samples: usize,
    /// Number of visits.
    pub visits: usize,
    /// Number of visits that confirm `us`.
    pub confirmed: usize,
    /// Whether `us` is the undisturbed latency.
    pub undisturbed: bool,
    /// Whether it counts: enough visits confirm it, or its interval is narrow if no sentinel was read.
    pub accepted: bool,
    /// Whether it also has the requested precision.
    pub converged: bool,
}

impl Row {
    /// Whether a limit was kept; `None` if the machine was too disturbed to decide.
    pub fn keeps(&self, limit_us: f64) -> Option<bool> {
        self.accepted.then_some(self.us <= limit_us)
    }

    /// The upper end of the interval; the latency itself if there is none.
    pub fn high_us(&self) -> f64 {
        self.interval_us.map_or(self.us, |interval| interval[1])
    }
}

/// Id of the session of rows from another program.
pub(super) const GIVEN: &str = "given";
/// Decimals of times in microseconds: a picosecond.
pub(super) const DECIMALS: i32 = 6;

impl Measurement {
    /// The measurement with times in whole picoseconds.
    #[must_use]
    pub fn rounded(mut self) -> Self {
        for value in [&mut self.us, &mut self.typical_us, &mut self.mad_us, &mut self.spread] {
            *value = rounded(*value, DECIMALS);
        }
        self.interval_us = self.interval_us.map(|interval| interval.map(|end| rounded(end, DECIMALS)));
        self
    }

    /// The first impossible number, as field, expected and got.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str, String)> {
        let time = |value: f64| value.is_finite() && value > 0.0;
        for (field, value) in [("us", self.us), ("typical_us", self.typical_us)] {
            if !time(value) {
                return Some((field, "a finite number above 0", value.to_string()));
            }
        }
        for (field, value) in [("mad_us", self.mad_us), ("spread", self.spread)] {
            if !(value.is_finite() && value >= 0.0) {
                return Some((field, "a finite number from 0", value.to_string()));
            }
        }
        if let Some([low, high]) = self.interval_us
            && !(time(low) && low <= self.us && self.us <= high && high.is_finite())
        {
            return Some(("interval_us", "a low end and a high one around us", format!("{low} to {high}")));
        }
        if self.samples == 0 || self.visits == 0 || self.confirmed > self.visits {
            let got =
                format!("{} samples of {} visits, {} confirmed", self.samples, self.visits, self.confirmed);
            return Some(("samples", "at least one, and no more confirming visits than visits", got));
        }
        None
    }
}

/// The row of several measurements; `is_comparable` decides whether a session met the fast state, as the table knows
/// it. Sessions count by the visits that confirm them; if none does, the lowest is used, for it is nearest.
pub fn pool(measured: &[Measurement], is_comparable: impl Fn(&str) -> bool, asked: f64) -> Option<Row> {
    let watched: Vec<&Measurement> = measured.iter().filter(|one| one.watched).collect();
    let all = if watched.is_empty() { measured.iter().collect() } else { watched };
    let first = *all.first()?;
    let weight = |one: &&Measurement| if is_comparable(&one.session) { one.confirmed as f64 } else { 0.0 };
    let total: f64 = all.iter().map(weight).sum();
    let by_samples: f64 = all.iter().map(|one| one.samples as f64).sum();
    let mean = |value: fn(&Measurement) -> f64| {
        all.iter().map(|one| value(one) * one.samples as f64).sum::<f64>() / by_samples
    };
    let us = if total > 0.0 {
        all.iter().map(|one| one.us * weight(one)).sum::<f64>() / total
    } else if first.watched {
        all.iter().map(|one| one.us).fold(f64::INFINITY, f64::min)
    } else {
        mean(|one| one.us)
    };
    let confirmed = total as usize;
    let visits = all.iter().map(|one| one.visits).sum();
    let spread = all.iter().map(|one| one.spread).fold(0.0, f64::max);
    let interval =
        if first.watched { Some(undisturbed::interval(us, confirmed, spread)) } else { around(us, &all) };
    let (accepted, narrow) = if first.watched {
        (undisturbed::is_accepted(visits, confirmed), undisturbed::half_width(confirmed, spread) <= asked)
    } else {
        let narrow = all.iter().any(|one| one.narrow);
        (narrow, narrow)
    };
    Some(Row {
        us: rounded(us, DECIMALS),
        interval_us: interval.map(|interval| interval.map(|end| rounded(end, DECIMALS))),
        typical_us: rounded(mean(|one| one.typical_us), DECIMALS),
        mad_us: rounded(mean(|one| one.mad_us), DECIMALS),
        samples: by_samples as usize,
        visits,
        confirmed,
        undisturbed: first.watched,
        accepted,
        converged: accepted && narrow,
    })
}

/// The interval of measurements without a sentinel: from the lowest end to the highest.
fn around(us: f64, all: &[&Measurement]) -> Option<[f64; 2]> {
    let intervals: Vec<[f64; 2]> = all.iter().filter_map(|one| one.interval_us).collect();
    let low = intervals.iter().map(|interval| interval[0]).fold(us, f64::min);
    let high = intervals.iter().map(|interval| interval[1]).fold(us, f64::max);
    (!intervals.is_empty()).then_some([low, high])
}

/// Whether a session's sentinel was as fast as the fastest in the table.
pub fn is_as_fast(session_fast_us: f64, known_fast_us: f64) -> bool {
    session_fast_us <= (1.0 + NEAR) * known_fast_us
}
