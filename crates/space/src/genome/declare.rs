//! Declares the choices of a family.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Dimension, Gene, GeneId, Genome, Index, Lists, NodeGene, NodeRole, steps};
use crate::trace::{Var, VarSet};
use crate::value::{Readable, Value};

/// A declared gene as its family holds it: its place, and the type of its values.
pub struct Choice<T> {
    gene: GeneId,
    of: PhantomData<fn() -> T>,
}

impl<T> Choice<T> {
    /// The gene's place in the genome.
    pub fn gene(self) -> GeneId {
        self.gene
    }
}

impl<T> Clone for Choice<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Choice<T> {}

impl<T> std::fmt::Debug for Choice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "gene {}", self.gene)
    }
}

/// The condition for a gene to exist: an earlier gene, and which of its values (by index) let it exist.
#[derive(Clone, Debug)]
pub struct Only {
    parent: GeneId,
    among: Vec<bool>,
}

/// A genome that is being declared, gene by gene. Genes are drawn in this order.
#[derive(Debug, Default)]
pub struct Declaring {
    genes: Vec<Gene>,
}

impl Declaring {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a gene with these values, at a place in words, under a unique name; with `only`, it exists only there.
    ///
    /// # Panics
    /// If there are no values, they do not rise, or the name is taken: a family checks its fields first.
    pub fn choice<T: Readable>(
        &mut self,
        name: String,
        place: String,
        dimension: Dimension,
        values: &[T],
        only: Option<&Only>,
    ) -> Choice<T> {
        let gene = self.genes.len();
        let values: Vec<Value> = values.iter().map(|value| value.value()).collect();
        let rising = values.first().is_some_and(|first| !first.is_ordered())
            || values.windows(2).all(|pair| pair[0] < pair[1]);
        let many = values.len() >= usize::from(Index::MAX);
        let taken = self.genes.iter().any(|other| other.name == name);
        assert!(!values.is_empty() && rising && !many && !taken, "gene {name}: {values:?}");
        // a condition that all values meet is no condition
        let exists = only.filter(|only| !only.among.iter().all(|among| *among));
        let mut upward = VarSet::one(gene as Var);
        if let Some(only) = exists {
            upward.extend(&self.genes[only.parent].upward);
            self.genes[only.parent].children.push(gene);
            for up in upward.iter() {
                if let Some(above) = self.genes.get_mut(up as usize) {
                    above.last_below = gene;
                }
            }
        }
        let exists = exists.map(|only| (only.parent, only.among.clone()));
        let children = Vec::new();
        let last_below = gene;
        let of_node = None;
        self.genes.push(Gene {
            name,
            dimension,
            place,
            values,
            of_node,
            exists,
            upward,
            children,
            last_below,
        });
        Choice { gene, of: PhantomData }
    }

    /// Says what a choice decides about a node.
    pub fn at_node<T>(&mut self, choice: Choice<T>, node: usize, role: NodeRole) -> Choice<T> {
        self.genes[choice.gene].of_node = Some(NodeGene { node, role });
        choice
    }

    /// The condition that a choice has one of the values for which `holds`.
    pub fn only<T: Readable>(&self, choice: Choice<T>, holds: impl Fn(T) -> bool) -> Only {
        let values = self.genes[choice.gene].values.iter();
        let among = values.map(|value| T::read(*value).is_some_and(&holds)).collect();
        Only { parent: choice.gene, among }
    }

    /// The genome, every value of which may be drawn.
    pub fn finish(self) -> Genome {
        let allowed = self.genes.iter().map(|gene| (0..gene.values.len() as Index).collect()).collect();
        let groups = steps::groups(&self.genes);
        Genome::new(Arc::new(Lists { genes: self.genes, groups }), allowed)
    }
}
