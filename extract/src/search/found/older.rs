//! The form of versions 2 and 3: each cost in a field of its own, latencies of candidates in milliseconds and of limits in
//! microseconds.

use std::collections::BTreeMap;

use base::Error;
use base::document::{self, rounded};
use search::{AccuracyFrom, Candidate, LATENCY, Limits, MetricValue, TOP1};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::Serializer;
use serde_json::{Map, Value as Json, json};
use space::Arch;

use super::{Found, KIND, MetricForm, VERSIONS, wire};
use crate::error::Result;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OlderLimits {
    latency_us: Option<f64>,
    macs: Option<f64>,
    params: Option<f64>,
    memory_bytes: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OlderCandidate {
    arch: Arch,
    accuracy: f64,
    accuracy_low: Option<f64>,
    accuracy_high: Option<f64>,
    accuracy_from: Option<AccuracyFrom>,
    latency_ms: Option<f64>,
    latency_upper_ms: Option<f64>,
    macs: u64,
    params: u64,
    peak_activation_bytes: u64,
}

impl OlderCandidate {
    fn newer(self, place: &str) -> Result<Candidate> {
        let accuracy = MetricValue {
            mean: self.accuracy,
            low: self.accuracy_low,
            high: self.accuracy_high,
            extrapolated: false,
        };
        let count = |count: u64| MetricValue::exact(count as f64);
        let mut values = BTreeMap::from([
            (TOP1.to_string(), accuracy),
            ("macs".to_string(), count(self.macs)),
            ("params".to_string(), count(self.params)),
            ("memory".to_string(), count(self.peak_activation_bytes)),
        ]);
        // as many decimals as milliseconds were written with
        let us = |ms: f64| rounded(1e3 * ms, 6);
        match (self.latency_ms, self.latency_upper_ms) {
            (Some(mean), Some(upper)) => {
                let latency = MetricValue { high: Some(us(upper)), ..MetricValue::expected(us(mean)) };
                values.insert(LATENCY.to_string(), latency);
            }
            (None, None) => {}
            (latency, upper) => {
                let expected = "a latency with its upper value";
                let got =
                    [latency, upper].map(|ms: Option<f64>| ms.map_or("no".to_string(), |ms| ms.to_string()));
                let got = format!("{} ms and {} ms", got[0], got[1]);
                return Err(Error::invalid(place, &self.arch, expected, got).into());
            }
        }
        Ok(Candidate { arch: self.arch, values, accuracy_from: self.accuracy_from })
    }
}

impl OlderLimits {
    fn newer(self) -> Limits {
        let Self { latency_us, macs, params, memory_bytes } = self;
        let limits = [(LATENCY, latency_us), ("macs", macs), ("params", params), ("memory", memory_bytes)];
        limits.into_iter().filter_map(|(name, bound)| Some((name.to_string(), bound?))).collect()
    }
}

/// A file of version 2 or 3 as one of today says it. It has the same fields but for candidates and limits, and for metrics,
/// which are named since; version 2 lacks what has a default.
///
/// # Errors
/// If it is not such a file.
pub(super) fn newer(place: &str, text: &str, form: &str) -> Result<Found> {
    let unreadable = |error: serde_json::Error| Error::invalid(place, "text", form, error);
    document::read_one_of::<IgnoredAny>(place, text, KIND, VERSIONS, form)?;
    let mut fields: Map<String, Json> = match document::value_of(document::without_mark(text)) {
        Ok(Json::Object(fields)) => fields,
        Ok(_) => return Err(Error::invalid(place, "text", form, "something else").into()),
        Err(error) => return Err(unreadable(error).into()),
    };
    if fields.contains_key("metrics") {
        return Err(Error::invalid(place, "metrics", "none before version 4", "some").into());
    }
    let mut take = |name: &str| fields.remove(name).unwrap_or_default();
    let limits = take("limits");
    let best = take("best");
    let front = take("front");
    let limits: OlderLimits = serde_json::from_value(limits).map_err(unreadable)?;
    let best: OlderCandidate = serde_json::from_value(best).map_err(unreadable)?;
    let front: Vec<OlderCandidate> = serde_json::from_value(front).map_err(unreadable)?;
    let best = best.newer(place)?;
    let front = front.into_iter().map(|candidate| candidate.newer(place)).collect::<Result<Vec<_>>>()?;
    let names = front.iter().chain([&best]).flat_map(|candidate| candidate.values.keys());
    let metrics: BTreeMap<&String, MetricForm> = names.map(|name| (name, MetricForm::of(name))).collect();
    let newer = [
        ("metrics", json!(metrics)),
        ("limits", wire::limits::serialize(&limits.newer(), Serializer).map_err(unreadable)?),
        ("best", wire::candidate::serialize(&best, Serializer).map_err(unreadable)?),
        ("front", wire::candidates::serialize(&front, Serializer).map_err(unreadable)?),
    ];
    fields.entry("interrupted").or_insert(Json::Bool(false));
    fields.extend(newer.map(|(name, value)| (name.to_string(), value)));
    Ok(serde_json::from_value(Json::Object(fields)).map_err(unreadable)?)
}
