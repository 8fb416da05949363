//! All evaluated rows of a search, each once, with their cost, the best and the front.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use rayon::prelude::*;

use super::{Ended, Outcome, Rise, Scored, View};
use crate::archive::{ArchivedPoint, Best, Front};
use crate::error::Result;
use crate::genes::{ByHash, hash};
use crate::log::Log;
use crate::metric::{Fidelity, MetricValue};
use crate::problem::Problem;
use crate::rows::GeneRows;

/// All evaluated rows.
pub(super) struct Ledger<'a> {
    problem: &'a Problem<'a>,
    /// The place of each row's values.
    places: ByHash<usize>,
    values: Vec<MetricValue>,
    best: Best,
    front: Front,
    pub spent: f64,
    trace: Vec<Rise>,
    /// For the last request: the rows' keys, the places of their values, and which are new.
    keys: Vec<u64>,
    asked: Vec<usize>,
    fresh: Vec<usize>,
    /// Rows that are not in the log.
    unknown: GeneRows,
}

/// How much of a request was evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    AtAll,
    UntilStopped,
    /// The budget does not suffice for the rest.
    UntilSpent,
}

/// An estimator's number of values per row, and the values.
type Part = (usize, Vec<MetricValue>);

/// Rows that one thread compares with the limits in one piece.
const COMPARED_AT_ONCE: usize = 256;

impl<'a> Ledger<'a> {
    pub fn new(problem: &'a Problem<'a>) -> Self {
        Self {
            problem,
            places: HashMap::default(),
            values: Vec::new(),
            best: Best::default(),
            front: Front::new(problem.goals()),
            spent: 0.0,
            trace: Vec::new(),
            keys: Vec::new(),
            asked: Vec::new(),
            fresh: Vec::new(),
            unknown: GeneRows::new(problem.genome().len()),
        }
    }

    pub fn view(&self) -> View<'_> {
        View { best: self.best.points(), front: self.front.points(), count: self.places.len() }
    }

    pub fn scored<'s>(&'s self, rows: &'s GeneRows) -> Scored<'s> {
        let Self { problem, keys, values, asked: places, fresh, .. } = self;
        let each = problem.estimated();
        let fresh = fresh.len();
        Scored { problem, rows, keys, values, each, places, fresh }
    }

    /// Evaluates each row once, in their order, until the budget is spent.
    pub fn look(
        &mut self,
        rows: &GeneRows,
        fidelity: Fidelity,
        log: &mut dyn Log,
        stop: &AtomicBool,
    ) -> Result<Looked> {
        debug_assert!(rows.iter().all(|row| self.problem.genome().holds(row)));
        let first = self.places.len();
        self.find(rows, fidelity);
        let prices = self.affordable(rows, fidelity);
        let whole = self.fresh.len();
        self.forget_from(prices.len());
        let looked = self.estimate(rows, fidelity, log, stop)?;
        let affordable = self.fresh.len();
        self.forget_from(looked);
        self.enter(rows, fidelity, first, &prices[..looked]);
        Ok(match looked {
            looked if looked < affordable => Looked::UntilStopped,
            looked if looked < whole => Looked::UntilSpent,
            _ => Looked::AtAll,
        })
    }

    /// The prices of the new rows, up to the one that spends the budget.
    fn affordable(&self, rows: &GeneRows, fidelity: Fidelity) -> Vec<f64> {
        let mut prices = Vec::with_capacity(self.fresh.len());
        let mut spent = self.spent;
        for &row in &self.fresh {
            if spent >= self.problem.budget {
                break;
            }
            let price = self.problem.price(rows.get(row), fidelity);
            spent += price;
            prices.push(price);
        }
        prices
    }

    /// Removes new rows that are not evaluated.
    fn forget_from(&mut self, first: usize) {
        for &row in &self.fresh[first..] {
            self.places.remove(&self.keys[row]);
        }
        self.fresh.truncate(first);
    }

    /// Finds the places of the rows' values, and adds places for new rows.
    fn find(&mut self, rows: &GeneRows, fidelity: Fidelity) {
        let Self { places, keys, asked, fresh, .. } = self;
        keys.clear();
        asked.clear();
        fresh.clear();
        for (at, row) in rows.iter().enumerate() {
            let key = fidelity.mixed_with(hash(row));
            let next = places.len();
            let place = *places.entry(key).or_insert(next);
            if place == next {
                fresh.push(at);
            }
            keys.push(key);
            asked.push(place);
        }
    }

    /// Adds the values of the new rows, from the log or the estimators; returns their number.
    fn estimate(
        &mut self,
        rows: &GeneRows,
        fidelity: Fidelity,
        log: &mut dyn Log,
        stop: &AtomicBool,
    ) -> Result<usize> {
        let each = self.problem.estimated();
        // a log of another problem has other values
        let fits = |values: &&[MetricValue]| values.len() == each;
        self.unknown.clear();
        for &at in self.fresh.iter().filter(|at| log.known(rows.get(**at), fidelity).filter(fits).is_none()) {
            self.unknown.push(rows.get(at));
        }
        let (parts, estimated) = self.estimate_unknown(fidelity, stop)?;
        let mut unknown = 0;
        for (looked, &at) in self.fresh.iter().enumerate() {
            let row = rows.get(at);
            if let Some(values) = log.known(row, fidelity).filter(fits) {
                self.values.extend_from_slice(values);
                continue;
            }
            if unknown == estimated {
                return Ok(looked);
            }
            for (width, values) in &parts {
                self.values.extend_from_slice(&values[unknown * width..(unknown + 1) * width]);
            }
            unknown += 1;
            log.append(row, fidelity, &self.values[self.values.len() - each..])?;
        }
        Ok(self.fresh.len())
    }

    /// Each estimator's values of the rows that are not in the log, with its number of values per row; and the number
    /// of rows that all of them estimated.
    fn estimate_unknown(&self, fidelity: Fidelity, stop: &AtomicBool) -> Result<(Vec<Part>, usize)> {
        let mut estimated = self.unknown.len();
        let mut parts = Vec::with_capacity(self.problem.estimators().len());
        if estimated == 0 {
            return Ok((parts, 0));
        }
        for estimator in self.problem.estimators() {
            let values = estimator.estimate(&self.unknown, fidelity, stop)?;
            let width = estimator.metrics().len();
            estimated = estimated.min(values.len() / width);
            parts.push((width, values));
        }
        Ok((parts, estimated))
    }

    /// Pays for the new rows, and enters those that keep all limits, if they were fully evaluated.
    fn enter(&mut self, rows: &GeneRows, fidelity: Fidelity, first: usize, prices: &[f64]) {
        if fidelity != Fidelity::FULL {
            self.spent += prices.iter().sum::<f64>();
            return;
        }
        let problem = self.problem;
        let each = self.problem.estimated();
        let values = &self.values[first * each..];
        let fresh = self.fresh.par_iter().enumerate().with_min_len(COMPARED_AT_ONCE);
        let kept = fresh.map(|(new, row)| {
            let estimated = &values[new * each..(new + 1) * each];
            problem.judged(rows.get(*row), estimated)
        });
        let kept: Vec<_> = kept.collect();
        for (new, merits) in kept.into_iter().enumerate() {
            self.spent += prices[new];
            let Some(merits) = merits else { continue };
            let row = rows.get(self.fresh[new]);
            let estimated = &values[new * each..(new + 1) * each];
            if self.best.points().first().is_none_or(|best| merits[0] > best.merits[0]) {
                let count = first + new + 1;
                self.trace.push(Rise { count, spent: self.spent, row: row.to_vec(), merit: merits[0] });
            }
            self.front.enter(row, merits, estimated);
            self.best.enter(row, merits, estimated);
        }
    }

    pub fn outcome(self, ended: Ended, bound: Option<f64>) -> Outcome {
        let solutions = |points: &[ArchivedPoint]| {
            points.iter().map(|point| self.problem.solution(&point.row, &point.estimated)).collect()
        };
        Outcome {
            top: solutions(self.best.points()),
            front: solutions(self.front.points()),
            count: self.places.len(),
            spent: self.spent,
            trace: self.trace,
            ended,
            bound,
        }
    }
}
