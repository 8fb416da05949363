//! Evolution in two forms: regularized evolution, in which the oldest member dies (Real et al. 2019), and the generations
//! of Once-for-All's search (Cai et al. 2020), in which the best survive.

use std::collections::VecDeque;

use base::random::rng_for;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use space::Index;

use super::parameters::{Parameter, Parameters};
use super::random::{drawn, kept};
use super::standing::Standing;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "survivors",
        default: "youngest",
        what: "who survives: the youngest (regularized evolution), or the best (Once-for-All's generations)",
    },
    Parameter { name: "population", default: "10", what: "members; Once-for-All has 100" },
    Parameter {
        name: "sample",
        default: "3",
        what: "members of which the best is mutated; only for youngest",
    },
    Parameter {
        name: "batch",
        default: "1",
        what: "children that are evaluated together; only for youngest",
    },
    Parameter { name: "parents", default: "0.25", what: "share that survives as parents; only for best" },
    Parameter {
        name: "mutated",
        default: "0.5",
        what: "share of children by mutation, others by crossover; only for best",
    },
    Parameter {
        name: "probability",
        default: "0.1",
        what: "of a mutation, for each group of genes; only for best",
    },
];

/// A member of the population.
type Member = (Vec<Index>, Standing);

/// Who survives.
enum Survivors {
    Youngest { sample: usize, batch: usize },
    Best { parents: usize, mutated: f64, probability: f64 },
}

/// The strategy of this module.
pub struct Evolution<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    size: usize,
    survivors: Survivors,
    /// The oldest first.
    population: VecDeque<Member>,
}

impl<'a> Evolution<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let size = parameters.count("population")?;
        let parents = (parameters.share("parents")? * size as f64).round().max(1.0) as usize;
        let survivors = match parameters.word("survivors", &["youngest", "best"])? {
            "best" => Survivors::Best {
                parents,
                mutated: parameters.share("mutated")?,
                probability: parameters.share("probability")?,
            },
            _ => {
                Survivors::Youngest { sample: parameters.count("sample")?, batch: parameters.count("batch")? }
            }
        };
        let rng = rng_for("evolution strategy", problem.seed, &[]);
        Ok(Self { problem, rng, size, survivors, population: VecDeque::new() })
    }

    /// Regularized evolution.
    pub(super) fn youngest(problem: &'a Problem<'a>, size: usize, sample: usize, batch: usize) -> Self {
        let rng = rng_for("evolution strategy", problem.seed, &[]);
        let survivors = Survivors::Youngest { sample, batch };
        Self { problem, rng, size, survivors, population: VecDeque::new() }
    }

    /// Mutations of the best of random samples.
    fn ask_youngest(&mut self, sample: usize, batch: usize, rows: &mut GeneRows) {
        let Self { problem, rng, population, .. } = self;
        for _ in 0..batch {
            let mut best = &population[rng.random_range(0..population.len())];
            for _ in 1..sample {
                let other = &population[rng.random_range(0..population.len())];
                if other.1.beats(&best.1) {
                    best = other;
                }
            }
            rows.push(&mutated(problem, &best.0, rng));
        }
    }

    /// Children of the members, which are the parents: the rest of a generation.
    fn ask_best(&mut self, share: f64, probability: f64, rows: &mut GeneRows) {
        let Self { problem, rng, population, .. } = self;
        let parents: Vec<&Vec<Index>> = population.iter().map(|(row, _)| row).collect();
        let children = self.size.saturating_sub(parents.len()).max(1);
        let genome = problem.genome();
        let by_mutation = (share * children as f64).round() as usize;
        for child in 0..children {
            rows.push(&kept(problem, rng, |rng| {
                let mut row = (*parents.choose(rng).expect("at least one")).clone();
                match child < by_mutation {
                    true => genome.mutate(&mut row, probability, rng),
                    false => genome.mix(&mut row, parents.choose(rng).expect("at least one"), rng),
                }
                row
            }));
        }
    }
}

/// A row with one gene changed that keeps the limits on costs.
fn mutated(problem: &Problem<'_>, row: &[Index], rng: &mut ChaCha8Rng) -> Vec<Index> {
    kept(problem, rng, |rng| {
        let mut child = row.to_vec();
        problem.genome().mutate_one(&mut child, rng);
        child
    })
}

impl Strategy for Evolution<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        if self.population.is_empty() {
            for _ in 0..self.size {
                rows.push(&drawn(self.problem, &mut self.rng));
            }
            return Ok(Fidelity::FULL);
        }
        match self.survivors {
            Survivors::Youngest { sample, batch } => self.ask_youngest(sample, batch, rows),
            Survivors::Best { mutated, probability, .. } => self.ask_best(mutated, probability, rows),
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        let born = scored.rows.iter().enumerate();
        self.population.extend(born.map(|(at, row)| (row.to_vec(), Standing::of(scored, at))));
        match self.survivors {
            Survivors::Youngest { .. } => {
                self.population.drain(..self.population.len().saturating_sub(self.size));
            }
            Survivors::Best { parents, .. } => {
                let members = self.population.make_contiguous();
                members.sort_by(|a, b| b.1.order(&a.1).then_with(|| a.0.cmp(&b.0)));
                let mut best: Vec<Member> = std::mem::take(&mut self.population).into();
                best.dedup_by(|a, b| a.0 == b.0);
                best.truncate(parents);
                self.population = best.into();
            }
        }
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        None
    }
}
