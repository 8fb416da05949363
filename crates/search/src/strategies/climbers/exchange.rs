//! Minimizes a cost under a limit on a predicted metric: climbs optimize the metric under limits on the cost, between
//! which the least sufficient cost lies (bisection); then one climb after the other runs just below the best.
//!
//! Costs are compared by the upper ends of their intervals, as limits are.

use super::SearchConfig;
use crate::prices::{Column, Prices};
use crate::solve::View;

/// Limits that are tried between the least cost and the best known one.
const HALVINGS: usize = 10;
/// Distance between the ends at which bisection stops, as a share of the upper one.
const CLOSE: f64 = 1e-3;
/// Distance of each further limit below the best, as a share.
const BELOW: f64 = 1e-9;

/// The interval of the least sufficient cost.
pub(super) struct Exchange {
    /// The cost to minimize.
    pub column: Column,
    /// No climb under a limit below this reached the target.
    low: f64,
    /// The best cost that is known to suffice.
    high: f64,
    /// The limit of the last climb.
    tried: f64,
    halvings: usize,
    closing: bool,
}

impl Exchange {
    pub fn new(prices: &Prices<'_>, column: Column) -> Self {
        let (_, low) = prices.least(column);
        let high = f64::INFINITY;
        Self { column, low, high, tried: high, halvings: 0, closing: false }
    }

    /// Candidates of the next climb.
    pub fn candidates(&self, config: &SearchConfig) -> usize {
        if self.closing { config.candidates } else { config.front_candidates }
    }

    /// The limits of the next climb, after one under the last; `None` if there is none.
    pub fn next<'a>(&mut self, prices: &Prices<'a>, view: &View<'_>) -> Option<Prices<'a>> {
        let best = prices.of(self.column, &view.best().first()?.row);
        let better = best < self.high;
        self.high = self.high.min(best);
        if self.closing && !better {
            return None;
        }
        if !better {
            self.low = self.low.max(self.tried);
        }
        let close = self.high - self.low <= CLOSE * self.high || self.halvings == HALVINGS;
        self.closing |= close;
        self.halvings += 1;
        self.tried = if self.closing { self.high * (1.0 - BELOW) } else { 0.5 * (self.low + self.high) };
        Some(prices.within(self.column, self.tried))
    }
}
