//! Branch and bound: genes are set one after the other, in their order; a branch is left out if a bound on a limited cost is
//! past its limit, or a bound on the goal is below the best row so far. What is left at the end is proved to be the best.
//!
//! Costs that are sums or maxima of terms over few genes are bounded term by term, by the least cell that the genes that
//! are set leave open. A goal with a predictor is bounded by the predictor. A goal without bounds is visited everywhere.

use space::{GeneRow, Index, Table};

use super::parameters::{Parameter, Parameters};
use crate::error::Result;
use crate::estimator::Predictor;
use crate::index::Costs;
use crate::metric::{Better, Fidelity};
use crate::prices::Column;
use crate::problem::{Problem, Source};
use crate::quantity::Quantity;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

/// Rows per request.
const BATCH: usize = 256;
/// Branches per request, so that an interruption is noticed.
const BRANCHES: usize = 4096;
/// Rounding of sums, as a share.
const ROUNDING: f64 = 1e-9;

pub(super) const PARAMETERS: &[Parameter] = &[Parameter {
    name: "branches",
    default: "none",
    what: "branches after which it ends with a bound instead of a proof",
}];

/// A lower bound on a cost: for each term, the least of its cells by how many of its genes are set.
struct CostBound {
    /// Each term's genes, and its tables over the first none, one, two ... of them.
    terms: Vec<(Vec<usize>, Vec<Table<f64>>)>,
    /// Whether the cost is the maximum of the terms, not their sum.
    is_maximum: bool,
}

impl CostBound {
    /// A bound on what `of` reads from the costs of a column's index.
    fn new(problem: &Problem<'_>, column: Column, of: impl Fn(&Costs) -> f64) -> Self {
        let genome = problem.genome();
        let mut terms = Vec::new();
        for term in problem.index(column).terms() {
            let mut tables = vec![term.map(&of)];
            for at in (0..term.vars.len()).rev() {
                let last = tables.last().expect("it began with one");
                let allowed = genome.allowed(term.vars[at] as usize);
                tables.push(without_last(last, allowed));
            }
            tables.reverse();
            terms.push((term.vars.iter().map(|var| *var as usize).collect(), tables));
        }
        Self { terms, is_maximum: column.quantity == Quantity::Memory }
    }

    /// The bound for all rows that begin with the first `set` genes of a row.
    fn of(&self, row: &GeneRow, set: usize) -> f64 {
        let cells = self.terms.iter().map(|(genes, tables)| {
            let table = &tables[genes.partition_point(|gene| *gene < set)];
            table.cells[table.at(row)]
        });
        match self.is_maximum {
            true => cells.fold(0.0, f64::max),
            false => cells.sum::<f64>() * (1.0 - ROUNDING),
        }
    }
}

/// The least over the last gene's allowed values. An absent gene has the value 0, so that one counts too.
fn without_last(table: &Table<f64>, allowed: &[Index]) -> Table<f64> {
    let size = *table.sizes.last().expect("it has a gene");
    let least = |cells: &[f64]| {
        let values = allowed.iter().map(|value| cells[usize::from(*value)]);
        values.fold(cells[0], f64::min)
    };
    let cells = table.cells.chunks_exact(size).map(least).collect();
    let last = table.vars.len() - 1;
    Table { vars: table.vars[..last].to_vec(), sizes: table.sizes[..last].to_vec(), cells }
}

/// Upper bounds on merits.
enum GoalBound<'a> {
    /// The negative of a cost.
    Cost(CostBound),
    Predicted(&'a Predictor<'a>, Better),
    Unknown,
}

impl<'a> GoalBound<'a> {
    fn new(problem: &Problem<'a>) -> Self {
        match problem.source(0) {
            Some((Source::Priced(column), Better::Lower)) => {
                let mean = move |costs: &Costs| costs.value(column.quantity).mean;
                Self::Cost(CostBound::new(problem, column, mean))
            }
            Some((Source::Estimated(at), better)) => {
                problem.predictor(at).map_or(Self::Unknown, |predictor| Self::Predicted(predictor, better))
            }
            _ => Self::Unknown,
        }
    }

    /// The greatest merit of all rows that begin with the first `set` genes of a row.
    fn of(&self, row: &GeneRow, set: usize) -> Result<f64> {
        Ok(match self {
            Self::Cost(costs) => -costs.of(row, set),
            Self::Predicted(predictor, better) => match (predictor.range(row, set)?, better) {
                (None, _) => f64::INFINITY,
                (Some([_, high]), Better::Higher) => high,
                (Some([low, _]), Better::Lower) => -low,
            },
            Self::Unknown => f64::INFINITY,
        })
    }
}

/// Rows that begin with the same genes.
struct Branch {
    /// The first `set` genes; the others are 0.
    row: Vec<Index>,
    set: usize,
    /// No row of it has a greater merit.
    bound: f64,
}

/// The strategy of this module.
pub struct Exact<'a> {
    problem: &'a Problem<'a>,
    goal: GoalBound<'a>,
    limits: Vec<(CostBound, f64)>,
    /// The next one last.
    open: Vec<Branch>,
    /// The greatest bound of the requested rows, of which nothing is known yet.
    asked: Option<f64>,
    /// Branches that may still be looked at.
    left: usize,
}

impl<'a> Exact<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let limits = problem.cost_limits().map(|(column, most): (Column, f64)| {
            let of = move |costs: &Costs| costs.of(column.quantity);
            (CostBound::new(problem, column, of), most)
        });
        let root = Branch { row: vec![0; problem.genome().len()], set: 0, bound: f64::INFINITY };
        let left = parameters.count_or_none("branches")?.unwrap_or(usize::MAX);
        let goal = GoalBound::new(problem);
        Ok(Self { problem, goal, limits: limits.collect(), open: vec![root], asked: None, left })
    }

    /// Adds the branches of the next gene's values that bounds do not rule out, the most promising one last.
    fn branch(&mut self, Branch { row, set, bound }: Branch) -> Result<()> {
        let genome = self.problem.genome();
        let absent = [0];
        let values = if genome.exists(&row, set) { genome.allowed(set) } else { &absent[..] };
        let first = self.open.len();
        for &value in values {
            let mut next = row.clone();
            next[set] = value;
            if self.limits.iter().any(|(cost, most)| cost.of(&next, set + 1) > *most) {
                continue;
            }
            // where there is no choice, nothing new is known
            let bound = if values.len() == 1 { bound } else { self.goal.of(&next, set + 1)?.min(bound) };
            self.open.push(Branch { row: next, set: set + 1, bound });
        }
        // of equals the first value is next
        self.open[first..].reverse();
        self.open[first..].sort_by(|a, b| a.bound.total_cmp(&b.bound));
        Ok(())
    }
}

impl Strategy for Exact<'_> {
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        let best = view.best().first().map_or(f64::NEG_INFINITY, |point| point.merits[0]);
        for _ in 0..BRANCHES {
            if rows.len() == BATCH || self.left == 0 {
                break;
            }
            let Some(branch) = self.open.pop() else { break };
            self.left -= 1;
            // one that is as good may be better by the other goals
            if branch.bound < best {
                continue;
            }
            if branch.set < self.problem.genome().len() {
                self.branch(branch)?;
            } else if self.problem.keeps_costs(&branch.row) {
                rows.push(&branch.row);
                self.asked = Some(self.asked.map_or(branch.bound, |asked| asked.max(branch.bound)));
            }
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, _scored: &Scored<'_>) -> Result<()> {
        self.asked = None;
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        match (self.open.is_empty(), self.left) {
            (true, _) => Some(Proof::Best),
            (false, 0) => Some(Proof::None),
            (false, _) => None,
        }
    }

    fn bound(&self) -> Option<f64> {
        self.open.iter().map(|branch| branch.bound).chain(self.asked).max_by(f64::total_cmp)
    }
}
