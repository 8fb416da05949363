//! The one loop of every search: a strategy asks for sub-networks and is told of them. The loop looks at each once, keeps
//! the budget, the log, the best and the front, and says why it ended.
//!
//! Knows nothing of how a strategy chooses.
//!
//! A strategy sees nothing of time, threads and the rest of the budget, so that a search that goes on asks for the same rows
//! again, is told of them from the log, and ends as if it had never stopped. Costs are not stored: they are a few additions, and
//! limits on them are kept before anything is estimated.

mod ledger;

use std::sync::atomic::{self, AtomicBool};

use super::archive::ArchivedPoint;
use super::candidate::Candidate;
use super::log::Log;
use super::metric::{Fidelity, MetricValue};
use super::problem::Problem;
use super::rows::GeneRows;
use crate::error::Result;
use ledger::Ledger;

/// Chooses which sub-networks to look at.
///
/// The same seed has to give the same rows, at any number of threads: a strategy sees nothing of time, threads and what is
/// left of the budget. A search that goes on asks for all rows again and is told of them from the log.
pub trait Strategy {
    /// Adds the rows that it would like to know more of, and says how closely to look. No rows are told of as well.
    ///
    /// # Errors
    /// If a predictor that it asks by itself fails.
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity>;

    /// Learns what was asked for.
    ///
    /// # Errors
    /// As [`Strategy::ask`].
    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()>;

    /// Whether it has ended, and what that proves.
    fn finished(&self) -> Option<Proof>;
}

/// What it proves that a strategy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it looked for long and found nothing better.
    None,
    /// That no sub-network is better than the best.
    Best,
}

/// What a strategy sees of the search so far; not how much of the budget is left.
pub struct View<'s> {
    best: &'s [ArchivedPoint],
    front: &'s [ArchivedPoint],
    count: usize,
}

impl View<'_> {
    /// The best that keep all limits, best first.
    pub fn best(&self) -> &[ArchivedPoint] {
        self.best
    }

    /// What nothing that keeps all limits is better than for both goals: by the second, best first.
    pub fn front(&self) -> &[ArchivedPoint] {
        self.front
    }

    /// Number of different sub-networks that were looked at.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// What is known of the rows that were asked for.
pub struct Scored<'s> {
    problem: &'s Problem<'s>,
    /// The rows.
    pub rows: &'s GeneRows,
    keys: &'s [u64],
    values: &'s [MetricValue],
    /// How many values there are of a row, and where each row's lie.
    each: usize,
    places: &'s [usize],
    /// How many of them had not been looked at before.
    pub fresh: usize,
}

impl Scored<'_> {
    /// A number for a row, which two share only by a chance of 2^-64.
    pub fn key(&self, row: usize) -> u64 {
        self.keys[row]
    }

    /// What estimators say of a row: the values of all their metrics but those of factored costs.
    pub fn estimated(&self, row: usize) -> &[MetricValue] {
        let start = self.places[row] * self.each;
        &self.values[start..start + self.each]
    }

    /// The value of a metric for a row.
    pub fn value(&self, row: usize, metric: usize) -> MetricValue {
        self.problem.value(metric, self.rows.get(row), self.estimated(row))
    }

    /// What a row is worth for each goal, the greater the better.
    pub fn merits(&self, row: usize) -> [f64; 2] {
        self.problem.merits(self.rows.get(row), self.estimated(row))
    }

    /// Whether a row keeps all limits.
    pub fn keeps(&self, row: usize) -> bool {
        let genes = self.rows.get(row);
        self.problem.keeps_costs(genes) && self.problem.keeps_estimated(genes, self.estimated(row))
    }
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The strategy was finished.
    Finished(Proof),
    /// The budget was spent.
    Budget,
    /// It was told to stop.
    Stopped,
}

/// What came of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The best that keep all limits, best first: [`TOP`](super::TOP) of them where there are so many; empty if none was met.
    pub top: Vec<Candidate>,
    /// What nothing that was met and keeps all limits is better than for both goals: by the second, best first.
    pub front: Vec<Candidate>,
    /// Number of different sub-networks that were looked at.
    pub count: usize,
    /// What the estimates cost.
    pub spent: f64,
    /// The merit of the best for the first goal, each time it rose: after how many sub-networks, and to what.
    pub trace: Vec<(usize, f64)>,
    /// Why it ended.
    pub ended: Ended,
}

impl Outcome {
    /// The best that was met.
    pub fn best(&self) -> Option<&Candidate> {
        self.top.first()
    }
}

/// Searches until the strategy is finished, the budget is spent, or `stop` is set; what was asked for first is looked at in
/// any case.
///
/// # Errors
/// [`crate::Error::Infeasible`] if one limit on a cost alone rules everything out; or as the strategy, the estimators and
/// the log.
pub fn solve(
    problem: &Problem<'_>,
    strategy: &mut dyn Strategy,
    log: &mut dyn Log,
    stop: &AtomicBool,
) -> Result<Outcome> {
    problem.prices().check_each()?;
    let mut ledger = Ledger::new(problem);
    let mut rows = GeneRows::new(problem.genome().len());
    let ended = loop {
        if let Some(proof) = strategy.finished() {
            break Ended::Finished(proof);
        }
        rows.clear();
        let fidelity = strategy.ask(&ledger.view(), &mut rows)?;
        if !ledger.look(&rows, fidelity, log, stop)? {
            break Ended::Stopped;
        }
        strategy.tell(&ledger.view(), &ledger.scored(&rows))?;
        if stop.load(atomic::Ordering::Relaxed) {
            break Ended::Stopped;
        }
        if ledger.spent >= problem.budget {
            break Ended::Budget;
        }
    };
    Ok(ledger.outcome(ended))
}
