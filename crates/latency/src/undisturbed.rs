//! Estimates a subject's latency while nothing shares the core with it, from samples of a machine that is disturbed
//! most of the time. Knows no clock.
//!
//! A shared core has states that change within milliseconds to minutes: alone, or next to a neighbor that makes it up
//! to 1.6 times slower. The fast state is a property of the device and repeats; how often it is met is not. So the
//! estimate is no median and no fixed quantile, which drift with that share, but the *fast mode*: the median of the
//! samples that are at most 8 % above the .5 % quantile. It does not show whether the fast state was met at all (the
//! lower edge of the slow state repeats just as well): a visit confirms it if a sentinel, read just before or after,
//! took its own fast time.
//!
//! Which estimates count is a function of the rows, evaluated anew in each round and after a kill; no state of a
//! process has a part in it.

use base::statistics as stats;

/// The quantile that represents the lowest samples; .1 to 1 % give the same within .2 %.
const LOW_QUANTILE: f64 = 0.005;
/// Width of the mode above it; 6 to 10 % give the same within .2 %.
const MODE_WIDTH: f64 = 0.08;
/// Greatest relative distance of a sample from the estimate, and of a reading of the sentinel from its fast time, that
/// confirms it.
pub const NEAR: f64 = 0.05;
/// Least share of the sentinel's readings that must be near its fast time.
const LEAST_SHARE: f64 = 0.04;
/// Lower modes with a smaller share of the readings are moments in which the processor is boosted; up to this many are
/// skipped.
const MOST_BOOSTS: usize = 4;
/// Half of the width of the sentinel's fast mode.
const CORE: f64 = 0.025;
/// There is a gap between the fast state and the slow one, but none above the lower edge of the slow one: readings of
/// the mode are compared with those from 5 % to this far above it.
const GAP_END: f64 = 0.1;
/// Least ratio of those shares. In seven sessions of a disturbed machine it was 1.9 to 18, in the same sessions without
/// the fast readings .3 to .7; for evenly spread readings it is 1.
const LEAST_RATIO: f64 = 1.5;

/// Least number of visits for an estimate.
pub const LEAST_VISITS: usize = 20;
/// Least number of visits among these that must confirm it.
pub const LEAST_CONFIRMED: usize = 5;
/// Number of confirming visits from which more are not worth waiting for.
pub const ENOUGH_CONFIRMED: usize = 8;

/// The median of the samples that are at most 8 % above their .5 % quantile; NaN if there are none.
pub fn fast_mode(samples: &[f64]) -> f64 {
    let mut samples = samples.to_vec();
    if samples.is_empty() {
        return f64::NAN;
    }
    let place = (LOW_QUANTILE * (samples.len() - 1) as f64) as usize;
    let low = *samples.select_nth_unstable_by(place, f64::total_cmp).1;
    samples.retain(|sample| *sample <= low * (1.0 + MODE_WIDTH));
    stats::median(&samples)
}

/// The sentinel's time on an undisturbed machine, and how often that state was met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The sentinel's fast time, in microseconds.
    pub fast_us: f64,
    /// Share of its readings within 5 % of the fast time.
    pub share: f64,
    /// Whether the fast state was met.
    pub met: bool,
}

/// The state of the machine, by a reading of the sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Boosted for a moment.
    Boosted,
    /// Undisturbed.
    Fast,
    /// Shared with a neighbor.
    Slow,
}

fn share(readings: &[f64], from: f64, to: f64) -> f64 {
    let within = readings.iter().filter(|reading| **reading > from && **reading <= to).count();
    within as f64 / readings.len() as f64
}

impl Pace {
    /// The sentinel's pace, from readings of one session; `kept_us` is its fast time in earlier ones, if it is known.
    /// `None` without readings.
    pub fn of(readings: &[f64], kept_us: Option<f64>) -> Option<Self> {
        if readings.is_empty() {
            return None;
        }
        let own = lowest_mode(readings);
        let known = kept_us.filter(|kept| own >= (1.0 - NEAR) * kept);
        let fast_us = known.map_or(own, |kept| kept.min(own));
        let near = share(readings, (1.0 - NEAR) * fast_us, (1.0 + NEAR) * fast_us);
        let core = share(readings, (1.0 - CORE) * fast_us, (1.0 + CORE) * fast_us);
        let gap = share(readings, (1.0 + NEAR) * fast_us, (1.0 + GAP_END) * fast_us);
        let met = near >= LEAST_SHARE && (known.is_some() || core >= LEAST_RATIO * gap);
        Some(Self { fast_us, share: near, met })
    }

    /// The state during a visit, by the readings around it: the most unusual of them counts for a boost, any for the
    /// fast state.
    pub fn state(&self, readings_us: [f64; 2]) -> State {
        let lowest = readings_us[0].min(readings_us[1]);
        if self.met && lowest < (1.0 - NEAR) * self.fast_us {
            State::Boosted
        } else if self.met && lowest <= (1.0 + NEAR) * self.fast_us {
            State::Fast
        } else {
            State::Slow
        }
    }
}

/// The lowest mode with enough readings: a processor may be boosted for moments.
fn lowest_mode(readings: &[f64]) -> f64 {
    let lowest = fast_mode(readings);
    let mut mode = lowest;
    for _ in 0..MOST_BOOSTS {
        if share(readings, (1.0 - NEAR) * mode, (1.0 + NEAR) * mode) >= LEAST_SHARE {
            return mode;
        }
        let above: Vec<f64> =
            readings.iter().copied().filter(|reading| *reading > (1.0 + NEAR) * mode).collect();
        if above.is_empty() {
            break;
        }
        mode = fast_mode(&above);
    }
    lowest
}

/// Samples of one visit, and whether the sentinel was fast just before or after them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look<'a> {
    /// In microseconds.
    pub samples: &'a [f64],
    /// Whether a reading of the sentinel shows the fast state.
    pub fast: bool,
}

/// The estimate from all visits of one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The fast mode, in microseconds.
    pub us: f64,
    /// Visits that hold both a sample near it and a fast reading of the sentinel.
    pub confirmed: usize,
    /// Relative deviation of single visits of the fast state, which have their buffers elsewhere each time.
    pub spread: f64,
}

/// Greatest relative distance of a visit's mode from the estimate in the fast state.
const FAST_VISIT: f64 = 0.15;
/// Least number of visits for a spread, and the spread for fewer.
const LEAST_SPREAD_VISITS: usize = 3;
const UNKNOWN_SPREAD: f64 = 0.02;

/// The fast mode of the samples of all visits; `None` without samples.
pub fn estimate(looks: &[Look<'_>]) -> Option<Estimate> {
    let all: Vec<f64> = looks.iter().flat_map(|look| look.samples).copied().collect();
    let us = fast_mode(&all);
    if us.is_nan() {
        return None;
    }
    let fast = || looks.iter().filter(|look| look.fast);
    let confirmed = fast()
        .filter(|look| look.samples.iter().any(|sample: &f64| (sample / us - 1.0).abs() <= NEAR))
        .count();
    let modes = fast().map(|look| (fast_mode(look.samples) / us).ln());
    let modes: Vec<f64> = modes.filter(|mode| mode.abs() <= FAST_VISIT).collect();
    let spread = if modes.len() >= LEAST_SPREAD_VISITS {
        stats::mad(&modes) / stats::NORMAL_QUARTILE
    } else {
        UNKNOWN_SPREAD
    };
    Some(Estimate { us, confirmed, spread })
}

/// Relative error of estimates in 19 of 20 cases, by the number of confirming visits (4,284 parts of sessions, one
/// machine); the last for all larger numbers.
const ERRORS: [f64; 12] = [0.45, 0.08, 0.036, 0.025, 0.025, 0.025, 0.016, 0.016, 0.016, 0.016, 0.016, 0.012];
/// Number of spreads of single visits that the interval must include, so that it still covers if visiting ends as soon
/// as enough visits confirm.
const SPREADS: f64 = 2.0;

/// Half of the 95 % interval of an estimate, relative to it.
pub fn half_width(confirmed: usize, spread: f64) -> f64 {
    let error = ERRORS[confirmed.min(ERRORS.len() - 1)];
    if confirmed == 0 { error } else { error.max(SPREADS * spread) }
}

/// The 95 % interval of an estimate, in microseconds. Without a confirming visit it is as likely as not of a slower
/// state: the true value may be far below, but not above.
pub fn interval(us: f64, confirmed: usize, spread: f64) -> [f64; 2] {
    let half = half_width(confirmed, spread);
    let above = if confirmed == 0 { SPREADS * spread } else { half };
    [us / (1.0 + half), us * (1.0 + above)]
}

/// Whether visits suffice: for an estimate to count at all, or, with `confirmed` of at least [`ENOUGH_CONFIRMED`], to
/// need no more.
pub fn is_accepted(visits: usize, confirmed: usize) -> bool {
    visits >= LEAST_VISITS && confirmed >= LEAST_CONFIRMED
}

#[cfg(test)]
#[path = "undisturbed/tests.rs"]
mod tests;
