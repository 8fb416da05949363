//! The form of versions 2 and 3: each cost in a field of its own, latencies of candidates in milliseconds and of limits in
//! microseconds.

use std::collections::BTreeMap;

use base::Error;
use base::document::rounded;
use network::model_folder::SelectedOn;
use search::{AccuracyFrom, Candidate, LATENCY, Limits, TOP1, Value};
use serde::Deserialize;
use space::Arch;

use super::{Evaluated, Found, LatencyFrom, MetricForm};
use crate::error::Result;

/// The file. Version 2 is version 3 without what has a default.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Older {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "version")]
    _version: u32,
    space: String,
    space_fingerprint: String,
    limits: OlderLimits,
    seed: u64,
    best: OlderCandidate,
    limit_kept: Option<f64>,
    latency: Option<LatencyFrom>,
    #[serde(default)]
    extrapolated: Vec<String>,
    front: Vec<OlderCandidate>,
    min_top1: Option<f64>,
    #[serde(default)]
    evaluated: Vec<Evaluated>,
    selected_on: Option<SelectedOn>,
    estimator: String,
    #[serde(default)]
    interrupted: bool,
    latency_table: Option<String>,
    supernet: String,
    tool_version: String,
    #[serde(default)]
    run: BTreeMap<String, serde_json::Value>,
}

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
        let accuracy = Value {
            mean: self.accuracy,
            low: self.accuracy_low,
            high: self.accuracy_high,
            extrapolated: false,
        };
        let count = |count: u64| Value::exact(count as f64);
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
                let latency = Value { high: Some(us(upper)), ..Value::expected(us(mean)) };
                values.insert(LATENCY.to_string(), latency);
            }
            (None, None) => {}
            (latency, upper) => {
                let ms = |ms: Option<f64>| ms.map_or("no".to_string(), |ms| ms.to_string());
                let (expected, got) = ("a latency with its upper value", [latency, upper].map(ms));
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

impl Older {
    /// The same as a file of today says it.
    pub fn newer(self, place: &str) -> Result<Found> {
        let front = self.front.into_iter().map(|candidate| candidate.newer(place));
        let front = front.collect::<Result<Vec<_>>>()?;
        let best = self.best.newer(place)?;
        let candidates = front.iter().chain([&best]);
        let names = candidates.flat_map(|candidate| candidate.values.keys());
        Ok(Found {
            metrics: names.map(|name| (name.clone(), MetricForm::of(name))).collect(),
            best,
            front,
            limits: self.limits.newer(),
            space: self.space,
            space_fingerprint: self.space_fingerprint,
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
