//! A search problem: choices, estimators, goals, limits, a budget and a seed.

use space::{GeneRow, Genome, SearchSpace};

use super::archive::Solution;
use super::estimator::{Estimator, Predictor};
use super::index::{CostIndex, Costs};
use super::metric::{Better, Fidelity, Limits, Metric, MetricValue};
use super::prices::{Column, Prices};
use crate::error::Result;

/// The source of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An index: a sum or a maximum over few genes.
    Priced(Column),
    /// An estimator: the place among all estimated values of a row.
    Estimated(usize),
}

/// A checked problem: each metric has one name and one source, and goals and limits are on known metrics.
#[derive(Clone)]
pub struct Problem<'a> {
    genome: &'a Genome,
    /// The estimators whose values are not sums over few genes.
    estimators: Vec<&'a dyn Estimator>,
    metrics: Vec<(Metric, Source)>,
    goals: Vec<usize>,
    /// Limits on estimated values; those on costs are in the prices.
    limits: Vec<(usize, f64)>,
    prices: Prices<'a>,
    /// Upper bound on the cost of all estimates, in the estimators' unit; unlimited unless set.
    pub budget: f64,
    /// Decides every random choice.
    pub seed: u64,
}

/// The estimators' metrics and indices.
struct Sources<'a> {
    metrics: Vec<(Metric, Source)>,
    indices: Vec<&'a CostIndex>,
    /// The estimators that have no index.
    estimators: Vec<&'a dyn Estimator>,
}

impl<'a> Sources<'a> {
    fn of(all: &[&'a dyn Estimator]) -> Self {
        let mut metrics = Vec::new();
        let mut indices = Vec::new();
        let mut estimators = Vec::new();
        let mut estimated = 0;
        for estimator in all {
            let costs = estimator.factored();
            for (at, metric) in estimator.metrics().iter().enumerate() {
                let column =
                    |costs: &CostIndex| Column { index: indices.len(), quantity: costs.quantities()[at] };
                let source =
                    costs.map_or(Source::Estimated(estimated + at), |costs| Source::Priced(column(costs)));
                metrics.push((metric.clone(), source));
            }
            match costs {
                Some(costs) => indices.push(costs),
                None => {
                    estimated += estimator.metrics().len();
                    estimators.push(*estimator);
                }
            }
        }
        Self { metrics, indices, estimators }
    }
}

/// Most goals of a problem: one to optimize, and others that break ties and are the front's other sides.
pub const MOST_GOALS: usize = 4;
/// Values for the goals, the greater the better; 0 for goals that a problem does not have.
pub type Merits = [f64; MOST_GOALS];

/// Whether a row with these values could be evaluated.
fn has_values(estimated: &[MetricValue]) -> bool {
    !estimated.iter().any(MetricValue::is_failed)
}

fn refused(field: &str, expected: &str, got: impl std::fmt::Display) -> crate::Error {
    base::Error::invalid("search", field, expected, got).into()
}

impl<'a> Problem<'a> {
    /// A problem of a space, with an unlimited budget and seed 0. The first goal is optimized; further ones break ties,
    /// and the front is of all.
    ///
    /// # Errors
    /// If factored costs are of another space; and as [`Problem::of_choices`].
    pub fn new(
        space: &'a SearchSpace,
        estimators: &[&'a dyn Estimator],
        goals: &[&str],
        limits: &Limits,
    ) -> Result<Self> {
        let mut indices = estimators.iter().filter_map(|estimator| estimator.factored());
        match indices.find(|index| index.space().fingerprint() != space.fingerprint()) {
            Some(index) => Err(refused("costs", &format!("those of {}", space.name()), index.space().name())),
            None => Self::of_choices(space.genome(), estimators, goals, limits),
        }
    }

    /// A problem of a list of choices, with an unlimited budget and seed 0: what the choices stand for is known to the
    /// estimators alone. Factored costs are of a space with this list.
    ///
    /// # Errors
    /// If two estimators have the same metric, a goal or a limit is on an unknown metric, or there are too many of them.
    pub fn of_choices(
        genome: &'a Genome,
        estimators: &[&'a dyn Estimator],
        goals: &[&str],
        limits: &Limits,
    ) -> Result<Self> {
        limits.check()?;
        let Sources { metrics, indices, estimators } = Sources::of(estimators);
        let problem = Self {
            genome,
            estimators,
            metrics,
            goals: Vec::new(),
            limits: Vec::new(),
            prices: Prices::new(indices),
            budget: f64::INFINITY,
            seed: 0,
        };
        problem.check_names()?.with_goals(goals)?.with_limits(limits)
    }

    fn check_names(self) -> Result<Self> {
        let mut names: Vec<&str> = self.metrics.iter().map(|(metric, _)| metric.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(refused("metrics", "each from one estimator", format!("{} from two", pair[0]))),
            None => Ok(self),
        }
    }

    /// The place of a metric.
    ///
    /// # Errors
    /// If no estimator has it.
    pub fn find(&self, name: &str) -> Result<usize> {
        self.metrics.iter().position(|(metric, _)| metric.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.metrics.iter().map(|(metric, _)| metric.name.as_str()).collect();
            refused("metric", &format!("one of {}", known.join(", ")), name)
        })
    }

    fn with_goals(mut self, goals: &[&str]) -> Result<Self> {
        if goals.is_empty() || goals.len() > MOST_GOALS {
            let expected = format!("one to optimize, and {} more at most", MOST_GOALS - 1);
            return Err(refused("goals", &expected, goals.len()));
        }
        self.goals = goals.iter().map(|goal| self.find(goal)).collect::<Result<_>>()?;
        Ok(self)
    }

    fn with_limits(mut self, limits: &Limits) -> Result<Self> {
        for (name, bound) in limits.iter() {
            let metric = self.find(name)?;
            match self.metrics[metric].1 {
                Source::Priced(column) => self.prices = self.prices.within(column, bound),
                Source::Estimated(_) => self.limits.push((metric, bound)),
            }
        }
        Ok(self)
    }

    /// The problem with another seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The problem with an upper bound on the cost of estimates.
    #[must_use]
    pub fn with_budget(self, budget: f64) -> Self {
        Self { budget, ..self }
    }

    /// The list of choices.
    pub fn genome(&self) -> &'a Genome {
        self.genome
    }

    /// All metrics, in the order of the estimators.
    pub fn metrics(&self) -> impl ExactSizeIterator<Item = &Metric> {
        self.metrics.iter().map(|(metric, _)| metric)
    }

    /// The metric that is optimized.
    pub fn goal(&self) -> &Metric {
        &self.metrics[self.goals[0]].0
    }

    /// Number of goals.
    pub fn goals(&self) -> usize {
        self.goals.len()
    }

    /// Whether a row keeps the limits on costs.
    pub fn keeps_costs(&self, row: &GeneRow) -> bool {
        self.prices.keeps(row)
    }

    /// The value of a metric for a row; `estimated` has the estimators' values.
    pub fn value(&self, metric: usize, row: &GeneRow, estimated: &[MetricValue]) -> MetricValue {
        match self.metrics[metric].1 {
            Source::Estimated(at) => estimated[at],
            Source::Priced(Column { index, quantity }) => {
                let index = self.prices.iter().nth(index).expect("checked").index;
                index.costs_of(row).value(quantity)
            }
        }
    }

    /// Whether a row was evaluated, and its estimated values keep their limits.
    pub(super) fn keeps_estimated(&self, row: &GeneRow, estimated: &[MetricValue]) -> bool {
        has_values(estimated)
            && self.limits.iter().all(|(metric, bound): &(usize, f64)| {
                self.metrics[*metric].0.keeps(&self.value(*metric, row, estimated), *bound)
            })
    }

    /// A row's merits for the goals.
    pub(super) fn merits(&self, row: &GeneRow, estimated: &[MetricValue]) -> Merits {
        self.merits_with(self.first_costs(row).as_ref(), row, estimated)
    }

    /// A row's costs in the first index, if there is one.
    fn first_costs(&self, row: &GeneRow) -> Option<Costs> {
        Some(self.prices.iter().next()?.index.costs_of(row))
    }

    /// A row's merits, given its costs in the first index.
    fn merits_with(&self, first: Option<&Costs>, row: &GeneRow, estimated: &[MetricValue]) -> Merits {
        let mut merits = Merits::default();
        for (merit, goal) in merits.iter_mut().zip(&self.goals) {
            let (metric, source) = &self.metrics[*goal];
            let value = match (source, first) {
                (Source::Priced(Column { index: 0, quantity }), Some(first)) => first.value(*quantity),
                _ => self.value(*goal, row, estimated),
            };
            *merit = metric.merit(value.mean);
        }
        merits
    }

    /// A row's merits for the goals, if it keeps all limits.
    pub(super) fn judged(&self, row: &GeneRow, estimated: &[MetricValue]) -> Option<Merits> {
        let first = self.first_costs(row);
        let kept = first.as_ref().is_none_or(|first: &Costs| self.prices.keeps_with(first, row));
        (kept && self.keeps_estimated(row, estimated))
            .then(|| self.merits_with(first.as_ref(), row, estimated))
    }

    /// The violation of all limits: the sum of the shares by which each is exceeded; 0 if all are kept. That of a row that
    /// could not be evaluated is infinite.
    pub(super) fn violation(&self, row: &GeneRow, estimated: &[MetricValue]) -> f64 {
        if !has_values(estimated) {
            return f64::INFINITY;
        }
        let of_costs = self.prices.violation(row);
        let excess = |(metric, bound): &(usize, f64)| {
            self.metrics[*metric].0.excess(&self.value(*metric, row, estimated), *bound)
        };
        of_costs + self.limits.iter().map(excess).sum::<f64>()
    }

    /// The row with all metrics.
    pub(super) fn solution(&self, row: &GeneRow, estimated: &[MetricValue]) -> Solution {
        let values = self.metrics.iter().enumerate();
        let values = values.map(|(at, (metric, _))| (metric.name.clone(), self.value(at, row, estimated)));
        Solution { row: row.to_vec(), values: values.collect() }
    }

    /// The estimators whose values are not sums over few genes.
    pub(super) fn estimators(&self) -> &[&'a dyn Estimator] {
        &self.estimators
    }

    /// Number of values from these per row.
    pub(super) fn estimated(&self) -> usize {
        self.estimators.iter().map(|estimator| estimator.metrics().len()).sum()
    }

    /// The cost of a row in the budget.
    pub(super) fn price(&self, row: &GeneRow, fidelity: Fidelity) -> f64 {
        self.estimators.iter().map(|estimator| estimator.price(row, fidelity)).sum()
    }

    /// The costs with their limits.
    pub(super) fn prices(&self) -> &Prices<'a> {
        &self.prices
    }

    /// Whether an estimator has fidelities that cost less.
    pub(super) fn has_fidelities(&self) -> bool {
        self.estimators.iter().any(|estimator| estimator.has_fidelities())
    }

    /// The source of a goal, and its better direction.
    pub(super) fn source(&self, goal: usize) -> Option<(Source, Better)> {
        let (metric, source) = &self.metrics[*self.goals.get(goal)?];
        Some((*source, metric.better))
    }

    /// The limits on estimated values: the value's place, its better direction, the limit.
    pub(super) fn estimated_limits(&self) -> impl ExactSizeIterator<Item = (usize, Better, f64)> + '_ {
        self.limits.iter().map(|(metric, bound)| match &self.metrics[*metric] {
            (metric, Source::Estimated(at)) => (*at, metric.better, *bound),
            (_, Source::Priced(_)) => unreachable!("limits on costs are in the prices"),
        })
    }

    /// The limits on costs.
    pub(super) fn cost_limits(&self) -> impl Iterator<Item = (Column, f64)> + '_ {
        self.prices.limits()
    }

    /// The index of a column.
    pub(super) fn index(&self, column: Column) -> &'a CostIndex {
        self.prices.iter().nth(column.index).expect("a column of these").index
    }

    /// The predictor of a value, if it is one that reads features.
    pub(super) fn predictor(&self, estimated: usize) -> Option<&'a Predictor<'a>> {
        let mut first = 0;
        for estimator in &self.estimators {
            let next = first + estimator.metrics().len();
            if estimated < next {
                return estimator.relaxed();
            }
            first = next;
        }
        None
    }

    /// All limits as a text, for messages.
    pub(super) fn limits_text(&self) -> String {
        let estimated = self.limits.iter().map(|(metric, bound)| {
            let (metric, _) = &self.metrics[*metric];
            let side = if metric.better == Better::Higher { "at least" } else { "at most" };
            format!("{} {side} {bound}", metric.name)
        });
        let costs = self.prices.to_string();
        Some(costs)
            .filter(|costs| !costs.is_empty())
            .into_iter()
            .chain(estimated)
            .collect::<Vec<_>>()
            .join(", ")
    }
}
