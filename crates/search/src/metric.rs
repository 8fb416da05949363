//! Metrics of sub-networks by name, their values, and limits on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The metric of objectives: the share of images that are classified correctly.
pub const TOP1: &str = "top1";
/// The name of a latency, or its prefix where there are several.
pub const LATENCY: &str = "latency";

/// The mean of a value that could not be evaluated.
const FAILED: f64 = f64::INFINITY;

/// The device in the name of a latency: `phone` in `latency@phone`.
pub fn device_of(metric: &str) -> Option<&str> {
    metric.strip_prefix(LATENCY)?.strip_prefix('@').filter(|device| !device.is_empty())
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The greater value, as for accuracies.
    Higher,
    /// The lower value, as for latencies.
    Lower,
}

/// A quantity that every sub-network has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, such as `top1`, `macs`, or `latency@phone` where several devices have a latency.
    pub name: String,
    /// The unit of its values, such as `us`; `share` for values from 0 to 1, `1` for a count.
    pub unit: String,
    /// Which of two values is the better one.
    pub better: Better,
}

impl Metric {
    /// A metric.
    pub fn new(name: impl Into<String>, unit: &str, better: Better) -> Self {
        Self { name: name.into(), unit: unit.to_string(), better }
    }

    /// The value, negated where lower is better, so that the greater is the better; that of a failure is the least.
    pub fn merit(&self, value: f64) -> f64 {
        match self.better {
            _ if value == FAILED => f64::MIN,
            Better::Higher => value,
            Better::Lower => -value,
        }
    }

    /// The end of a value that is compared with a limit: the worse end of its interval, or the expected value if no
    /// interval is known.
    fn worse_end(&self, value: &MetricValue) -> f64 {
        match self.better {
            Better::Higher => value.low.unwrap_or(value.mean),
            Better::Lower => value.high.unwrap_or(value.mean),
        }
    }

    /// Whether a value keeps a limit, at the worse end of its interval.
    pub fn keeps(&self, value: &MetricValue, limit: f64) -> bool {
        !value.is_failed() && self.merit(self.worse_end(value)) >= self.merit(limit)
    }

    /// By which share of a limit a value breaks it, at the worse end of its interval; 0 if it keeps it.
    pub fn excess(&self, value: &MetricValue, limit: f64) -> f64 {
        let excess = (self.merit(limit) - self.merit(self.worse_end(value))) / limit.abs();
        if excess.is_nan() || value.is_failed() { f64::INFINITY } else { excess.max(0.0) }
    }
}

/// The expected value of a metric, in its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MetricValue {
    /// The expected value.
    pub mean: f64,
    /// The lower end of its interval, if known.
    pub low: Option<f64>,
    /// The upper end of its interval, if known.
    pub high: Option<f64>,
    /// Whether it lies outside of the range for which the interval was measured.
    pub extrapolated: bool,
}

impl MetricValue {
    /// An exact value, such as a count.
    pub fn exact(mean: f64) -> Self {
        Self { mean, low: Some(mean), high: Some(mean), extrapolated: false }
    }

    /// A value without an interval.
    pub fn expected(mean: f64) -> Self {
        Self { mean, ..Self::default() }
    }

    /// The value of what could not be evaluated: no search prefers it, and it keeps no limit.
    pub fn failed() -> Self {
        Self::expected(FAILED)
    }

    /// Whether it could not be evaluated.
    pub fn is_failed(&self) -> bool {
        *self == Self::failed()
    }

    /// Whether it is exact.
    pub fn is_exact(&self) -> bool {
        self.low == Some(self.mean) && self.high == Some(self.mean) && !self.extrapolated
    }
}

/// How thoroughly an estimator evaluates, in thousandths: 1,000 is everything, such as all images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fidelity(u16);

impl Fidelity {
    /// Full fidelity.
    pub const FULL: Self = Self(1000);

    /// A share of full fidelity, at least a thousandth and at most all.
    pub fn of_share(share: f64) -> Self {
        Self((1e3 * share).round().clamp(1.0, 1e3) as u16)
    }

    /// The share.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1e3
    }

    /// The share in thousandths.
    pub(crate) fn thousandths(self) -> u16 {
        self.0
    }

    /// Makes the key of a fidelity differ from those of others; the full one leaves it as it is.
    pub(crate) fn mixed_with(self, key: u64) -> u64 {
        key ^ u64::from(Self::FULL.0 - self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Limits on metrics, in their units: an upper bound where lower is better, a lower bound where higher is better.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits(BTreeMap<String, f64>);

impl Limits {
    /// A limit on one metric.
    pub fn on(metric: impl Into<String>, bound: f64) -> Self {
        Self::default().and(metric, bound)
    }

    /// Adds a limit; it replaces one on the same metric.
    #[must_use]
    pub fn and(mut self, metric: impl Into<String>, bound: f64) -> Self {
        self.0.insert(metric.into(), bound);
        self
    }

    /// The limit on a metric.
    pub fn of(&self, metric: &str) -> Option<f64> {
        self.0.get(metric).copied()
    }

    /// All limits, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, bound)| (name.as_str(), *bound))
    }

    /// Refuses limits that are not numbers above 0.
    ///
    /// # Errors
    /// Names the first such limit.
    pub fn check(&self) -> Result<()> {
        match self.iter().find(|(_, bound)| !(bound.is_finite() && *bound > 0.0)) {
            Some((name, bound)) => {
                Err(base::Error::invalid("limits", name, "a number above 0", bound).into())
            }
            None => Ok(()),
        }
    }
}

impl FromIterator<(String, f64)> for Limits {
    fn from_iter<T: IntoIterator<Item = (String, f64)>>(limits: T) -> Self {
        Self(limits.into_iter().collect())
    }
}

impl<const N: usize> From<[(&str, f64); N]> for Limits {
    fn from(limits: [(&str, f64); N]) -> Self {
        limits.into_iter().fold(Self::default(), |all, (name, bound)| all.and(name, bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_compared_with_the_worse_end() {
        let value = MetricValue { mean: 0.5, low: Some(0.4), high: Some(0.7), extrapolated: false };
        for (better, value, limit, kept) in [
            (Better::Higher, value, 0.4, true),
            (Better::Higher, value, 0.45, false),
            (Better::Lower, value, 0.7, true),
            (Better::Lower, value, 0.6, false),
            (Better::Lower, MetricValue::expected(0.5), 0.5, true),
            (Better::Higher, MetricValue::exact(0.5), 0.6, false),
        ] {
            let metric = Metric::new("x", "1", better);
            assert_eq!(metric.keeps(&value, limit), kept, "{better:?} {value:?} {limit}");
            assert_eq!(metric.excess(&value, limit) == 0.0, kept, "{better:?} {value:?} {limit}");
        }
    }

    #[test]
    fn a_failure_is_the_worst_and_keeps_no_limit() {
        for better in [Better::Higher, Better::Lower] {
            let metric = Metric::new("x", "1", better);
            let failed = MetricValue::failed();
            assert!(failed.is_failed() && !MetricValue::expected(0.0).is_failed());
            assert_eq!(metric.merit(failed.mean), f64::MIN);
            assert!(!metric.keeps(&failed, 1.0) && metric.excess(&failed, 1.0) == f64::INFINITY);
        }
    }

    #[test]
    fn the_excess_is_that_of_the_worse_end() {
        let metric = Metric::new("x", "1", Better::Lower);
        let value = MetricValue { high: Some(12.5), ..MetricValue::expected(9.5) };
        assert_eq!(metric.excess(&value, 10.0), 0.25);
        assert_eq!(metric.excess(&MetricValue::expected(f64::NAN), 10.0), f64::INFINITY);
        assert_eq!(Metric::new("x", "1", Better::Higher).excess(&MetricValue::expected(0.25), 0.5), 0.5);
    }

    #[test]
    fn limits_are_numbers_above_0_and_one_for_each_metric() {
        let limits = Limits::from([("macs", 5.0), ("latency@phone", 2.0)]).and("macs", 6.0);
        assert_eq!(limits.iter().collect::<Vec<_>>(), [("latency@phone", 2.0), ("macs", 6.0)]);
        limits.check().expect("numbers");
        for bound in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = Limits::on("macs", bound).check().expect_err("no limit").to_string();
            assert!(error.contains("limits: macs: expected a number above 0"), "{error}");
        }
    }

    #[test]
    fn fidelities_are_shares_with_keys_of_their_own() {
        assert_eq!(Fidelity::of_share(1.0), Fidelity::FULL);
        assert_eq!(Fidelity::of_share(0.0).share(), 0.001);
        assert_eq!(Fidelity::FULL.mixed_with(7), 7);
        assert_ne!(Fidelity::of_share(0.5).mixed_with(7), Fidelity::of_share(0.25).mixed_with(7));
    }
}
