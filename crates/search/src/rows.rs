//! Rows of genes in one vector.

use space::{GeneRow, Index};

/// Sub-networks as rows of genes, all of one space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GeneRows {
    genes: Vec<Index>,
    /// Genes per row.
    width: usize,
}

impl GeneRows {
    /// Empty rows, with a number of genes each.
    pub fn new(width: usize) -> Self {
        Self { genes: Vec::new(), width }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.genes.len() / self.width
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.genes.is_empty()
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.genes.clear();
    }

    /// Adds a copy of a row, for the caller to change.
    pub fn push(&mut self, genes: &GeneRow) -> &mut GeneRow {
        let start = self.genes.len();
        self.genes.extend_from_slice(genes);
        &mut self.genes[start..]
    }

    /// Adds copies of other rows.
    pub fn extend(&mut self, other: &Self) {
        self.genes.extend_from_slice(&other.genes);
    }

    /// Removes the last row.
    pub fn pop(&mut self) {
        self.genes.truncate(self.genes.len() - self.width);
    }

    /// One row.
    pub fn get(&self, row: usize) -> &GeneRow {
        &self.genes[row * self.width..(row + 1) * self.width]
    }

    /// All rows, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &GeneRow> {
        self.genes.chunks_exact(self.width)
    }
}
