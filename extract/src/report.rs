//! A network layer by layer: each layer's inputs, costs and latency in a table.

use std::fmt::Write;

use latency::LatencyTable;
use serde::Serialize;
use space::{LayerSpec, cost};

use crate::error::Result;

/// A layer of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerReport {
    /// Prefix of its weights' names.
    pub name: String,
    /// The layers that it reads, by their places; `None` is the network's input.
    pub inputs: Vec<Option<usize>>,
    /// Key of its latency.
    pub key: String,
    /// Multiply-accumulates for one image.
    pub macs: u64,
    /// Trainable parameters.
    pub params: u64,
    /// The layer's undisturbed latency by itself, in microseconds, if there is a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<f64>,
}

/// Reports on each layer of a network, in the order in which they run.
///
/// # Errors
/// If the table lacks a layer.
pub fn layers(network: &[LayerSpec], table: Option<&LatencyTable>) -> Result<Vec<LayerReport>> {
    let mut reports = Vec::with_capacity(network.len());
    for layer in network {
        let costs = cost(&[layer.alone()]);
        let latency_us = table.map(|table| table.layer(layer)).transpose()?.map(|row| row.us);
        reports.push(LayerReport {
            name: layer.name.clone(),
            inputs: layer.inputs.clone(),
            key: layer.key(),
            macs: costs.macs,
            params: costs.params,
            latency_us,
        });
    }
    Ok(reports)
}

/// The report as a table with a line for each layer.
pub fn table(reports: &[LayerReport]) -> String {
    let width = |of: fn(&LayerReport) -> usize| reports.iter().map(of).max().unwrap_or(0);
    let name_width = width(|report| report.name.len()).max(5);
    let key_width = width(|report| report.key.len()).max(3);
    let inputs_width = width(|report| inputs(report).len()).max(5);
    let timed = reports.iter().any(|report| report.latency_us.is_some());
    let mut text = format!(
        "{:>4}  {:name_width$}  {:inputs_width$}  {:key_width$}  {:>10}  {:>10}",
        "", "layer", "reads", "key", "MACs", "parameters"
    );
    text += if timed { "        us\n" } else { "\n" };
    for (at, report) in reports.iter().enumerate() {
        let LayerReport { name, key, macs, params, latency_us, .. } = report;
        let inputs = inputs(report);
        let _ = write!(
            text,
            "{at:>4}  {name:name_width$}  {inputs:inputs_width$}  {key:key_width$}  {macs:>10}  {params:>10}"
        );
        if let Some(us) = latency_us {
            let _ = write!(text, "  {us:>8.2}");
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// The places that a layer reads: `3`, `1 4`, or `input`.
fn inputs(report: &LayerReport) -> String {
    report
        .inputs
        .iter()
        .map(|input: &Option<usize>| input.map_or_else(|| "input".to_string(), |at| at.to_string()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use latency::testing::made_up;
    use space::{preset, sampler};

    use super::*;

    #[test]
    fn a_report_has_a_line_for_each_layer_and_sums_to_the_network() {
        let space = preset("tiny-choice").expect("a preset");
        let network = space.lower(&sampler::largest(&space)).expect("legal");
        let made_up = made_up(&space);
        let reports = layers(&network, Some(&made_up)).expect("the table has all layers");
        let whole = cost(&network);
        assert_eq!(reports.iter().map(|report| report.macs).sum::<u64>(), whole.macs);
        assert_eq!(reports.iter().map(|report| report.params).sum::<u64>(), whole.params);
        let text = table(&reports);
        assert_eq!(text.lines().count(), 1 + network.len());
        let sum = reports.iter().position(|report| report.key.starts_with("sum")).expect("a connection");
        let line = text.lines().nth(1 + sum).expect("its line");
        let [one, other] = [0, 1].map(|input| network[sum].inputs[input].expect("a layer"));
        assert!(line.contains(&format!("  {one} {other}  ")), "{line}");
        let untimed = table(&layers(&network, None).expect("no table is asked"));
        assert!(text.contains(" us\n") && !untimed.contains(" us\n"));
        let other = preset("fashion").expect("a preset");
        let network = other.lower(&sampler::largest(&other)).expect("legal");
        let error = layers(&network, Some(&made_up)).expect_err("layers of another space").to_string();
        assert!(error.contains("no latency for") || error.contains("stem"), "{error}");
    }
}
