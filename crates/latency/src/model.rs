//! A table's predictions for the sub-networks of one space: the sum over their layers, corrected if whole sub-networks
//! of the space were measured.

use base::Result;
use base::statistics as stats;
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, LayerSpec, SearchSpace};

use super::correction::Correction;
use super::fitted::SpaceFit;
use super::table::LatencyTable;

/// A kind of latency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LatencyKind {
    /// The latency while nothing shares the device: a property of the device.
    #[default]
    Undisturbed,
    /// The latency as met when the table was measured, with the device's neighbors.
    Typical,
}

impl std::fmt::Display for LatencyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Undisturbed => "undisturbed",
            Self::Typical => "typical",
        })
    }
}

/// A latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The prediction.
    pub us: f64,
    /// The upper end of the prediction interval of the space's validation; without one, of the layers' intervals.
    pub high_us: f64,
}

impl Latency {
    fn add(&mut self, other: Self) {
        self.us += other.us;
        self.high_us += other.high_us;
    }
}

/// A table read for one space.
#[derive(Clone, Copy, Debug)]
pub struct LatencyModel<'a> {
    table: &'a LatencyTable,
    fit: Option<&'a SpaceFit>,
    correction: Correction,
    kind: LatencyKind,
    /// The factor from the undisturbed latency to the chosen kind.
    factor: f64,
    upper_factor: Option<f64>,
}

impl LatencyTable {
    /// A sub-network's latency, of the kind that [`LatencyModel::new`] chooses.
    ///
    /// # Errors
    /// If the sub-network is not in the space, or the table lacks one of its layers.
    pub fn latency(&self, space: &SearchSpace, arch: &Arch) -> Result<Latency> {
        LatencyModel::new(self, space).network(&space.lower(arch)?)
    }
}

impl<'a> LatencyModel<'a> {
    /// The undisturbed latencies of a space, or the typical ones if the table has no others.
    pub fn new(table: &'a LatencyTable, space: &SearchSpace) -> Self {
        Self::of_kind(table, space, LatencyKind::Undisturbed)
    }

    /// The latencies of this kind; typical ones if the table has no others.
    pub fn of_kind(table: &'a LatencyTable, space: &SearchSpace, kind: LatencyKind) -> Self {
        let fit = table.fit_of(space);
        let correction = fit.map_or(Correction::NONE, |fit| fit.correction);
        let mut factor = 1.0;
        let mut upper_factor = fit.map(SpaceFit::upper_factor);
        let kind = if table.is_undisturbed() { kind } else { LatencyKind::Typical };
        if kind == LatencyKind::Typical && table.is_undisturbed() {
            factor = fit.map_or_else(|| typical_factor(table), SpaceFit::typical_factor);
            upper_factor = fit.map(SpaceFit::typical_upper_factor);
        }
        Self { table, fit, correction, kind, factor, upper_factor }
    }

    /// The kind of latency.
    pub fn kind(&self) -> LatencyKind {
        self.kind
    }

    /// The table's fit for whole sub-networks of the space, if it has one.
    pub fn fit(&self) -> Option<&'a SpaceFit> {
        self.fit
    }

    /// The contribution of one layer.
    ///
    /// # Errors
    /// If the table lacks it.
    pub fn layer(&self, layer: &LayerSpec) -> Result<Latency> {
        let row = self.table.layer(layer)?;
        let us = self.correction.layer(layer, row.us);
        let high_us = self.upper_factor.map_or(self.factor * row.high_us(), |factor| factor * us);
        Ok(Latency { us: self.factor * us, high_us })
    }

    /// The latency of every network in addition to its layers.
    pub fn constant(&self) -> Latency {
        let us = self.correction.constant_us;
        Latency { us: self.factor * us, high_us: self.upper_factor.unwrap_or(self.factor) * us }
    }

    /// A network's latency.
    ///
    /// # Errors
    /// Names the first layer that the table lacks.
    pub fn network(&self, layers: &[LayerSpec]) -> Result<Latency> {
        let mut sum = self.constant();
        for layer in layers {
            sum.add(self.layer(layer)?);
        }
        Ok(sum)
    }

    /// The probability that a network with this prediction keeps a limit; `None` if no sub-networks of the space were
    /// measured, or for typical latencies, which depend on the neighbors.
    pub fn kept(&self, predicted_us: f64, limit_us: f64) -> Option<f64> {
        let undisturbed = self.factor == 1.0;
        self.fit.filter(|_| undisturbed).map(|fit| fit.kept(predicted_us, limit_us))
    }

    /// Describes the properties of a sub-network outside the range of the fit: its margin was not measured there.
    pub fn extrapolated(&self, resolution: Extent, predicted_us: f64) -> Vec<String> {
        let Some(fit) = self.fit else { return Vec::new() };
        let mut outside = Vec::new();
        let seen = || fit.networks.iter().map(|network| network.arch.resolution);
        let ends = seen().min_by_key(|seen| seen.plane()).zip(seen().max_by_key(|seen| seen.plane()));
        if let Some((low, high)) = ends
            && !(low.plane()..=high.plane()).contains(&resolution.plane())
        {
            outside.push(format!("resolution {resolution} (measured: {low} to {high})"));
        }
        let (low, high) = range(fit.networks.iter().map(|network| self.factor * network.predicted_us));
        if !(low * (1.0 - OUTSIDE)..=high * (1.0 + OUTSIDE)).contains(&predicted_us) {
            outside.push(format!(
                "latency {:.4} ms (measured: {:.4} to {:.4})",
                predicted_us / 1e3,
                low / 1e3,
                high / 1e3
            ));
        }
        outside
    }
}

/// How far beyond the measured latencies one still counts as measured.
const OUTSIDE: f64 = 0.05;

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, 0.0), |(low, high), value| (low.min(value), high.max(value)))
}

/// The median ratio of typical and undisturbed latencies of layers.
fn typical_factor(table: &LatencyTable) -> f64 {
    let rows = table.rows().values().filter(|row| row.undisturbed);
    let ratios: Vec<f64> = rows.map(|row| row.typical_us / row.us).collect();
    if ratios.is_empty() { 1.0 } else { stats::median(&ratios) }
}
