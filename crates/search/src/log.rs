//! What was estimated, so that a search that was interrupted can go on: told by whoever owns a file, or in memory.

use std::collections::HashMap;

use space::{GeneRow, Index};

use super::metric::{Fidelity, MetricValue};
use crate::error::Result;

/// Remembers what was estimated, so that a search that was interrupted can go on.
pub trait Log {
    /// What was estimated of a row before.
    fn known(&self, row: &GeneRow, fidelity: Fidelity) -> Option<&[MetricValue]>;

    /// Adds what was estimated of a row.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn append(&mut self, row: &GeneRow, fidelity: Fidelity, values: &[MetricValue]) -> Result<()>;
}

/// Remembers nothing.
impl Log for () {
    fn known(&self, _row: &GeneRow, _fidelity: Fidelity) -> Option<&[MetricValue]> {
        None
    }

    fn append(&mut self, _row: &GeneRow, _fidelity: Fidelity, _values: &[MetricValue]) -> Result<()> {
        Ok(())
    }
}

/// A log in memory, in the order of the estimates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Archive {
    entries: Vec<(Vec<Index>, Fidelity, Vec<MetricValue>)>,
    places: HashMap<(Vec<Index>, u16), usize>,
}

impl Archive {
    /// What was estimated, in order.
    pub fn entries(&self) -> &[(Vec<Index>, Fidelity, Vec<MetricValue>)] {
        &self.entries
    }
}

impl Log for Archive {
    fn known(&self, row: &GeneRow, fidelity: Fidelity) -> Option<&[MetricValue]> {
        let place = self.places.get(&(row.to_vec(), fidelity.thousandths()))?;
        Some(&self.entries[*place].2)
    }

    fn append(&mut self, row: &GeneRow, fidelity: Fidelity, values: &[MetricValue]) -> Result<()> {
        self.places.insert((row.to_vec(), fidelity.thousandths()), self.entries.len());
        self.entries.push((row.to_vec(), fidelity, values.to_vec()));
        Ok(())
    }
}
