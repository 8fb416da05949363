//! One run of a strategy on a table, with all that it evaluated in order.

use std::sync::atomic::AtomicBool;

use search::{Ended, Estimator, Fidelity, Log, MetricValue, Problem, Proof, Solution, StrategyKind, solve};
use space::{GeneRow, Index};

use crate::Result;
use crate::problem_file::{Competitor, ProblemFile};
use crate::table::TableEstimator;

/// A row that a run evaluated at full fidelity.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPoint {
    /// The price of the run so far, with this row's.
    pub spent: f64,
    /// The row.
    pub row: Vec<Index>,
}

/// The course of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// All rows that were evaluated at full fidelity, in order.
    pub points: Vec<RunPoint>,
    /// Number of evaluations, at all fidelities.
    pub evaluations: usize,
    /// The price of the whole run.
    pub spent: f64,
    /// The best row that keeps the limits.
    pub best: Option<Solution>,
    /// Whether the strategy proved that it is the best.
    pub proved: bool,
}

/// Records what is evaluated, in order.
struct Recorder<'a> {
    estimator: &'a TableEstimator<'a>,
    run: Run,
}

impl Log for Recorder<'_> {
    fn known(&self, _row: &GeneRow, _fidelity: Fidelity) -> Option<&[MetricValue]> {
        None
    }

    fn append(&mut self, row: &GeneRow, fidelity: Fidelity, _values: &[MetricValue]) -> search::Result<()> {
        self.run.spent += self.estimator.price(row, fidelity);
        self.run.evaluations += 1;
        if fidelity == Fidelity::FULL {
            self.run.points.push(RunPoint { spent: self.run.spent, row: row.to_vec() });
        }
        Ok(())
    }
}

impl Run {
    /// Runs a strategy with a seed until the budget is spent or `stop` is set.
    ///
    /// # Errors
    /// If the strategy refuses the problem, or its parameters.
    pub fn of(
        file: &ProblemFile,
        estimator: &TableEstimator<'_>,
        competitor: &Competitor,
        seed: u64,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let goals: Vec<&str> = file.goals.iter().map(String::as_str).collect();
        let estimators: [&dyn Estimator; 1] = [estimator];
        let problem = Problem::of_choices(file.table.genome(), &estimators, &goals, &file.limits)?;
        let problem = problem.with_seed(seed).with_budget(file.budget);
        let Competitor { strategy, set, .. } = competitor;
        let strategy: &StrategyKind = strategy;
        let mut strategy = strategy.start(&problem, set)?;
        let run = Self { points: Vec::new(), evaluations: 0, spent: 0.0, best: None, proved: false };
        let mut recorder = Recorder { estimator, run };
        let outcome = solve(&problem, &mut *strategy, &mut recorder, stop)?;
        let proved = outcome.ended == Ended::Finished(Proof::Best);
        Ok(Self { best: outcome.top.into_iter().next(), proved, ..recorder.run })
    }
}
