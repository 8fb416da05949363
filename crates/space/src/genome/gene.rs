//! One choice, and what kind of choice it is.

use super::{GeneId, Index};
use crate::trace::VarSet;
use crate::value::Value;

/// What phases and messages call a kind of choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dimension {
    /// Its key in recipes and features: `expand`.
    pub key: &'static str,
    /// What it is called in a sentence: `expand ratio`.
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
    /// Its name, such as `s1.b2.kernel`, which no other gene has.
    pub name: String,
    /// Which kind of choice it is.
    pub dimension: Dimension,
    /// Where it stands, in words: `stage 1, block 2`; empty for a choice of the whole network.
    pub place: String,
    /// All its values: rising, or names, of which the largest network has the first.
    pub values: Vec<Value>,
    /// The earlier gene that decides whether it exists, and by which of its values (by index); `None` if it always does.
    pub exists: Option<(GeneId, Vec<bool>)>,
    /// Itself and all genes that its existence hangs on.
    pub(super) upward: VarSet,
    /// Genes whose existence hangs on it directly.
    pub(super) children: Vec<GeneId>,
    /// The last gene that hangs on it, directly or not; itself if none does.
    pub(super) last_below: GeneId,
}

impl Gene {
    /// What one of its values is called in a list of choices: `stage 1, block 2, kernel 5`.
    pub fn describe(&self, value: Index) -> String {
        let comma = if self.place.is_empty() { "" } else { ", " };
        format!("{}{comma}{} {}", self.place, self.dimension.key, self.values[usize::from(value)])
    }

    /// Whether the first of its values is that of the largest network: a family lists names so, for they have no order of
    /// their own.
    pub fn largest_is_first(&self) -> bool {
        self.values.first().is_some_and(|value| !value.is_ordered())
    }

    /// The gene in a sentence: `expand ratio of stage 1, block 2`.
    pub fn words(&self) -> String {
        let of = if self.place.is_empty() { "" } else { " of " };
        format!("{}{of}{}", self.dimension.words, self.place)
    }
}
