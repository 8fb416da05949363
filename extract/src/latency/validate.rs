//! Whole sub-networks against a table's sums.

use std::sync::atomic::AtomicBool;

use serde::Serialize;
use supernet::space::{Arch, SearchSpace};

use super::engine::{Engine, Stopwatch};
use super::measure::{MeasureConfig, Progress, measure};
use super::table::LatencyTable;
use crate::accuracy::rank;
use crate::error::Result;

/// One sub-network: what the table says and what was measured, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The sub-network.
    pub arch: Arch,
    /// Sum of the layers' medians.
    pub predicted_ms: f64,
    /// Sum of the upper ends of the layers' intervals.
    pub predicted_upper_ms: f64,
    /// Median of the whole network.
    pub measured_ms: f64,
}

impl Compared {
    /// Prediction over measurement, less one.
    pub fn relative_error(&self) -> f64 {
        self.predicted_ms / self.measured_ms - 1.0
    }
}

/// How well a table's sums fit whole networks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Validation {
    /// Share of networks whose sum is within 5 % of the measurement.
    pub within_5pct: f64,
    /// Share of networks whose sum is within 10 % of the measurement.
    pub within_10pct: f64,
    /// Mean absolute error relative to the measurement.
    pub mape: f64,
    /// Spearman's rank correlation of sums and measurements.
    pub spearman: f64,
    /// Kendall's tau-b of sums and measurements.
    pub kendall: f64,
    /// Number of networks.
    pub n: usize,
    /// Each of them.
    pub networks: Vec<Compared>,
}

/// Measures whole sub-networks and compares them with the table's sums. One for which the budget did not suffice
/// is left out.
///
/// # Errors
/// If the table lacks a layer, or the engine fails.
pub fn validate(
    (table, space): (&LatencyTable, &SearchSpace),
    archs: &[Arch],
    (engine, stopwatch): (&dyn Engine, &mut dyn Stopwatch),
    config: &MeasureConfig,
    progress: &mut dyn FnMut(Progress<'_>) -> Result<()>,
    stop: &AtomicBool,
) -> Result<Validation> {
    let mut entries = std::collections::BTreeMap::new();
    for arch in archs {
        let layers = space.lower(arch)?;
        table.network_latency(&layers)?;
        entries.insert(arch.to_string(), layers);
    }
    let measured = measure(&entries, engine, stopwatch, config, progress, stop)?;
    let mut networks = Vec::new();
    for arch in archs {
        let Some(row) = measured.rows.get(&arch.to_string()) else { continue };
        let sum = table.network_latency(&space.lower(arch)?)?;
        networks.push(Compared {
            arch: arch.clone(),
            predicted_ms: sum.median_us / 1e3,
            predicted_upper_ms: sum.high_us / 1e3,
            measured_ms: row.median_us / 1e3,
        });
    }
    Ok(summary(networks))
}

fn summary(networks: Vec<Compared>) -> Validation {
    let n = networks.len();
    let share = |bound: f64| {
        let within = networks.iter().filter(|network| network.relative_error().abs() <= bound).count();
        within as f64 / n.max(1) as f64
    };
    let predicted: Vec<f64> = networks.iter().map(|network| network.predicted_ms).collect();
    let measured: Vec<f64> = networks.iter().map(|network| network.measured_ms).collect();
    Validation {
        within_5pct: share(0.05),
        within_10pct: share(0.1),
        mape: networks.iter().map(|network| network.relative_error().abs()).sum::<f64>() / n.max(1) as f64,
        spearman: rank::spearman(&predicted, &measured),
        kendall: rank::kendall(&predicted, &measured),
        n,
        networks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_counts_shares_and_ranks() {
        let network = |predicted_ms: f64, measured_ms: f64| Compared {
            arch: format!("r8:k3e{measured_ms}").parse().expect("an arch"),
            predicted_ms,
            predicted_upper_ms: predicted_ms,
            measured_ms,
        };
        let validation = summary(vec![network(1.04, 1.0), network(1.84, 2.0), network(3.6, 3.0)]);
        assert_eq!(
            (validation.n, validation.within_5pct, validation.within_10pct),
            (3, 1.0 / 3.0, 2.0 / 3.0)
        );
        assert!((validation.mape - (0.04 + 0.08 + 0.2) / 3.0).abs() < 1e-12);
        assert_eq!((validation.spearman, validation.kendall), (1.0, 1.0));
    }
}
