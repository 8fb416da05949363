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
