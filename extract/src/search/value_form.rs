//! The form in which files hold the expected value of a metric.

use search::MetricValue;
use serde::{Deserialize, Serialize};

/// A number where the value is known for certain, an integer where it is a count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum ValueForm {
    Count(u64),
    Exact(f64),
    Expected(Expected),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    mean: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    low: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    high: Option<f64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    extrapolated: bool,
}

/// Integers below this are the same in 64 bits with a point and without.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl From<&MetricValue> for ValueForm {
    fn from(value: &MetricValue) -> Self {
        let MetricValue { mean, low, high, extrapolated } = *value;
        if !value.is_exact() {
            return Self::Expected(Expected { mean, low, high, extrapolated });
        }
        let is_count = (0.0..EXACT).contains(&mean) && mean.fract() == 0.0 && mean.is_sign_positive();
        if is_count { Self::Count(mean as u64) } else { Self::Exact(mean) }
    }
}

impl From<ValueForm> for MetricValue {
    fn from(value: ValueForm) -> Self {
        match value {
            ValueForm::Count(count) => Self::exact(count as f64),
            ValueForm::Exact(number) => Self::exact(number),
            ValueForm::Expected(Expected { mean, low, high, extrapolated }) => {
                Self { mean, low, high, extrapolated }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_bit_by_bit() {
        let expected = |mean| MetricValue { mean, low: Some(mean - 0.1), high: None, extrapolated: true };
        let numbers = [0.0, -0.0, 1.0, 1e16, 0.1 + 0.2, f64::MIN_POSITIVE, 1e300, -7.0];
        for value in
            numbers.into_iter().flat_map(|x| [MetricValue::exact(x), MetricValue::expected(x), expected(x)])
        {
            let text = serde_json::to_string(&ValueForm::from(&value)).expect("a number");
            let again: MetricValue = serde_json::from_str::<ValueForm>(&text).expect("own text").into();
            assert_eq!(again.mean.to_bits(), value.mean.to_bits(), "{text}");
            assert_eq!(again, value, "{text}");
        }
    }
}
