//! A sub-network with its expected metrics, by name.

use std::collections::BTreeMap;

use base::document::rounded;
use serde::{Deserialize, Serialize};
use space::Arch;

use super::index::Costs;
use super::metric::{LATENCY, MetricValue, TOP1, device_of};

/// The source of an expected accuracy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccuracyFrom {
    /// A predictor alone.
    #[serde(rename = "predictor")]
    Predictor,
    /// A program that evaluated the sub-network itself.
    #[serde(rename = "evaluator")]
    Evaluator,
    /// A predictor and a count of validation images.
    #[serde(rename = "predictor+validation")]
    PredictorAndValidation,
}

/// A sub-network with its metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The sub-network.
    pub arch: Arch,
    /// The expected values, by metric: shares, microseconds, counts and bytes.
    pub values: BTreeMap<String, MetricValue>,
    /// The source of its accuracy, where known.
    pub accuracy_from: Option<AccuracyFrom>,
}

/// Decimals of values with uncertainty; for microseconds enough that milliseconds have nine.
const DECIMALS: i32 = 9;
const DECIMALS_OF_MICROSECONDS: i32 = 6;

impl Candidate {
    /// A sub-network with its predicted accuracy and its costs.
    pub fn new(arch: Arch, accuracy: f32, costs: &Costs) -> Self {
        let top1 = (TOP1.to_string(), MetricValue::expected(f64::from(accuracy)));
        let costs = costs.all().map(|(quantity, value)| (quantity.metric().to_string(), value));
        Self::of(arch, costs.into_iter().chain([top1]))
    }

    /// A sub-network with its values, rounded as in files.
    pub fn of(arch: Arch, values: impl IntoIterator<Item = (String, MetricValue)>) -> Self {
        let values = values.into_iter().map(|(name, value)| {
            let value = rounded_value(&name, &value);
            (name, value)
        });
        Self { arch, values: values.collect(), accuracy_from: None }
    }

    /// The expected value of a metric.
    pub fn mean(&self, metric: &str) -> Option<f64> {
        self.values.get(metric).map(|value| value.mean)
    }

    /// The expected accuracy, as a share; not clamped to 0..=1, so that the order is preserved.
    pub fn accuracy(&self) -> f64 {
        self.mean(TOP1).unwrap_or_default()
    }

    /// Lower end of the accuracy's 95 % interval, for new images; `None` where the predictor's error is not known.
    pub fn accuracy_low(&self) -> Option<f64> {
        self.values.get(TOP1)?.low
    }

    /// Upper end of the accuracy's interval.
    pub fn accuracy_high(&self) -> Option<f64> {
        self.values.get(TOP1)?.high
    }

    /// Replaces the expected accuracy by a better estimate.
    pub fn set_accuracy(&mut self, accuracy: f64, interval: Option<[f64; 2]>) {
        let low = interval.map(|ends| ends[0]);
        let high = interval.map(|ends| ends[1]);
        let value = MetricValue { mean: accuracy, low, high, extrapolated: false };
        self.values.insert(TOP1.to_string(), value);
    }

    /// The latency: of several named devices that of the first by name.
    fn latency(&self) -> Option<&MetricValue> {
        let named = || self.values.iter().find(|(name, _)| device_of(name).is_some());
        self.values.get(LATENCY).or_else(|| Some(named()?.1))
    }

    /// Expected latency, in milliseconds, of several named devices on the first by name; `None` where no table was given.
    pub fn latency_ms(&self) -> Option<f64> {
        Some(milliseconds(self.latency()?.mean))
    }

    /// The upper end of the latency's interval, in milliseconds, which is compared with limits.
    pub fn latency_upper_ms(&self) -> Option<f64> {
        self.latency()?.high.map(milliseconds)
    }

    /// A count; 0 where it is not known.
    pub fn count(&self, metric: &str) -> u64 {
        self.mean(metric).unwrap_or_default() as u64
    }
}

fn milliseconds(us: f64) -> f64 {
    rounded(us / 1e3, DECIMALS)
}

fn rounded_value(name: &str, value: &MetricValue) -> MetricValue {
    if value.is_exact() {
        return *value;
    }
    let decimals = if name.starts_with(LATENCY) { DECIMALS_OF_MICROSECONDS } else { DECIMALS };
    let round = |number: f64| rounded(number, decimals);
    MetricValue { mean: round(value.mean), low: value.low.map(round), high: value.high.map(round), ..*value }
}
