//! Random sub-networks, the baseline of every other strategy.

use base::random::numbered_rng;
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

/// Stream of its random numbers.
const RANDOM: u64 = 8;
/// Sub-networks per batch.
const BATCH: usize = 64;
/// Draws for a row that keeps the limits on costs, before one is taken that does not.
const TRIES: usize = 100;

/// Draws a number of sub-networks that keep the limits on costs.
pub struct Random<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    left: usize,
}

impl<'a> Random<'a> {
    /// A number of draws, of the problem's seed.
    pub fn new(problem: &'a Problem<'a>, draws: usize) -> Self {
        Self { problem, rng: numbered_rng(problem.seed, RANDOM), left: draws }
    }
}

impl Strategy for Random<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        for _ in 0..BATCH.min(self.left) {
            let mut row = self.problem.genome().random(&mut self.rng);
            for _ in 1..TRIES {
                if self.problem.keeps_costs(&row) {
                    break;
                }
                row = self.problem.genome().random(&mut self.rng);
            }
            rows.push(&row);
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
