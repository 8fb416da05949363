//! The form of version 4: values by the metric's name.

use std::collections::BTreeMap;

use base::{Error, document};
use network::model_folder::SelectedOn;
use search::{AccuracyFrom, Candidate, TOP1, Value};
use serde::{Deserialize, Serialize};
use space::Arch;

use super::{Evaluated, Found, KIND, LatencyFrom, MetricForm, VERSION};
use crate::error::Result;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wire {
    kind: String,
    version: u32,
    space: String,
    space_fingerprint: String,
    #[serde(deserialize_with = "document::each_key_once")]
    metrics: BTreeMap<String, MetricForm>,
    #[serde(deserialize_with = "document::each_key_once")]
    limits: BTreeMap<String, f64>,
    seed: u64,
    best: WireCandidate,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit_kept: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency: Option<LatencyFrom>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    extrapolated: Vec<String>,
    front: Vec<WireCandidate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_top1: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    evaluated: Vec<Evaluated>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    selected_on: Option<SelectedOn>,
    estimator: String,
    interrupted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latency_table: Option<String>,
    supernet: String,
    tool_version: String,
    #[serde(default)]
    run: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCandidate {
    arch: Arch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accuracy_from: Option<AccuracyFrom>,
    #[serde(deserialize_with = "document::each_key_once")]
    values: BTreeMap<String, WireValue>,
}

/// A number where the value is known for certain, an integer where it is a count.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WireValue {
    Count(u64),
    Exact(f64),
    Expected(Expected),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
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

impl From<&Value> for WireValue {
    fn from(value: &Value) -> Self {
        let Value { mean, low, high, extrapolated } = *value;
        if !value.is_exact() {
            return Self::Expected(Expected { mean, low, high, extrapolated });
        }
        match (0.0..EXACT).contains(&mean) && mean.fract() == 0.0 {
            true => Self::Count(mean as u64),
            false => Self::Exact(mean),
        }
    }
}

impl From<WireValue> for Value {
    fn from(value: WireValue) -> Self {
        match value {
            WireValue::Count(count) => Self::exact(count as f64),
            WireValue::Exact(number) => Self::exact(number),
            WireValue::Expected(Expected { mean, low, high, extrapolated }) => {
                Self { mean, low, high, extrapolated }
            }
        }
    }
}

impl From<&Candidate> for WireCandidate {
    fn from(candidate: &Candidate) -> Self {
        let Candidate { arch, values, accuracy_from } = candidate;
        let values = values.iter().map(|(name, value)| (name.clone(), value.into())).collect();
        Self { arch: arch.clone(), accuracy_from: *accuracy_from, values }
    }
}

impl WireCandidate {
    /// The candidate, if it has an accuracy and no values of metrics that the file does not name.
    fn checked(self, place: &str, metrics: &BTreeMap<String, MetricForm>) -> Result<Candidate> {
        let Self { arch, accuracy_from, values } = self;
        let unknown = values.keys().find(|name| !metrics.contains_key(*name));
        if unknown.is_some() || !values.contains_key(TOP1) {
            let known: Vec<&str> = metrics.keys().map(String::as_str).collect();
            let expected = format!("a value of {TOP1}, and others of {} only", known.join(", "));
            let got = unknown.map_or_else(|| format!("no {TOP1}"), String::clone);
            return Err(Error::invalid(place, arch, expected, got).into());
        }
        let values = values.into_iter().map(|(name, value)| (name, value.into())).collect();
        Ok(Candidate { arch, values, accuracy_from })
    }
}

impl From<&Found> for Wire {
    fn from(found: &Found) -> Self {
        let found = found.clone();
        Self {
            kind: KIND.to_string(),
            version: VERSION,
            best: (&found.best).into(),
            front: found.front.iter().map(WireCandidate::from).collect(),
            limits: found.limits.iter().map(|(name, bound)| (name.to_string(), bound)).collect(),
            space: found.space,
            space_fingerprint: found.space_fingerprint,
            metrics: found.metrics,
            seed: found.seed,
            limit_kept: found.limit_kept,
            latency: found.latency,
            extrapolated: found.extrapolated,
            min_top1: found.min_top1,
            evaluated: found.evaluated,
            selected_on: found.selected_on,
            estimator: found.estimator,
            interrupted: found.interrupted,
            latency_table: found.latency_table,
            supernet: found.supernet,
            tool_version: found.tool_version,
            run: found.run,
        }
    }
}

impl Wire {
    /// What the file says, if its candidates have values of the metrics that it names.
    pub fn checked(self, place: &str) -> Result<Found> {
        let front = self.front.into_iter().map(|candidate| candidate.checked(place, &self.metrics));
        let front = front.collect::<Result<_>>()?;
        Ok(Found {
            best: self.best.checked(place, &self.metrics)?,
            front,
            limits: self.limits.into_iter().collect(),
            space: self.space,
            space_fingerprint: self.space_fingerprint,
            metrics: self.metrics,
            seed: self.seed,
            limit_kept: self.limit_kept,
            latency: self.latency,
            extrapolated: self.extrapolated,
            min_top1: self.min_top1,
            evaluated: self.evaluated,
            selected_on: self.selected_on,
            estimator: self.estimator,
            interrupted: self.interrupted,
            latency_table: self.latency_table,
            supernet: self.supernet,
            tool_version: self.tool_version,
            run: self.run,
        })
    }
}
