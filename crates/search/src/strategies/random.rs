//! Random rows, the baseline of every other strategy.

use base::random::numbered_rng;
use rand_chacha::ChaCha8Rng;
use space::Index;

use super::parameters::{Parameter, Parameters};
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

/// Stream of its random numbers.
const RANDOM: u64 = 8;
/// Rows per batch, unless given.
const BATCH: usize = 64;
/// Draws for a row that keeps the limits on costs, before one is taken that does not.
const TRIES: usize = 100;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "draws",
        default: "none",
        what: "rows after which it ends; none for a search that ends with its budget",
    },
    Parameter { name: "batch", default: "64", what: "rows that are evaluated together" },
];

/// Draws a number of rows that keep the limits on costs.
pub struct Random<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    left: usize,
    batch: usize,
}

impl<'a> Random<'a> {
    /// A number of draws, of the problem's seed.
    pub fn new(problem: &'a Problem<'a>, draws: usize) -> Self {
        Self { problem, rng: numbered_rng(problem.seed, RANDOM), left: draws, batch: BATCH }
    }

    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let draws = parameters.count_or_none("draws")?.unwrap_or(usize::MAX);
        Ok(Self { batch: parameters.count("batch")?, ..Self::new(problem, draws) })
    }
}

/// A random row that keeps the limits on costs; after a hundred draws one that does not.
pub(crate) fn drawn(problem: &Problem<'_>, rng: &mut ChaCha8Rng) -> Vec<Index> {
    kept(problem, rng, |rng| problem.genome().random(rng))
}

/// A row that `make` makes and that keeps the limits on costs; after a hundred tries one that does not.
pub(super) fn kept(
    problem: &Problem<'_>,
    rng: &mut ChaCha8Rng,
    mut make: impl FnMut(&mut ChaCha8Rng) -> Vec<Index>,
) -> Vec<Index> {
    let mut row = make(rng);
    for _ in 1..TRIES {
        if problem.keeps_costs(&row) {
            break;
        }
        row = make(rng);
    }
    row
}

impl Strategy for Random<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        for _ in 0..self.batch.min(self.left) {
            rows.push(&drawn(self.problem, &mut self.rng));
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        self.left -= scored.rows.len();
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        (self.left == 0).then_some(Proof::None)
    }
}
