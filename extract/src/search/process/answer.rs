//! The lines between a search and an evaluating program.

use std::collections::BTreeMap;

use search::{Fidelity, Metric, MetricValue};
use serde::{Deserialize, Serialize};
use space::Arch;

/// A candidate to evaluate.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    arch: &'a Arch,
    fidelity: f64,
    seed: u64,
    metrics: Vec<&'a str>,
}

impl<'a> Request<'a> {
    pub fn new(arch: &'a Arch, fidelity: Fidelity, seed: u64, metrics: &'a [Metric]) -> Self {
        let metrics = metrics.iter().map(|metric| metric.name.as_str()).collect();
        Self { arch, fidelity: fidelity.share(), seed, metrics }
    }

    /// The line, with its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("plain data") + "\n"
    }
}

/// A program's answer.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// A value of each metric.
    Values(Vec<MetricValue>),
    /// Why it has none.
    Error(String),
}

/// The form of an answer; a program may add fields of its own.
#[derive(Deserialize)]
struct Form {
    arch: String,
    #[serde(default)]
    metrics: serde_json::Map<String, serde_json::Value>,
    /// The 95 % interval of a metric.
    #[serde(default)]
    intervals: BTreeMap<String, [f64; 2]>,
    #[serde(default)]
    error: Option<String>,
}

/// Longest part of a line in a message.
const QUOTED: usize = 200;

impl Answer {
    /// Reads an answer about a candidate with a value of each metric.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(line: &str, arch: &Arch, metrics: &[Metric]) -> Result<Self, String> {
        let form = "{\"arch\", \"metrics\"} or {\"arch\", \"error\"} in JSON";
        let quoted: String = line.chars().take(QUOTED).collect();
        let answer: Form = serde_json::from_str(line)
            .map_err(|error| format!("expected {form}, got {}: {error}", quoted.escape_debug()))?;
        if answer.arch != arch.to_string() {
            return Err(format!("expected an answer about {arch}, got one about {}", answer.arch));
        }
        if let Some(reason) = answer.error {
            return Ok(Self::Error(reason));
        }
        let mut values = Vec::with_capacity(metrics.len());
        for metric in metrics {
            let value = answer.metrics.get(&metric.name);
            let number = value.and_then(serde_json::Value::as_f64).filter(|number| number.is_finite());
            let got = || value.map_or_else(|| "none".to_string(), ToString::to_string);
            let number =
                number.ok_or_else(|| format!("{}: expected a number, got {}", metric.name, got()))?;
            if metric.unit == "share" && !(0.0..=1.0).contains(&number) {
                return Err(format!("{}: expected a share from 0 to 1, got {number}", metric.name));
            }
            let mut value = MetricValue::expected(number);
            if let Some([low, high]) = answer.intervals.get(&metric.name) {
                if !(low.is_finite() && high.is_finite() && *low <= number && number <= *high) {
                    let expected = format!("an interval around {number}");
                    return Err(format!(
                        "intervals.{}: expected {expected}, got {low} to {high}",
                        metric.name
                    ));
                }
                (value.low, value.high) = (Some(*low), Some(*high));
            }
            values.push(value);
        }
        Ok(Self::Values(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use search::Better;
    use space::{preset, sampler};

    #[test]
    fn answers_are_about_the_candidate_and_have_all_metrics() {
        let arch = sampler::largest(&preset("tiny").expect("a preset"));
        let metrics =
            [Metric::new("top1", "share", Better::Higher), Metric::new("loss", "nats", Better::Lower)];
        let request = Request::new(&arch, Fidelity::of_share(0.25), 7, &metrics).line();
        let expected =
            format!("{{\"arch\":\"{arch}\",\"fidelity\":0.25,\"seed\":7,\"metrics\":[\"top1\",\"loss\"]}}\n");
        assert_eq!(request, expected);
        let read = |rest: &str| Answer::read(&format!("{{\"arch\":\"{arch}\",{rest}}}"), &arch, &metrics);
        let values = [0.5, 1.25].map(MetricValue::expected).to_vec();
        assert_eq!(
            read("\"metrics\":{\"loss\":1.25,\"top1\":0.5,\"f1\":2},\"seconds\":3"),
            Ok(Answer::Values(values))
        );
        let bounded = read("\"metrics\":{\"top1\":0.5,\"loss\":1},\"intervals\":{\"top1\":[0.4,0.7]}");
        let top1 = MetricValue { low: Some(0.4), high: Some(0.7), ..MetricValue::expected(0.5) };
        assert_eq!(bounded, Ok(Answer::Values(vec![top1, MetricValue::expected(1.0)])));
        assert_eq!(read("\"error\":\"out of memory\""), Ok(Answer::Error("out of memory".to_string())));
        for (rest, part) in [
            ("\"metrics\":{\"top1\":0.5}", "loss: expected a number, got none"),
            ("\"metrics\":{\"top1\":0.5,\"loss\":null}", "loss: expected a number, got null"),
            ("\"metrics\":{\"top1\":50,\"loss\":1}", "top1: expected a share from 0 to 1, got 50"),
            (
                "\"metrics\":{\"top1\":0.5,\"loss\":1},\"intervals\":{\"top1\":[0.6,0.7]}",
                "intervals.top1: expected an interval around 0.5, got 0.6 to 0.7",
            ),
            ("\"metrics\":{\"top1\":NaN,\"loss\":1}", "expected {\"arch\", \"metrics\"}"),
        ] {
            let error = read(rest).expect_err(rest);
            assert!(error.contains(part), "{error}");
        }
        let other = Answer::read("{\"arch\":\"r8:\",\"metrics\":{}}", &arch, &metrics);
        assert!(other.expect_err("another").starts_with("expected an answer about"));
        assert!(Answer::read("done", &arch, &metrics).expect_err("no JSON").contains("got done"));
    }
}
