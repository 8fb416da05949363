//! One choice and its kind.

use super::{GeneId, Index};
use crate::trace::VarSet;
use crate::value::Value;

/// The names of a kind of choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimension {
    /// Key in recipes and features: `expand`.
    pub key: &'static str,
    /// Words in a sentence: `expand ratio`.
    pub words: &'static str,
}

impl Dimension {
    /// A kind of choice that is called by its key.
    pub const fn named(key: &'static str) -> Self {
        Self { key, words: key }
    }
}

/// What a choice decides about a node: one of the outputs that are made one after the other, and joined by choice.
///
/// Nodes are numbered through a genome in the order in which they are made; numbers that no gene belongs to are inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeGene {
    /// Number of the node.
    pub node: usize,
    /// What is decided.
    pub role: NodeRole,
}

/// What a choice decides about its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// The operator, or another property of the node itself.
    Property,
    /// Which earlier node is read: value `v` is the node `first + v`.
    Input {
        /// The node of value 0.
        first: usize,
    },
    /// Whether an earlier node is added: 0 is no, another value is yes.
    Link {
        /// The earlier node.
        from: usize,
    },
}

/// One choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Gene {
    /// A unique name, such as `s1.b2.kernel`.
    pub name: String,
    /// The kind of choice.
    pub dimension: Dimension,
    /// The place in words: `stage 1, block 2`; empty for a choice of the whole network.
    pub place: String,
    /// All values: rising, or names, of which the largest network has the first.
    pub values: Vec<Value>,
    /// What it decides about a node, where nodes are joined by choice.
    pub of_node: Option<NodeGene>,
    /// The earlier gene that decides whether it exists, and by which of its values (by index); `None` if it always does.
    pub exists: Option<(GeneId, Vec<bool>)>,
    /// This gene and all genes that its existence depends on.
    pub(super) upward: VarSet,
    /// Genes whose existence depends on it directly.
    pub(super) children: Vec<GeneId>,
    /// The last gene that depends on it, directly or not; itself if none does.
    pub(super) last_below: GeneId,
}

impl Gene {
    /// A value in a list of choices: `stage 1, block 2, kernel 5`.
    pub fn describe(&self, value: Index) -> String {
        let comma = if self.place.is_empty() { "" } else { ", " };
        format!("{}{comma}{} {}", self.place, self.dimension.key, self.values[usize::from(value)])
    }

    /// Whether the largest network has the first value: a family lists names so, for they have no order of their own.
    pub fn largest_is_first(&self) -> bool {
        self.values.first().is_some_and(|value| !value.is_ordered())
    }

    /// The gene in a sentence: `expand ratio of stage 1, block 2`.
    pub fn words(&self) -> String {
        let of = if self.place.is_empty() { "" } else { " of " };
        format!("{}{of}{}", self.dimension.words, self.place)
    }
}
