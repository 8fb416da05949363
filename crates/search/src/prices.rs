//! Limits on costs that are sums and maxima over few genes, checked row by row.

use std::fmt;

use space::{GeneRow, Genome, Index, SearchSpace};

use super::index::{CostIndex, Costs};
use super::quantity::{Quantity, amount};
use crate::error::{Error, Nearest, Result};

/// An index, and the limits on its costs.
#[derive(Clone, Debug)]
pub(super) struct Priced<'a> {
    pub index: &'a CostIndex,
    /// In the order of [`Quantity::ALL`].
    pub limits: Vec<(Quantity, f64)>,
}

impl Priced<'_> {
    fn keeps(&self, row: &GeneRow) -> bool {
        self.limits.is_empty() || self.keeps_costs(&self.index.costs_of(row))
    }

    fn keeps_costs(&self, costs: &Costs) -> bool {
        self.limits.iter().all(|(quantity, limit)| costs.of(*quantity) <= *limit)
    }

    /// The limited costs, as shares of the limits.
    fn shares(&self, row: &GeneRow) -> impl Iterator<Item = f64> + '_ {
        let costs = self.index.costs_of(row);
        self.limits.iter().map(move |(quantity, limit)| costs.of(*quantity) / limit)
    }
}

/// The place of a cost: which index, and which of its quantities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub index: usize,
    pub quantity: Quantity,
}

/// All indices of a problem, of one space.
#[derive(Clone, Debug)]
pub(super) struct Prices<'a>(Vec<Priced<'a>>);

impl<'a> Prices<'a> {
    /// Indices of one space without limits.
    pub fn new(indices: Vec<&'a CostIndex>) -> Self {
        Self(indices.into_iter().map(|index| Priced { index, limits: Vec::new() }).collect())
    }

    /// The indices with their limits.
    pub fn iter(&self) -> impl Iterator<Item = &Priced<'a>> {
        self.0.iter()
    }

    /// Whether there is none: then there are no limits either.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first index, for facts that all share; only where there is one.
    pub fn first(&self) -> &'a CostIndex {
        self.0[0].index
    }

    /// The searched space.
    pub fn space(&self) -> &'a SearchSpace {
        self.first().space()
    }

    /// The list of its choices.
    pub fn genome(&self) -> &'a Genome {
        self.first().genome()
    }

    /// The value of a column that is compared with a limit.
    pub fn of(&self, column: Column, row: &GeneRow) -> f64 {
        self.0[column.index].index.costs_of(row).of(column.quantity)
    }

    /// The expected value of a column.
    pub fn mean(&self, column: Column, row: &GeneRow) -> f64 {
        self.0[column.index].index.costs_of(row).value(column.quantity).mean
    }

    /// The row with the least of a column, and the value.
    pub fn least(&self, column: Column) -> (Vec<Index>, f64) {
        let (row, costs) = self.0[column.index].index.least_row(column.quantity);
        (row, costs.of(column.quantity))
    }

    /// The same prices with a limit on a column, in place of an existing one.
    #[must_use]
    pub fn within(&self, column: Column, most: f64) -> Self {
        let mut all = self.clone();
        let limits = &mut all.0[column.index].limits;
        limits.retain(|(quantity, _)| *quantity != column.quantity);
        limits.push((column.quantity, most));
        limits.sort_by_key(|(quantity, _)| *quantity);
        all
    }

    /// All limits.
    pub fn limits(&self) -> impl Iterator<Item = (Column, f64)> + '_ {
        self.0.iter().enumerate().flat_map(|(index, priced)| {
            let limits = priced.limits.iter();
            limits.map(move |(quantity, limit)| (Column { index, quantity: *quantity }, *limit))
        })
    }

    /// Whether memory is limited.
    pub fn limit_memory(&self) -> bool {
        self.limits().any(|(column, _)| column.quantity == Quantity::Memory)
    }

    /// Whether a row keeps all limits.
    pub fn keeps(&self, row: &GeneRow) -> bool {
        self.0.iter().all(|priced| priced.keeps(row))
    }

    /// Whether a row keeps all limits, given its costs in the first index.
    pub fn keeps_with(&self, first: &Costs, row: &GeneRow) -> bool {
        self.0[0].keeps_costs(first) && self.0[1..].iter().all(|priced| priced.keeps(row))
    }

    /// The violation of the limits: the sum of the shares by which each is exceeded; 0 if all are kept.
    pub fn violation(&self, row: &GeneRow) -> f64 {
        self.0.iter().flat_map(|priced| priced.shares(row)).map(|share| (share - 1.0).max(0.0)).sum()
    }

    /// The factor for all limits with which a row keeps them.
    pub fn factor(&self, row: &GeneRow) -> f64 {
        self.0.iter().flat_map(|priced| priced.shares(row)).fold(0.0, f64::max)
    }

    /// A column's name in messages.
    pub fn label(&self, column: Column) -> String {
        self.0[column.index].index.label(column.quantity)
    }

    /// Checks exactly that each limit alone is kept by some sub-network.
    ///
    /// # Errors
    /// [`Error::Infeasible`] with the least value of the first quantity whose limit none keeps.
    pub fn check_each(&self) -> Result<()> {
        for (column, limit) in self.limits() {
            let (row, value) = self.least(column);
            if value > limit {
                let quantity = self.label(column);
                let text = column.quantity.text(value);
                let nearest = Box::new(Nearest { quantity, value, text, arch: self.space().arch(&row) });
                return Err(Error::Infeasible { limit: amount(column.quantity, limit), nearest });
            }
        }
        Ok(())
    }

    /// The limited quantities of a row, for a message.
    pub fn describe(&self, row: &GeneRow) -> String {
        let mut texts = Vec::new();
        for (column, _) in self.limits() {
            texts.push(format!("{} {}", self.label(column), column.quantity.text(self.of(column, row))));
        }
        texts.join(", ")
    }
}

impl fmt::Display for Prices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (column, limit)) in self.limits().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{} {}", self.label(column), amount(column.quantity, limit))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{index_of, priced};
    use latency::testing::made_up;
    use space::preset;

    #[test]
    fn an_infeasible_limit_names_the_nearest_feasible() {
        let space = preset("fashion").expect("a preset");
        let index = index_of(&space, &made_up(&space));
        for quantity in Quantity::ALL {
            let least = index.least(quantity).1.of(quantity);
            let check = |value| priced(&index, &[(quantity, value)]).check_each();
            check(least).expect("the least is feasible");
            match check(0.99 * least) {
                Err(Error::Infeasible { nearest, .. }) => {
                    assert_eq!(nearest.value, least);
                    let again = quantity.parse(&nearest.text).expect("an amount");
                    check(again).expect("what the message says is feasible");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
