//! What a subject takes while nothing shares the core with it, told from samples of a machine that is disturbed most of
//! the time. Knows no clock.
//!
//! A shared core has states that change within milliseconds to minutes: by itself, or beside a neighbor that makes it
//! up to 1.6 times slower. The fast state is a property of the device and repeats; how often it is met is not. So the
//! estimate is no median and no fixed quantile, which drift with that share, but the *fast mode*: the median of the
//! samples that are at most 8 % above the .5 % quantile. It says nothing about whether the fast state was met at all (the
//! lower edge of the slow state repeats just as well): a visit confirms it where a sentinel, read just before or after,
//! took its own fast time.
//!
//! What counts is a function of the rows, evaluated anew in each round and after a kill. Nothing is decided by what a process
//! remembers.

use base::statistics as stats;

/// The quantile that stands for the lowest samples; .1 to 1 % give the same within .2 %.
const LOW_QUANTILE: f64 = 0.005;
/// Width of the mode above it; 6 to 10 % give the same within .2 %.
const MODE_WIDTH: f64 = 0.08;
/// How near to the estimate a sample, and to its fast time a reading of the sentinel, must be to confirm it.
pub const NEAR: f64 = 0.05;
/// Least share of the sentinel's readings that must be near its fast time.
const LEAST_SHARE: f64 = 0.04;
/// Lower modes that fewer readings share are moments in which the processor is faster than usual; so many are passed over.
const MOST_BOOSTS: usize = 4;
/// Half of the width of the sentinel's fast mode.
const CORE: f64 = 0.025;
/// Between the fast state and the slow one there is a gap, above the lower edge of the slow one there is none: readings of
/// the mode are compared with those from 5 % to so far above it.
const GAP_END: f64 = 0.1;
/// Least ratio of those shares. In seven sessions of a disturbed machine it was 1.9 to 18, in the same without the fast
/// readings .3 to .7; of readings spread evenly it is 1.
const LEAST_RATIO: f64 = 1.5;

/// Visits that an estimate must be from.
pub const LEAST_VISITS: usize = 20;
/// Visits among these that must confirm it.
pub const LEAST_CONFIRMED: usize = 5;
/// As many as are worth waiting for.
pub const ENOUGH_CONFIRMED: usize = 8;

/// The median of the samples that are at most 8 % above their .5 % quantile; NaN of none.
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

/// How fast a sentinel is when nothing disturbs the machine, and how often that was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// The sentinel's fast time, in microseconds.
    pub fast_us: f64,
    /// Share of its readings within 5 % of that.
    pub share: f64,
    /// Whether the fast state was met.
    pub met: bool,
}

/// What a reading of the sentinel says of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Faster than usual, for a moment.
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
    /// What readings of a sentinel say, all of one session; `kept_us` is its fast time in earlier ones, if it is known.
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

    /// What readings around a visit say: the most unusual of them counts for a boost, any for the fast state.
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

/// The lowest mode that enough readings share: a processor may be faster than usual for moments.
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
    /// Whether a reading of the sentinel was of the fast state.
    pub fast: bool,
}

/// What visits say of one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The fast mode, in microseconds.
    pub us: f64,
    /// Visits that hold both a sample near it and a fast reading of the sentinel.
    pub confirmed: usize,
    /// Relative deviation of single visits of the fast state, which have their buffers elsewhere each time.
    pub spread: f64,
}

/// Visits whose own mode is farther from the estimate are not of the fast state.
const FAST_VISIT: f64 = 0.15;
/// Visits that a spread must be from, and what stands for it where there are fewer.
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

/// How far estimates were from the true value in 19 of 20 cases, by the visits that confirmed them (4,284 parts of
/// sessions, one machine); the last for all that are more.
const ERRORS: [f64; 12] = [0.45, 0.08, 0.036, 0.025, 0.025, 0.025, 0.016, 0.016, 0.016, 0.016, 0.016, 0.012];
/// Spreads of single visits that the interval must have room for: what remains covered when visiting ends as soon as
/// enough visits confirm.
const SPREADS: f64 = 2.0;

/// Half of the 95 % interval of an estimate, relative to it.
pub fn half_width(confirmed: usize, spread: f64) -> f64 {
    let error = ERRORS[confirmed.min(ERRORS.len() - 1)];
    if confirmed == 0 { error } else { error.max(SPREADS * spread) }
}

/// The 95 % interval of an estimate, in microseconds. Without a visit that confirms it, it is of a slower state as likely
/// as not: the true value may be far below, but not above.
pub fn interval(us: f64, confirmed: usize, spread: f64) -> [f64; 2] {
    let half = half_width(confirmed, spread);
    let above = if confirmed == 0 { SPREADS * spread } else { half };
    [us / (1.0 + half), us * (1.0 + above)]
}

/// Whether visits suffice: for an estimate to count at all, or, with `confirmed` of at least [`ENOUGH_CONFIRMED`], to be
/// left as it is.
pub fn is_accepted(visits: usize, confirmed: usize) -> bool {
    visits >= LEAST_VISITS && confirmed >= LEAST_CONFIRMED
}

#[cfg(test)]
#[path = "undisturbed/tests.rs"]
mod tests;
