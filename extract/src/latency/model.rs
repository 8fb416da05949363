//! What a table expects of the sub-networks of one space: the sum over their layers, corrected where whole
//! sub-networks of the space were measured.

use supernet::space::{LayerSpec, SearchSpace};

use super::correction::Correction;
use super::fitted::SpaceFit;
use super::table::LatencyTable;
use crate::error::Result;

/// A latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// What is expected.
    pub median_us: f64,
    /// What it is at most: the upper end of the 95 % prediction interval of the space's validation; without one, of
    /// the medians' intervals.
    pub high_us: f64,
}

impl Latency {
    fn add(&mut self, other: Self) {
        self.median_us += other.median_us;
        self.high_us += other.high_us;
    }
}

/// A table as it looks from one space.
#[derive(Clone, Copy, Debug)]
pub struct LatencyModel<'a> {
    table: &'a LatencyTable,
    fit: Option<&'a SpaceFit>,
    correction: Correction,
    upper_factor: Option<f64>,
}

impl<'a> LatencyModel<'a> {
    /// Looks up what the table knows of the space's sub-networks.
    pub fn new(table: &'a LatencyTable, space: &SearchSpace) -> Self {
        let fit = table.fit_of(space);
        let correction = fit.map_or(Correction::NONE, |fit| fit.correction);
        Self { table, fit, correction, upper_factor: fit.map(SpaceFit::upper_factor) }
    }

    /// What the table knows of whole sub-networks of the space, if it does.
    pub fn fit(&self) -> Option<&'a SpaceFit> {
        self.fit
    }

    /// What one layer adds.
    ///
    /// # Errors
    /// If the table lacks it.
    pub fn layer(&self, layer: &LayerSpec) -> Result<Latency> {
        let row = self.table.layer(layer)?;
        let median_us = self.correction.layer(layer, row.median_us);
        Ok(Latency { median_us, high_us: self.upper_factor.map_or(row.high_us, |factor| factor * median_us) })
    }

    /// What every network has beside its layers.
    pub fn constant(&self) -> Latency {
        let median_us = self.correction.constant_us;
        Latency { median_us, high_us: self.upper_factor.unwrap_or(1.0) * median_us }
    }

    /// What a network takes.
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

    /// How likely a network of which `expected_us` is expected keeps a limit; `None` where no sub-networks of the
    /// space were measured.
    pub fn kept(&self, expected_us: f64, limit_us: f64) -> Option<f64> {
        self.fit.map(|fit| fit.kept(expected_us, limit_us))
    }
}
