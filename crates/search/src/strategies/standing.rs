//! The order of evaluated rows by limits first, then by goals.

use std::cmp::Ordering;

use crate::problem::Merits;
use crate::solve::Scored;

/// How good a row is: one that keeps the limits is better than one that does not, a lower violation is better than a
/// higher one, and of rows that keep them the goals decide, in their order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    /// 0 if all limits are kept.
    pub violation: f64,
    pub merits: Merits,
}

impl Standing {
    /// The standing of a requested row.
    pub fn of(scored: &Scored<'_>, row: usize) -> Self {
        Self { violation: scored.violation(row), merits: scored.merits(row) }
    }

    /// [`Ordering::Greater`] if it is better than the other.
    pub fn order(&self, other: &Self) -> Ordering {
        let by_goals = || {
            let pairs = self.merits.iter().zip(&other.merits).map(|(own, theirs)| own.total_cmp(theirs));
            pairs.fold(Ordering::Equal, Ordering::then)
        };
        other.violation.total_cmp(&self.violation).then_with(by_goals)
    }

    /// Whether it is better than the other.
    pub fn beats(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Greater
    }
}
