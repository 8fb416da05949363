//! A lower bound on the factor by which every sub-network exceeds several limits together.
//!
//! For multipliers that are not negative and sum to 1, a sub-network that keeps all limits has a weighted sum of its
//! costs, each as a share of its limit, of at most 1. The least weighted sum of all sub-networks is exact
//! ([`CostIndex::least_of`]); if it is above 1, no sub-network keeps the limits (Lagrange's relaxation). The best
//! multipliers are found by cutting planes: each minimizer is a plane above the bound, and the best multipliers for the
//! planes so far are tried next (Kelley 1960). Memory is the maximum over the blocks and not a sum: values above its
//! limit are forbidden, which is exact too.

use space::{Index, Table};

use super::index::Costs;
use super::prices::{Column, Priced, Prices};
use super::quantity::Quantity;

/// The bound at one resolution.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    /// The least weighted sum of costs as shares of their limits; infinite if memory rules all out. Every sub-network
    /// that keeps the limit on memory has at least one cost of this many times its limit.
    pub factor: f64,
    /// The multipliers that prove it.
    pub multipliers: Vec<(Column, f64)>,
    /// The sub-networks with the least weighted sums found on the way: good starting points for one that keeps the
    /// limits.
    pub minimizers: Vec<Vec<Index>>,
}

/// Beyond rounding, a factor above this is a proof.
const PROVED: f64 = 1.0 + 1e-9;
/// Planes after which the bound is good enough; it is exact after about 10.
const MOST_PLANES: usize = 64;
/// Required distance between the bound and the best that the planes allow.
const CLOSE: f64 = 1e-10;
/// Steps of the simplex method; it takes about as many as there are planes.
const MOST_PIVOTS: usize = 1000;

impl Bound {
    /// Whether no sub-network of the resolution keeps the limits.
    pub fn is_proof(&self) -> bool {
        self.factor > PROVED
    }

    /// The best bound of a resolution.
    pub fn of(prices: &Prices<'_>, resolution: usize) -> Self {
        let sums: Vec<_> = prices
            .limits()
            .filter(|(column, _): &(Column, f64)| column.quantity != Quantity::Memory)
            .collect();
        let mut best = Self { factor: 0.0, multipliers: Vec::new(), minimizers: Vec::new() };
        if sums.is_empty() {
            return best;
        }
        let mut planes = Vec::new();
        let mut ceiling = f64::INFINITY;
        let mut multipliers = vec![1.0 / sums.len() as f64; sums.len()];
        while planes.len() < MOST_PLANES {
            let (value, genes) = least(prices, resolution, &multipliers);
            if planes.is_empty() || value > best.factor {
                best.factor = value;
                best.multipliers =
                    sums.iter().zip(&multipliers).map(|(sum, share)| (sum.0, *share)).collect();
            }
            if value.is_infinite() || value >= ceiling - CLOSE {
                best.minimizers.push(genes);
                break;
            }
            planes.push(sums.iter().map(|(column, limit)| prices.of(*column, &genes) / limit).collect());
            best.minimizers.push(genes);
            (ceiling, multipliers) = game(&planes);
        }
        best.minimizers.sort();
        best.minimizers.dedup();
        best
    }
}

/// The least weighted sum of costs as shares of their limits, among sub-networks that keep the limit on memory, with
/// its row.
fn least(prices: &Prices<'_>, resolution: usize, multipliers: &[f64]) -> (f64, Vec<Index>) {
    let mut shares = multipliers.iter();
    let mut terms: Option<Vec<Table<f64>>> = None;
    for priced in prices.iter().filter(|priced| !priced.limits.is_empty()) {
        let own = weighted(priced, resolution, &mut shares);
        match &mut terms {
            None => terms = Some(own),
            Some(terms) => terms.iter_mut().zip(own).for_each(|(all, own)| add(all, &own)),
        }
    }
    let terms = terms.expect("something is limited");
    prices.first().least_of(resolution, terms, |sum, more| sum + more)
}

/// An index's terms as weighted sums; infinite where the limit on memory is broken.
fn weighted<'m>(
    priced: &Priced<'_>,
    resolution: usize,
    shares: &mut impl Iterator<Item = &'m f64>,
) -> Vec<Table<f64>> {
    let sums = priced.limits.iter().filter(|(quantity, _)| *quantity != Quantity::Memory);
    let weights: Vec<_> =
        sums.zip(shares).map(|((quantity, limit), share)| (*quantity, share / limit)).collect();
    let memory = priced.limits.iter().find(|(quantity, _)| *quantity == Quantity::Memory);
    let memory = memory.map_or(f64::INFINITY, |(_, limit)| *limit);
    priced
        .index
        .terms_at(resolution)
        .iter()
        .map(|term| {
            term.map(|costs: &Costs| match costs.of(Quantity::Memory) > memory {
                true => f64::INFINITY,
                false => weights.iter().map(|(quantity, weight)| weight * costs.of(*quantity)).sum(),
            })
        })
        .collect()
}

/// Adds another index's term to the one over the same genes.
fn add(term: &mut Table<f64>, other: &Table<f64>) {
    debug_assert_eq!((&term.vars, &term.sizes), (&other.vars, &other.sizes));
    term.cells.iter_mut().zip(&other.cells).for_each(|(cell, more)| *cell += more);
}

/// The multipliers with the greatest least weighted sum of the planes, and that sum: the value of a matrix game for the
/// player who chooses rows (von Neumann), by the simplex method for the other player.
fn game(planes: &[Vec<f64>]) -> (f64, Vec<f64>) {
    let rows = planes[0].len();
    let columns = planes.len();
    // all entries above 0: then the value is too, and the game stays the same
    let lowest = planes.iter().flatten().fold(f64::INFINITY, |low, entry| low.min(*entry));
    let shift = 1.0 - lowest.min(1.0);
    let last = columns + rows;
    // maximize the sum of the columns' variables, each row's sum at most 1: [columns | slacks | right side]
    let mut tableau = vec![vec![0.0; last + 1]; rows + 1];
    for row in 0..rows {
        (0..columns).for_each(|column| tableau[row][column] = planes[column][row] + shift);
        (tableau[row][columns + row], tableau[row][last]) = (1.0, 1.0);
    }
    tableau[rows][..columns].fill(-1.0);
    // Bland's rule: the first column that improves, which almost never cycles
    for _ in 0..MOST_PIVOTS {
        let Some(column) = (0..last).find(|column| tableau[rows][*column] < -1e-12) else { break };
        let ratio = |row: &usize| tableau[*row][last] / tableau[*row][column];
        let leaving = (0..rows).filter(|row| tableau[*row][column] > 1e-12);
        let Some(row) = leaving.min_by(|a, b| ratio(a).total_cmp(&ratio(b))) else { break };
        pivot(&mut tableau, row, column);
    }
    let total = tableau[rows][last];
    let multipliers: Vec<f64> =
        tableau[rows][columns..last].iter().map(|share| (share / total).max(0.0)).collect();
    let sum: f64 = multipliers.iter().sum();
    (1.0 / total - shift, multipliers.into_iter().map(|share| share / sum).collect())
}

fn pivot(tableau: &mut [Vec<f64>], row: usize, column: usize) {
    let scale = tableau[row][column];
    tableau[row].iter_mut().for_each(|entry| *entry /= scale);
    let pivot = tableau[row].clone();
    for (_, other) in tableau.iter_mut().enumerate().filter(|(index, _)| *index != row) {
        let factor = other[column];
        other.iter_mut().zip(&pivot).for_each(|(entry, pivot)| *entry -= factor * pivot);
    }
}
