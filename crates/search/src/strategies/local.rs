//! Local search: from a random row to a better neighbor, until none is better; then it restarts from another random
//! row. On cell spaces it is a hard baseline to beat (White, Nolen and Savani 2021).

use base::random::rng_for;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use space::{Index, Steps};

use super::parameters::{Parameter, Parameters};
use super::random::drawn;
use super::standing::Standing;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "starts", default: "10", what: "random rows, from the best of which a climb starts" },
    Parameter {
        name: "move",
        default: "first",
        what: "the neighbor to go to: the first that is better, or the best of all",
    },
    Parameter {
        name: "batch",
        default: "1",
        what: "neighbors that are evaluated together; with best all are",
    },
];

/// The strategy of this module.
pub struct Local<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    starts: usize,
    /// Whether all neighbors are evaluated before a move.
    to_best: bool,
    batch: usize,
    /// Where it stands; `None` before a climb.
    at: Option<(Vec<Index>, Standing)>,
    /// Neighbors that are not evaluated yet, the next one last.
    ahead: Vec<Vec<Index>>,
}

impl<'a> Local<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let to_best = parameters.word("move", &["first", "best"])? == "best";
        Ok(Self::new(problem, parameters.count("starts")?, to_best, parameters.count("batch")?))
    }

    pub(super) fn new(problem: &'a Problem<'a>, starts: usize, to_best: bool, batch: usize) -> Self {
        let rng = rng_for("local strategy", problem.seed, &[]);
        Self { problem, rng, starts, to_best, batch, at: None, ahead: Vec::new() }
    }

    /// Goes on from a row that another strategy found, if it is better than where this one stands.
    pub(super) fn offer(&mut self, row: &[Index], standing: Standing) {
        if self.at.as_ref().is_some_and(|(_, own)| standing.beats(own)) {
            self.stand_at(row.to_vec(), standing);
        }
    }

    /// Goes on from a row: lists its neighbors that keep the limits on costs, in random order. If it breaks one itself,
    /// all are listed.
    fn stand_at(&mut self, row: Vec<Index>, standing: Standing) {
        self.ahead = neighbors(self.problem, &row);
        self.ahead.shuffle(&mut self.rng);
        self.at = Some((row, standing));
    }
}

/// The neighbors of a row that keep the limits on costs; all of them if none does.
fn neighbors(problem: &Problem<'_>, row: &[Index]) -> Vec<Vec<Index>> {
    let genome = problem.genome();
    let mut steps = Steps::default();
    genome.steps(row, |_| true, &mut steps);
    let stepped = steps.steps.iter().map(|step| {
        let mut next = row.to_vec();
        steps.apply(genome, *step, &mut next);
        next
    });
    let all: Vec<Vec<Index>> = stepped.collect();
    let kept: Vec<Vec<Index>> = all.iter().filter(|next| problem.keeps_costs(next)).cloned().collect();
    if kept.is_empty() { all } else { kept }
}

impl Strategy for Local<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        if self.at.is_none() {
            for _ in 0..self.starts {
                rows.push(&drawn(self.problem, &mut self.rng));
            }
            return Ok(Fidelity::FULL);
        }
        let count = if self.to_best { self.ahead.len() } else { self.batch.min(self.ahead.len()) };
        self.ahead.iter().rev().take(count).for_each(|row| {
            rows.push(row);
        });
        self.ahead.truncate(self.ahead.len() - count);
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        let mut best: Option<(Vec<Index>, Standing)> = None;
        for (place, row) in scored.rows.iter().enumerate() {
            let standing = Standing::of(scored, place);
            let bar = best.as_ref().or(self.at.as_ref()).map(|(_, standing)| standing);
            if bar.is_none_or(|bar| standing.beats(bar)) {
                best = Some((row.to_vec(), standing));
            }
        }
        match best {
            Some((row, standing)) => self.stand_at(row, standing),
            None if self.ahead.is_empty() => self.at = None,
            None => {}
        }
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        None
    }
}
