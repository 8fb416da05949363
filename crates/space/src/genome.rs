//! The list of choices, when each exists, and everything that follows from the list alone.

mod declare;
mod gene;
mod steps;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use base::error::{Error, Result};
use num_bigint::BigUint;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::trace::VarSet;
use crate::value::{Readable, Value};

pub use declare::{Choice, Declaring, Only};
pub use gene::{Dimension, Gene, NodeGene, NodeRole};
pub use steps::{ABSENT, Change, Group, Step, Steps};

/// A value's place in its gene's list. An absent gene has 0, so that equal networks are equal rows and tables need no
/// branch.
pub type Index = u16;

/// One network: an index for each gene of its genome.
pub type GeneRow = [Index];

/// A gene's place in its genome.
pub type GeneId = usize;

/// The list of choices of a search space, and which values of each may be drawn.
///
/// Which values may be drawn changes from phase to phase ([`Genome::restricted`]); the lists do not, so a row of one phase
/// is a row of every other.
#[derive(Clone, Debug, PartialEq)]
pub struct Genome {
    lists: Arc<Lists>,
    /// The values of each gene that may be drawn, rising.
    allowed: Vec<Vec<Index>>,
    /// The combinations of these for each group, rising.
    combinations: Arc<Vec<Vec<Index>>>,
}

/// The parts that do not change from phase to phase.
#[derive(Debug, PartialEq)]
struct Lists {
    genes: Vec<Gene>,
    groups: Vec<Group>,
}

/// One end of every list of choices: the first and the last value of those that rise, the last and the first name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The smallest choice.
    Smallest,
    /// The largest choice.
    Largest,
}

impl Genome {
    fn new(lists: Arc<Lists>, allowed: Vec<Vec<Index>>) -> Self {
        let combinations = Arc::new(steps::combinations(&lists.groups, &allowed));
        Self { lists, allowed, combinations }
    }

    /// The genes, in order; a gene comes after those that decide its existence.
    pub fn genes(&self) -> &[Gene] {
        &self.lists.genes
    }

    /// Number of genes.
    pub fn len(&self) -> usize {
        self.genes().len()
    }

    /// Whether nothing can be chosen.
    pub fn is_empty(&self) -> bool {
        self.genes().is_empty()
    }

    /// The values of a gene that may be drawn, rising; at least one.
    pub fn allowed(&self, gene: GeneId) -> &[Index] {
        &self.allowed[gene]
    }

    /// The gene of this name.
    pub fn find(&self, name: &str) -> Option<GeneId> {
        self.genes().iter().position(|gene| gene.name == name)
    }

    /// The kinds of choice, in the order of their first genes.
    pub fn dimensions(&self) -> Vec<Dimension> {
        let mut found = Vec::new();
        for gene in self.genes() {
            if !found.contains(&gene.dimension) {
                found.push(gene.dimension);
            }
        }
        found
    }

    /// Whether some gene of this kind has more than one value that may be drawn.
    pub fn is_elastic(&self, dimension: &str) -> bool {
        let of = self.genes().iter().zip(&self.allowed).filter(|(gene, _)| gene.dimension.key == dimension);
        of.into_iter().any(|(_, allowed)| allowed.len() > 1)
    }

    /// A choice's value in a row; the first value if it does not exist.
    pub fn get<T: Readable>(&self, row: &GeneRow, choice: Choice<T>) -> T {
        let value = self.genes()[choice.gene()].values[usize::from(row[choice.gene()])];
        T::read(value).expect("a choice is read as it was declared")
    }

    /// A gene's value in a row; `None` where the gene does not exist.
    pub fn value(&self, row: &GeneRow, gene: GeneId) -> Option<Value> {
        self.exists(row, gene).then(|| self.genes()[gene].values[usize::from(row[gene])])
    }

    /// Whether a gene exists in a row.
    pub fn exists(&self, row: &GeneRow, gene: GeneId) -> bool {
        let Some((parent, among)) = &self.genes()[gene].exists else { return true };
        among[usize::from(row[*parent])] && self.exists(row, *parent)
    }

    /// Sets genes that do not exist to 0.
    pub fn make_canonical(&self, row: &mut GeneRow) {
        for gene in 0..self.len() {
            if row[gene] != 0 && !self.exists(row, gene) {
                row[gene] = 0;
            }
        }
    }

    /// Whether the row is canonical and each of its values may be drawn.
    pub fn holds(&self, row: &GeneRow) -> bool {
        row.len() == self.len()
            && (0..self.len()).all(|gene: GeneId| {
                if self.exists(row, gene) { self.allowed[gene].contains(&row[gene]) } else { row[gene] == 0 }
            })
    }

    /// The error for a value of a gene that may not be chosen.
    pub fn refuse(&self, gene: GeneId, place: &str, got: impl std::fmt::Display) -> Error {
        let listed: Vec<String> = self.values_of(gene).map(|value| value.to_string()).collect();
        Error::invalid(place, self.genes()[gene].words(), format!("one of {}", listed.join(", ")), got)
    }

    /// The values of a gene that may be drawn.
    pub fn values_of(&self, gene: GeneId) -> impl ExactSizeIterator<Item = Value> + '_ {
        self.allowed[gene].iter().map(move |index| self.genes()[gene].values[usize::from(*index)])
    }

    /// Sets a gene of a row to a value that may be drawn; `place` names the source in messages.
    pub(crate) fn choose<T: Readable>(
        &self,
        row: &mut GeneRow,
        choice: Choice<T>,
        value: T,
        place: &str,
    ) -> Result<()> {
        let gene = choice.gene();
        let index = self.index_of(gene, value.value());
        row[gene] = index.ok_or_else(|| self.refuse(gene, place, value.value()))?;
        Ok(())
    }

    /// A value's place in a gene's list, if it may be drawn.
    pub fn index_of(&self, gene: GeneId, value: Value) -> Option<Index> {
        let listed = self.allowed[gene].iter();
        listed.copied().find(|index| self.genes()[gene].values[usize::from(*index)] == value)
    }

    /// The genome restricted to the given number of largest values of some kinds of choice, at least one of each; its
    /// rows are rows of this one. Names have no order of their own, so the first ones stay.
    #[must_use]
    pub fn restricted(&self, largest: &BTreeMap<String, usize>) -> Self {
        let mut narrowed = self.allowed.clone();
        for (gene, allowed) in self.genes().iter().zip(&mut narrowed) {
            let Some(&most) = largest.get(gene.dimension.key) else { continue };
            let most = most.clamp(1, allowed.len());
            let count = allowed.len();
            match gene.largest_is_first() {
                true => allowed.truncate(most),
                false => drop(allowed.drain(..count - most)),
            }
        }
        Self::new(self.lists.clone(), narrowed)
    }

    /// The genome with only one value of a gene.
    #[must_use]
    pub fn fixed(&self, gene: GeneId, value: Index) -> Self {
        let mut narrowed = self.allowed.clone();
        narrowed[gene] = vec![value];
        Self::new(self.lists.clone(), narrowed)
    }

    /// The genome with every choice made as a row has it.
    pub(crate) fn with_only(&self, row: &GeneRow) -> Self {
        Self::new(self.lists.clone(), row.iter().map(|index| vec![*index]).collect())
    }

    /// The genome restricted, for the genes for which `of` holds, to the values that another one with the same lists
    /// allows.
    pub(crate) fn allowing_as(&self, other: &Self, of: impl Fn(GeneId) -> bool) -> Self {
        let allowed = (0..self.len()).map(|gene| {
            let from = if of(gene) { other } else { self };
            from.allowed[gene].clone()
        });
        Self::new(self.lists.clone(), allowed.collect())
    }

    /// How many networks can be drawn, exactly.
    pub fn count(&self) -> BigUint {
        let roots = (0..self.len()).filter(|gene| self.genes()[*gene].exists.is_none());
        roots.map(|gene| self.count_below(gene)).product()
    }

    /// The number of networks for one value of a gene that always exists.
    pub fn count_at(&self, gene: GeneId) -> BigUint {
        self.fixed(gene, self.allowed[gene][0]).count()
    }

    fn count_below(&self, gene: GeneId) -> BigUint {
        let below: Vec<_> =
            self.genes()[gene].children.iter().map(|child| (*child, self.count_below(*child))).collect();
        self.allowed[gene]
            .iter()
            .map(|value: &Index| -> BigUint {
                below
                    .iter()
                    .filter(|child: &&(GeneId, BigUint)| {
                        self.genes()[child.0]
                            .exists
                            .as_ref()
                            .is_some_and(|(_, among)| among[usize::from(*value)])
                    })
                    .map(|(_, count)| count.clone())
                    .product()
            })
            .sum()
    }

    /// All rows that can be drawn, in their order; for small genomes.
    pub fn all(&self) -> Vec<Vec<Index>> {
        let mut rows = vec![vec![0; self.len()]];
        for gene in 0..self.len() {
            rows = rows
                .into_iter()
                .flat_map(|row: Vec<Index>| -> Vec<Vec<Index>> {
                    if !self.exists(&row, gene) {
                        return vec![row];
                    }
                    self.allowed[gene]
                        .iter()
                        .map(|value: &Index| {
                            let mut row = row.clone();
                            row[gene] = *value;
                            row
                        })
                        .collect()
                })
                .collect();
        }
        rows
    }

    /// The row whose choices all lie at one end, which may differ by kind of choice.
    pub fn corner(&self, end: impl Fn(Dimension) -> End) -> Vec<Index> {
        let mut row = vec![0; self.len()];
        for gene in 0..self.len() {
            if self.exists(&row, gene) {
                let allowed = &self.allowed[gene];
                let choice = &self.genes()[gene];
                let largest = end(choice.dimension) == End::Largest;
                let first = largest == choice.largest_is_first();
                row[gene] = if first { allowed[0] } else { allowed[allowed.len() - 1] };
            }
        }
        row
    }

    /// Draws each gene independently and uniformly, in their order; absent genes take no random number.
    ///
    /// Once-for-All trains with this distribution; it is not uniform over networks, for a deep stage has more variants
    /// than a shallow one.
    pub fn random(&self, rng: &mut impl Rng) -> Vec<Index> {
        let mut row = vec![0; self.len()];
        for gene in 0..self.len() {
            if self.exists(&row, gene) {
                row[gene] = self.pick(gene, rng);
            }
        }
        row
    }

    /// Draws rows in which each gene runs through its values in random order, again and again: in as many rows as a gene has
    /// values, each occurs once where the gene always exists.
    pub fn fair(&self, count: usize, rng: &mut impl Rng) -> Vec<Vec<Index>> {
        let mut rows = vec![vec![0; self.len()]; count];
        for gene in 0..self.len() {
            let mut order = self.allowed[gene].clone();
            for rows in rows.chunks_mut(order.len()) {
                order.shuffle(rng);
                rows.iter_mut().zip(&order).for_each(|(row, value)| row[gene] = *value);
            }
        }
        rows.iter_mut().for_each(|row| self.make_canonical(row));
        rows
    }

    fn pick(&self, gene: GeneId, rng: &mut impl Rng) -> Index {
        *self.allowed[gene].choose(rng).expect("a gene has values")
    }

    /// Redraws each group of genes with the given probability, and draws the genes that come to exist.
    pub fn mutate(&self, row: &mut GeneRow, probability: f64, rng: &mut impl Rng) {
        let before = row.to_vec();
        for group in self.groups() {
            if !self.exists(row, group.first) {
                row[group.genes()].fill(0);
            } else if !self.exists(&before, group.first) || rng.random_bool(probability) {
                group.genes().for_each(|gene| row[gene] = self.pick(gene, rng));
            }
        }
    }

    /// Gives one gene another value: a uniformly drawn one of those that exist and have several; genes that come to exist
    /// are drawn. Nothing changes where no gene has several values.
    pub fn mutate_one(&self, row: &mut GeneRow, rng: &mut impl Rng) {
        let several = |gene: &GeneId| self.allowed[*gene].len() > 1 && self.exists(row, *gene);
        let open: Vec<GeneId> = (0..self.len()).filter(several).collect();
        let Some(&changed) = open.choose(rng) else { return };
        let before = row.to_vec();
        let others: Vec<Index> =
            self.allowed[changed].iter().copied().filter(|value| *value != before[changed]).collect();
        row[changed] = *others.choose(rng).expect("it has several values");
        for gene in changed + 1..self.len() {
            match (self.exists(row, gene), self.exists(&before, gene)) {
                (false, _) => row[gene] = 0,
                (true, false) => row[gene] = self.pick(gene, rng),
                (true, true) => {}
            }
        }
    }

    /// Takes each group of genes from the row or the other, with probability one half; a group that only one of them
    /// has comes from that one.
    pub fn mix(&self, row: &mut GeneRow, other: &GeneRow, rng: &mut impl Rng) {
        self.take_parts(self.groups().iter().map(Group::genes), row, other, rng);
    }

    /// Takes each gene from the row or the other, with probability one half; a gene that only one of them has comes
    /// from that one.
    pub fn cross(&self, row: &mut GeneRow, other: &GeneRow, rng: &mut impl Rng) {
        self.take_parts((0..self.len()).map(|gene| gene..gene + 1), row, other, rng);
    }

    /// Takes each part of the genes from the row or the other; the genes of a part exist together.
    fn take_parts(
        &self,
        parts: impl Iterator<Item = Range<GeneId>>,
        row: &mut GeneRow,
        other: &GeneRow,
        rng: &mut impl Rng,
    ) {
        let ours = row.to_vec();
        for part in parts {
            match [&*row, &ours[..], other].map(|row| self.exists(row, part.start)) {
                [false, ..] => row[part].fill(0),
                [_, true, false] => {}
                [_, true, true] if rng.random() => {}
                _ => row[part.clone()].copy_from_slice(&other[part]),
            }
        }
    }

    /// Copies genes of `anchor`, in random order, until `keeps` accepts the row; the last step is `anchor` itself, so
    /// the work is bounded by the number of genes.
    pub fn toward(
        &self,
        row: &mut GeneRow,
        anchor: &GeneRow,
        rng: &mut impl Rng,
        keeps: impl Fn(&GeneRow) -> bool,
    ) {
        let mut order: Vec<GeneId> = (0..self.len()).collect();
        order.shuffle(rng);
        for gene in order {
            if keeps(row) {
                return;
            }
            // with a gene come those that its existence depends on, and all that these bring into existence
            let before = row.to_vec();
            for up in self.genes()[gene].upward.iter() {
                row[up as usize] = anchor[up as usize];
            }
            for below in 0..self.len() {
                if self.exists(row, below) && !self.exists(&before, below) {
                    row[below] = anchor[below];
                }
            }
            self.make_canonical(row);
        }
    }

    /// A gene and all genes that its existence depends on.
    pub(crate) fn upward(&self, gene: GeneId) -> &VarSet {
        &self.genes()[gene].upward
    }
}

#[cfg(test)]
mod tests;
