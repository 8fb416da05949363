//! The search of a space for the sub-network with the highest expected accuracy within limits on costs.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use base::random::rng_for;
use serde::Serialize;
use space::{Arch, Index, SearchSpace};

use crate::archive::Solution;
use crate::candidate::Candidate;
use crate::error::{Error, Result};
use crate::estimator::{Estimator, Predictor};
use crate::index::CostIndex;
use crate::log::Log;
use crate::metric::{Better, Fidelity, LATENCY, Limits, Metric, TOP1};
use crate::objective::Objective;
use crate::pareto;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Ended, Outcome, Proof, Rise, Scored, Strategy, View, solve};
use crate::start;
use crate::strategies::StrategyKind;
use crate::strategies::climbers::{Climbers, SearchConfig};
use crate::strategies::random;

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchReport {
    /// The best by the goals: that with the highest expected accuracy, of equals the fastest; or the cheapest.
    pub best: Candidate,
    /// Number of evaluations: of each sub-network at each fidelity once.
    pub candidates: u64,
    /// The front of accuracy and latency over all evaluated sub-networks, fastest first.
    pub front: Vec<Candidate>,
    /// The best candidates by the goals, best first, at most [`TOP`](crate::TOP).
    pub top: Vec<Candidate>,
    /// Each candidate that was better than all before it by the first goal, in order.
    pub trace: Vec<Improvement>,
    /// Whether `stop` ended it.
    pub interrupted: bool,
    /// Why it ended.
    pub ended: Ended,
    /// The greatest merit for the first goal that a sub-network could have that was not evaluated, if the strategy knows a
    /// bound.
    pub bound: Option<f64>,
}

/// A candidate that was better than all before it by the first goal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Improvement {
    /// Number of evaluations so far, this one included.
    pub candidates: usize,
    /// Their price: a full evaluation's is 1.
    pub spent: f64,
    /// The sub-network.
    pub arch: Arch,
    /// Its value of the goal.
    pub value: f64,
}

/// A search of an index's space, by climbers or another strategy, for the highest accuracy that an objective expects under
/// limits; of equals for the fastest.
#[derive(Clone, Copy)]
pub struct AccuracySearch<'a> {
    /// Costs of the space's sub-networks.
    pub index: &'a CostIndex,
    /// Their latencies on further devices, named; of these the first by name breaks ties if `index` has no latency.
    pub devices: &'a [CostIndex],
    /// Predicts their accuracies.
    pub objective: &'a dyn Objective,
    /// Limits on the result.
    pub limits: &'a Limits,
    /// Settings of the search.
    pub config: &'a SearchConfig,
    /// Another strategy than climbers, if any.
    pub strategy: Option<&'a StrategyChoice>,
    /// A cost to minimize, of equals for the highest accuracy, in place of the accuracy; the limits may then include one on the
    /// objective's value.
    pub cheapest: Option<&'a str>,
    /// Ends the search when set; it then returns the best so far.
    pub stop: &'a AtomicBool,
}

impl AccuracySearch<'_> {
    /// The objective's metric.
    pub fn metric() -> Metric {
        Metric::new(TOP1, "share", Better::Higher)
    }

    /// Searches, and stores the objective's values in a log. Values that the log has already are not computed again.
    ///
    /// # Errors
    /// [`Error::Infeasible`] if one limit alone rules everything out; [`Error::InfeasibleTogether`] if several together
    /// provably do; [`Error::NotFound`] if nothing was found that keeps all; [`Error::NoneEvaluated`] if nothing is as
    /// accurate as a limit on accuracy; if the objective is of another space; or if the log cannot be written.
    pub fn run(&self, log: &mut dyn Log) -> Result<SearchReport> {
        let Self { index, devices, objective, limits, config, strategy, cheapest, stop } = *self;
        let predictor = Predictor::new(index.space(), objective, Self::metric())?;
        let latency = index.latency_name().or(devices.iter().filter_map(CostIndex::latency_name).min());
        check_latency(index, latency, limits, config)?;
        let goals: Vec<&str> = match cheapest {
            Some(cost) => vec![cost, TOP1],
            None => std::iter::once(TOP1).chain(latency).collect(),
        };
        let mut estimators: Vec<&dyn Estimator> = vec![&predictor, index];
        estimators.extend(devices.iter().map(|device| device as &dyn Estimator));
        let problem = Problem::new(index.space(), &estimators, &goals, limits)?.with_seed(config.seed);
        let Some(choice) = strategy else {
            let mut climbers = Climbers::new(&problem, config)?;
            let outcome = solve(&problem, &mut climbers, log, stop)?;
            return SearchReport::of(outcome, index.space(), problem.goal(), &problem.limits_text());
        };
        let (limits, goal) = (problem.limits_text(), problem.goal().clone());
        SearchReport::of(choice.search(problem, true, log, stop)?, index.space(), &goal, &limits)
    }
}

/// Requests rows that keep the limits first, so that any search has a result.
struct AfterStarts<'a> {
    /// Empty once they were evaluated.
    starts: Vec<Vec<Index>>,
    inner: Box<dyn Strategy + 'a>,
}

impl Strategy for AfterStarts<'_> {
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        if self.starts.is_empty() {
            return self.inner.ask(view, rows);
        }
        self.starts.iter().for_each(|row| {
            rows.push(row);
        });
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        if self.starts.is_empty() {
            return self.inner.tell(view, scored);
        }
        self.starts.clear();
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        self.inner.finished().filter(|_| self.starts.is_empty())
    }

    fn bound(&self) -> Option<f64> {
        self.inner.bound()
    }
}

/// A search of an index's space under limits with an estimator whose evaluations cost much, such as trainings.
#[derive(Clone, Copy)]
pub struct EvaluatedSearch<'a> {
    /// Costs of the space's sub-networks.
    pub index: &'a CostIndex,
    /// Their latencies on further devices, named.
    pub devices: &'a [CostIndex],
    /// Evaluates sub-networks.
    pub estimator: &'a dyn Estimator,
    /// The metrics that are optimized: the first, and others that break ties and span the front. A latency is always the last
    /// of them, if there is one.
    pub goals: &'a [&'a str],
    /// Limits on the result.
    pub limits: &'a Limits,
    /// Decides every random choice.
    pub seed: u64,
    /// The strategy.
    pub strategy: &'a StrategyChoice,
    /// Ends the search when set; it then returns the best so far.
    pub stop: &'a AtomicBool,
}

impl EvaluatedSearch<'_> {
    /// Searches, and stores the values in a log. Values that the log has already are not evaluated again.
    ///
    /// # Errors
    /// As [`AccuracySearch::run`], or [`Error::NoneEvaluated`] if nothing that was evaluated keeps the limits.
    pub fn run(&self, log: &mut dyn Log) -> Result<SearchReport> {
        let Self { index, devices, estimator, goals, limits, seed, strategy, stop } = *self;
        let mut estimators: Vec<&dyn Estimator> = vec![estimator, index];
        estimators.extend(devices.iter().map(|device| device as &dyn Estimator));
        let latency = index.latency_name().or(devices.iter().filter_map(CostIndex::latency_name).min());
        let mut goals = goals.to_vec();
        goals.extend(latency.filter(|latency| !goals.contains(latency)));
        let problem = Problem::new(index.space(), &estimators, &goals, limits)?.with_seed(seed);
        let (limits, goal) = (problem.limits_text(), problem.goal().clone());
        // each start costs a full evaluation; they are needed only where chance does not keep the limits
        let by_chance = random::drawn(&problem, &mut rng_for("evaluated search", seed, &[]));
        let from_starts = !problem.keeps_costs(&by_chance);
        SearchReport::of(strategy.search(problem, from_starts, log, stop)?, index.space(), &goal, &limits)
    }
}

/// A strategy by name, for a search of sub-networks.
#[derive(Clone, Debug)]
pub struct StrategyChoice {
    /// The strategy.
    pub kind: StrategyKind,
    /// Its parameters, by name.
    pub set: BTreeMap<String, String>,
    /// Evaluations after which it ends; `None` for a strategy that ends by itself.
    pub evaluations: Option<usize>,
}

impl StrategyChoice {
    /// Searches with this strategy; first for rows that keep the limits on costs, if `from_starts`.
    fn search(
        &self,
        problem: Problem<'_>,
        from_starts: bool,
        log: &mut dyn Log,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        problem.prices().check_each()?;
        // a proof that nothing keeps the limits, or rows that do
        let starts = if from_starts { start::starts(problem.prices())? } else { Vec::new() };
        let problem = problem.with_budget(self.evaluations.map_or(f64::INFINITY, |most| most as f64));
        let mut strategy = AfterStarts { starts, inner: self.kind.start(&problem, &self.set)? };
        solve(&problem, &mut strategy, log, stop)
    }
}

/// [`AccuracySearch::run`] without a log.
///
/// # Errors
/// As [`AccuracySearch::run`].
pub fn climb(
    index: &CostIndex,
    objective: &dyn Objective,
    limits: &Limits,
    config: &SearchConfig,
    stop: &AtomicBool,
) -> Result<SearchReport> {
    AccuracySearch { index, devices: &[], objective, limits, config, strategy: None, cheapest: None, stop }
        .run(&mut ())
}

/// A latency can be limited only where there is a table.
fn check_latency(
    index: &CostIndex,
    latency: Option<&str>,
    limits: &Limits,
    config: &SearchConfig,
) -> Result<()> {
    let limited = index.has_latency() || limits.of(LATENCY).is_none();
    if limited && (latency.is_some() || config.front_limits == 0) {
        return Ok(());
    }
    let expected = "a latency table, for a limit on latency and for a front";
    Err(base::Error::invalid("search", "latency", expected, "none").into())
}

impl SearchReport {
    fn of(outcome: Outcome, space: &SearchSpace, goal: &Metric, limits: &str) -> Result<Self> {
        let named = |solutions: Vec<Solution>| -> Vec<Candidate> {
            solutions.into_iter().map(|solution| solution.candidate(space)).collect()
        };
        let improvement = |rise: Rise| Improvement {
            candidates: rise.count,
            spent: rise.spent,
            arch: space.arch(&rise.row),
            // the merit of a merit is the value
            value: goal.merit(rise.merit),
        };
        let top = named(outcome.top);
        let none = || Error::NoneEvaluated { count: outcome.count, limits: limits.to_string() };
        Ok(Self {
            best: top.first().ok_or_else(none)?.clone(),
            candidates: outcome.count as u64,
            trace: outcome.trace.into_iter().map(improvement).collect(),
            interrupted: outcome.ended == Ended::Stopped,
            ended: outcome.ended,
            bound: outcome.bound,
            front: pareto::front(named(outcome.front)),
            top,
        })
    }
}
