//! A portfolio for estimates that cost much: local search and regularized evolution in turns on one archive. Evolution's
//! population takes in what local search evaluates, and local search goes on from what evolution finds, if that is better
//! than where it stands. Local search restarts where no neighbor is better, which evolution does not.

use base::random::rng_for;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::evolution::Evolution;
use super::local::Local;
use super::parameters::{Parameter, Parameters};
use super::standing::Standing;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "starts", default: "10", what: "random rows, from the best of which a climb starts" },
    Parameter { name: "population", default: "10", what: "members of evolution" },
    Parameter { name: "sample", default: "3", what: "members of which the best is mutated" },
    Parameter { name: "local", default: "0.7", what: "share of requests by local search" },
    Parameter { name: "batch", default: "1", what: "rows that are evaluated together" },
];

/// The strategy of this module.
pub struct Portfolio<'a> {
    rng: ChaCha8Rng,
    local: Local<'a>,
    evolution: Evolution<'a>,
    share: f64,
    /// Whether anything was evaluated, and whether the current request is local search's.
    begun: bool,
    is_local: bool,
}

impl<'a> Portfolio<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let batch = parameters.count("batch")?;
        let population = parameters.count("population")?;
        let sample = parameters.count("sample")?;
        Ok(Self {
            rng: rng_for("portfolio strategy", problem.seed, &[]),
            local: Local::new(problem, parameters.count("starts")?, false, batch),
            evolution: Evolution::youngest(problem, population, sample, batch),
            share: parameters.share("local")?,
            begun: false,
            is_local: true,
        })
    }
}

impl Strategy for Portfolio<'_> {
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        // the first rows are local search's starts, which are evolution's first members
        self.is_local = !self.begun || self.rng.random_bool(self.share);
        if self.is_local { self.local.ask(view, rows) } else { self.evolution.ask(view, rows) }
    }

    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        self.begun = true;
        self.evolution.tell(view, scored)?;
        if self.is_local {
            return self.local.tell(view, scored);
        }
        for (at, row) in scored.rows.iter().enumerate() {
            self.local.offer(row, Standing::of(scored, at));
        }
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        None
    }
}
