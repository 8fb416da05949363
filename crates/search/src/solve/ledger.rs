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
    /// Rows that are not in the log, and their places among the new rows.
    unknown: GeneRows,
    missing: Vec<usize>,
}

/// How much of a request was evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Looked {
    AtAll,
    UntilStopped,
    /// The budget does not suffice for the rest.
    UntilSpent,
}

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
            missing: Vec::new(),
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
        let mut prices = self.affordable(rows, fidelity);
        let whole = self.fresh.len();
        self.forget_from(prices.len());
        let affordable = self.fresh.len();
        let left = self.estimate(rows, fidelity, log, stop)?;
        self.forget(&left, first, &mut prices);
        self.enter(rows, fidelity, first, &prices);
        Ok(match left.is_empty() {
            false => Looked::UntilStopped,
            true if affordable < whole => Looked::UntilSpent,
            true => Looked::AtAll,
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

    /// Adds the values of the new rows, from the log or the estimators; returns which of them have none. Each is logged as
    /// soon as it has them.
    fn estimate(
        &mut self,
        rows: &GeneRows,
        fidelity: Fidelity,
        log: &mut dyn Log,
        stop: &AtomicBool,
    ) -> Result<Vec<usize>> {
        let each = self.problem.estimated();
        // a log of another problem has other values
        let fits = |values: &&[MetricValue]| values.len() == each;
        let first = self.values.len();
        self.values.resize(first + self.fresh.len() * each, MetricValue::default());
        self.unknown.clear();
        self.missing.clear();
        for (new, &at) in self.fresh.iter().enumerate() {
            let start = first + new * each;
            match log.known(rows.get(at), fidelity).filter(fits) {
                Some(values) => self.values[start..start + each].copy_from_slice(values),
                None => {
                    self.unknown.push(rows.get(at));
                    self.missing.push(new);
                }
            }
        }
        let Self { problem, unknown, missing, values, .. } = self;
        let mut done = vec![false; missing.len()];
        estimate_each(problem, unknown, fidelity, stop, &mut |place, own| {
            let start = first + missing[place] * each;
            values[start..start + each].copy_from_slice(own);
            done[place] = true;
            log.append(unknown.get(place), fidelity, own)
        })?;
        let left: Vec<usize> =
            (0..done.len()).filter(|place| !done[*place]).map(|place| missing[place]).collect();
        Ok(left)
    }

    /// Removes new rows that have no values; those after them move up.
    fn forget(&mut self, left: &[usize], first: usize, prices: &mut Vec<f64>) {
        if left.is_empty() {
            return;
        }
        let each = self.problem.estimated();
        let is_left = |new: usize| left.binary_search(&new).is_ok();
        let kept: Vec<usize> = (0..self.fresh.len()).filter(|new| !is_left(*new)).collect();
        for &new in left {
            self.places.remove(&self.keys[self.fresh[new]]);
        }
        for (to, &from) in kept.iter().enumerate() {
            let [own, place] = [from, to].map(|new| (first + new) * each);
            self.values.copy_within(own..own + each, place);
            self.fresh[to] = self.fresh[from];
            prices[to] = prices[from];
            self.places.insert(self.keys[self.fresh[to]], first + to);
        }
        self.values.truncate((first + kept.len()) * each);
        self.fresh.truncate(kept.len());
        prices.truncate(kept.len());
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

/// The values of rows from all estimators: from a single one as soon as it has them, from several when all of them do.
fn estimate_each(
    problem: &Problem<'_>,
    rows: &GeneRows,
    fidelity: Fidelity,
    stop: &AtomicBool,
    done: &mut dyn FnMut(usize, &[MetricValue]) -> Result<()>,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    if let [estimator] = problem.estimators() {
        return estimator.estimate_each(rows, fidelity, stop, done);
    }
    let mut estimated = rows.len();
    let mut parts = Vec::with_capacity(problem.estimators().len());
    for estimator in problem.estimators() {
        let values = estimator.estimate(rows, fidelity, stop)?;
        let width = estimator.metrics().len();
        estimated = estimated.min(values.len() / width);
        parts.push((width, values));
    }
    let mut own = Vec::with_capacity(problem.estimated());
    for place in 0..estimated {
        own.clear();
        for (width, values) in &parts {
            own.extend_from_slice(&values[place * width..(place + 1) * width]);
        }
        done(place, &own)?;
    }
    Ok(())
}
