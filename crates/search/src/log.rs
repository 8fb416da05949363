//! Logs of estimates, so that an interrupted search can go on: in memory, or in the caller's file.

use std::collections::HashMap;

use space::{GeneRow, Index};

use super::metric::{Fidelity, MetricValue};
use crate::error::Result;

/// Stores estimates, so that an interrupted search can go on.
pub trait Log {
    /// The stored estimates of a row.
    fn known(&self, row: &GeneRow, fidelity: Fidelity) -> Option<&[MetricValue]>;

    /// Stores the estimates of a row.
    ///
    /// # Errors
    /// If they cannot be stored.
    fn append(&mut self, row: &GeneRow, fidelity: Fidelity, values: &[MetricValue]) -> Result<()>;
}

/// Stores nothing.
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
    /// The estimates, in order.
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
