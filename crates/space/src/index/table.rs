//! A value for each combination of a few choices.

use crate::genome::{GeneRow, Index};
use crate::trace::Var;

/// One cell for each combination of values of some genes, the first gene outermost.
#[derive(Clone, Debug, PartialEq)]
pub struct Table<T> {
    /// The genes, rising.
    pub vars: Vec<Var>,
    /// Number of values of each gene.
    pub sizes: Vec<usize>,
    /// The cells.
    pub cells: Vec<T>,
}

impl<T: Clone + PartialEq> Table<T> {
    /// A table of one value everywhere; `sizes` has the number of values of every gene.
    pub fn new(vars: Vec<Var>, sizes: &[usize], fill: T) -> Self {
        let sizes: Vec<usize> = vars.iter().map(|var| sizes[*var as usize]).collect();
        let cells = vec![fill; sizes.iter().product()];
        Self { vars, sizes, cells }
    }

    /// The distance in cells between neighboring values of each gene.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.sizes.len()];
        for at in (1..self.sizes.len()).rev() {
            strides[at - 1] = strides[at] * self.sizes[at];
        }
        strides
    }

    /// The values of the genes in a cell.
    pub fn values(&self, mut cell: usize) -> Vec<Index> {
        let mut values = vec![0; self.sizes.len()];
        for (value, size) in values.iter_mut().zip(&self.sizes).rev() {
            *value = (cell % size) as Index;
            cell /= size;
        }
        values
    }

    /// The cell of a row.
    pub fn at(&self, row: &GeneRow) -> usize {
        let pairs = self.vars.iter().zip(&self.sizes);
        pairs.fold(0, |cell, (var, size)| cell * size + usize::from(row[*var as usize]))
    }

    /// The table with each cell replaced.
    pub fn map<U>(&self, of: impl FnMut(&T) -> U) -> Table<U> {
        let cells = self.cells.iter().map(of).collect();
        Table { vars: self.vars.clone(), sizes: self.sizes.clone(), cells }
    }

    /// The table restricted to one value of a gene.
    #[must_use]
    pub fn sliced(&self, var: Var, value: Index) -> Self {
        let Some(at) = self.vars.iter().position(|own| *own == var) else { return self.clone() };
        let stride = self.strides()[at];
        let size = self.sizes[at];
        let kept = (0..self.cells.len()).filter(|cell| cell / stride % size == usize::from(value));
        let cells = kept.map(|cell| self.cells[cell].clone());
        let mut sliced = Self { vars: self.vars.clone(), sizes: self.sizes.clone(), cells: cells.collect() };
        sliced.vars.remove(at);
        sliced.sizes.remove(at);
        sliced
    }
}

/// Marks a cell that no network has, of those that may be drawn.
pub(super) const UNKNOWN: u32 = u32::MAX;

impl Table<u32> {
    /// The cells that some network has.
    pub(super) fn known(&self) -> impl Iterator<Item = u32> {
        self.cells.iter().copied().filter(|cell| *cell != UNKNOWN)
    }

    /// The table without the genes on which no known cell depends.
    pub(super) fn minimal(mut self) -> Self {
        for at in (0..self.vars.len()).rev() {
            if let Some(cells) = self.cells_without(at) {
                self.cells = cells;
                self.vars.remove(at);
                self.sizes.remove(at);
            }
        }
        self
    }

    /// The cells without one gene; `None` if a known cell depends on it.
    fn cells_without(&self, at: usize) -> Option<Vec<u32>> {
        let stride = self.strides()[at];
        let size = self.sizes[at];
        let mut cells = Vec::with_capacity(self.cells.len() / size);
        for base in (0..self.cells.len()).filter(|cell| (cell / stride).is_multiple_of(size)) {
            let values = (0..size).map(|value| self.cells[base + value * stride]);
            let mut known = values.filter(|cell| *cell != UNKNOWN);
            let first = known.next().unwrap_or(UNKNOWN);
            if known.any(|cell| cell != first) {
                return None;
            }
            cells.push(first);
        }
        Some(cells)
    }
}
