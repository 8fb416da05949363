//! The loop of every search: a strategy requests sub-networks and receives their values. The loop evaluates each once,
//! maintains the budget, the log, the best and the front, and reports why it ended.
//!
//! It does not know how a strategy chooses.
//!
//! A strategy sees no time, no threads and not the rest of the budget, so a resumed search requests the same rows
//! again, receives them from the log, and ends as if it had never stopped. Costs are not stored: they are a few
//! additions, and limits on them are checked before anything is estimated.

mod ledger;

use std::sync::atomic::{self, AtomicBool};

use super::archive::{ArchivedPoint, Solution};
use super::log::Log;
use super::metric::{Fidelity, MetricValue};
use super::problem::{Merits, Problem};
use super::rows::GeneRows;
use crate::error::Result;
use ledger::{Ledger, Looked};

/// Chooses which sub-networks to evaluate.
///
/// The same seed must give the same rows, at any number of threads: a strategy sees no time, no threads and not the
/// rest of the budget. A resumed search requests all rows again and receives them from the log.
pub trait Strategy {
    /// Adds the requested rows, and returns their fidelity. An empty request is answered as well.
    ///
    /// # Errors
    /// If a predictor that it calls itself fails.
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity>;

    /// Receives the values of the requested rows.
    ///
    /// # Errors
    /// As [`Strategy::ask`].
    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()>;

    /// Whether it has ended, and what that proves.
    fn finished(&self) -> Option<Proof>;

    /// A bound on the merits of all rows that it has not requested, if it knows one.
    fn bound(&self) -> Option<f64> {
        None
    }
}

/// The meaning of a strategy's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// No proof: a long search found nothing better.
    None,
    /// Proof that no sub-network is better than the best.
    Best,
}

/// The state of the search that a strategy sees; not the rest of the budget.
pub struct View<'s> {
    best: &'s [ArchivedPoint],
    front: &'s [ArchivedPoint],
    count: usize,
}

impl View<'_> {
    /// The best rows that keep all limits, best first.
    pub fn best(&self) -> &[ArchivedPoint] {
        self.best
    }

    /// The front of rows that keep all limits, over all goals: by the second, best first.
    pub fn front(&self) -> &[ArchivedPoint] {
        self.front
    }

    /// Number of evaluations: of each row at each fidelity once.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// The values of the requested rows.
pub struct Scored<'s> {
    problem: &'s Problem<'s>,
    /// The rows.
    pub rows: &'s GeneRows,
    keys: &'s [u64],
    values: &'s [MetricValue],
    /// Number of values per row, and the place of each row's values.
    each: usize,
    places: &'s [usize],
    /// Number of rows that had not been evaluated before.
    pub fresh: usize,
}

impl Scored<'_> {
    /// A hash of a row; two rows share it with a chance of 2^-64.
    pub fn key(&self, row: usize) -> u64 {
        self.keys[row]
    }

    /// The estimated values of a row: all metrics but factored costs.
    pub fn estimated(&self, row: usize) -> &[MetricValue] {
        let start = self.places[row] * self.each;
        &self.values[start..start + self.each]
    }

    /// The value of a metric for a row.
    pub fn value(&self, row: usize, metric: usize) -> MetricValue {
        self.problem.value(metric, self.rows.get(row), self.estimated(row))
    }

    /// A row's merits for the goals.
    pub fn merits(&self, row: usize) -> Merits {
        self.problem.merits(self.rows.get(row), self.estimated(row))
    }

    /// The violation of all limits: the sum of the shares by which each is exceeded; 0 if all are kept.
    pub fn violation(&self, row: usize) -> f64 {
        self.problem.violation(self.rows.get(row), self.estimated(row))
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
    /// The strategy finished.
    Finished(Proof),
    /// The budget was spent: the last evaluated row reached or exceeded it.
    Budget,
    /// It was stopped.
    Stopped,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The best rows that keep all limits, best first, at most [`TOP`](super::TOP); empty if none was found.
    pub top: Vec<Solution>,
    /// The front of rows that keep all limits, over all goals: by the second, best first.
    pub front: Vec<Solution>,
    /// Number of evaluations: of each row at each fidelity once.
    pub count: usize,
    /// The cost of the estimates.
    pub spent: f64,
    /// Each rise of the best merit for the first goal.
    pub trace: Vec<Rise>,
    /// Why it ended.
    pub ended: Ended,
    /// No row has a greater merit for the first goal than this or the best, if the strategy knows such a bound.
    pub bound: Option<f64>,
}

impl Outcome {
    /// The best row.
    pub fn best(&self) -> Option<&Solution> {
        self.top.first()
    }
}

/// A rise of the best merit for the first goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Rise {
    /// Number of evaluations so far, this one included.
    pub count: usize,
    /// The cost of their estimates.
    pub spent: f64,
    /// The row.
    pub row: Vec<space::Index>,
    /// Its merit.
    pub merit: f64,
}

/// Requests of known rows only, in a row, after which a strategy has nothing left to evaluate.
const MOST_IDLE: usize = 1000;

/// Searches until the strategy finishes, the budget is spent, or `stop` is set. Of a request, the rows are evaluated in
/// order, and none after the one that spends the budget. A strategy that requests known rows only, a thousand times in a
/// row, has finished.
///
/// # Errors
/// [`crate::Error::Infeasible`] if one limit on a cost alone rules everything out, or an error of the strategy, the
/// estimators or the log.
pub fn solve(
    problem: &Problem<'_>,
    strategy: &mut dyn Strategy,
    log: &mut dyn Log,
    stop: &AtomicBool,
) -> Result<Outcome> {
    problem.prices().check_each()?;
    let mut ledger = Ledger::new(problem);
    let mut rows = GeneRows::new(problem.genome().len());
    let mut idle = 0;
    let ended = loop {
        if let Some(proof) = strategy.finished() {
            break Ended::Finished(proof);
        }
        rows.clear();
        let fidelity = strategy.ask(&ledger.view(), &mut rows)?;
        match ledger.look(&rows, fidelity, log, stop)? {
            Looked::AtAll => {}
            Looked::UntilStopped => break Ended::Stopped,
            Looked::UntilSpent => break Ended::Budget,
        }
        let scored = ledger.scored(&rows);
        if scored.fresh > 0 {
            idle = 0;
        } else if !rows.is_empty() {
            idle += 1;
        }
        strategy.tell(&ledger.view(), &scored)?;
        if stop.load(atomic::Ordering::Relaxed) {
            break Ended::Stopped;
        }
        if strategy.finished().is_some() {
            continue;
        }
        if ledger.spent >= problem.budget {
            break Ended::Budget;
        }
        if idle == MOST_IDLE {
            break Ended::Finished(Proof::None);
        }
    };
    let bound = strategy.bound().filter(|bound| bound.is_finite());
    let best = ledger.view().best().first().map(|point| point.merits[0]);
    // what is left cannot be better, nor as good
    let open = matches!(ended, Ended::Budget | Ended::Finished(Proof::None));
    let proved = open && bound.zip(best).is_some_and(|(bound, best)| bound < best);
    Ok(ledger.outcome(if proved { Ended::Finished(Proof::Best) } else { ended }, bound))
}
