//! NSGA-II for several goals (Deb et al. 2002): fronts by constrained domination, crowding within a front, tournaments,
//! uniform crossover, and a mutation that redraws one group of genes on average. Equal rows are in a population once.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use base::random::rng_for;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::Index;

use super::parameters::{Parameter, Parameters};
use super::random::{drawn, kept};
use super::standing::Standing;
use crate::archive::dominates;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

/// Tries for a child that is not in the population.
const TRIES: usize = 20;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "population", default: "20", what: "members, and children of a generation" },
    Parameter { name: "crossover", default: "0.9", what: "share of children that have two parents" },
    Parameter {
        name: "mutations",
        default: "1",
        what: "groups of genes that are redrawn in a child, on average",
    },
];

/// A member of the population, with its place in the order of its last generation.
#[derive(Clone, Debug)]
struct Member {
    row: Vec<Index>,
    standing: Standing,
    /// The number of its front; 0 is the best.
    front: usize,
    /// How far apart its neighbors on the front are; infinite at the ends.
    crowding: f64,
}

impl Member {
    /// Better fronts first, then the less crowded.
    fn order(&self, other: &Self) -> Ordering {
        self.front.cmp(&other.front).then(other.crowding.total_cmp(&self.crowding))
    }
}

/// The strategy of this module.
pub struct Nsga2<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    size: usize,
    crossover: f64,
    mutations: f64,
    population: Vec<Member>,
}

impl<'a> Nsga2<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            problem,
            rng: rng_for("nsga2 strategy", problem.seed, &[]),
            size: parameters.count("population")?,
            crossover: parameters.share("crossover")?,
            mutations: parameters.positive("mutations")?,
            population: Vec::new(),
        })
    }

    /// The better of two random members.
    fn tournament<'m>(population: &'m [Member], rng: &mut ChaCha8Rng) -> &'m Member {
        let one = &population[rng.random_range(0..population.len())];
        let other = &population[rng.random_range(0..population.len())];
        if other.order(one) == Ordering::Less { other } else { one }
    }

    fn child(&mut self) -> Vec<Index> {
        let Self { problem, rng, population, crossover, mutations, .. } = self;
        let genome = problem.genome();
        let probability = (*mutations / genome.groups().len() as f64).min(1.0);
        kept(problem, rng, |rng| {
            let mut row = Self::tournament(population, rng).row.clone();
            if rng.random_bool(*crossover) {
                genome.cross(&mut row, &Self::tournament(population, rng).row, rng);
            }
            genome.mutate(&mut row, probability, rng);
            row
        })
    }
}

impl Strategy for Nsga2<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        if self.population.is_empty() {
            for _ in 0..self.size {
                rows.push(&drawn(self.problem, &mut self.rng));
            }
            return Ok(Fidelity::FULL);
        }
        let mut there: BTreeSet<Vec<Index>> =
            self.population.iter().map(|member| member.row.clone()).collect();
        for _ in 0..self.size {
            let mut child = self.child();
            for _ in 1..TRIES {
                if !there.contains(&child) {
                    break;
                }
                child = self.child();
            }
            rows.push(&child);
            there.insert(child);
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        let mut there: BTreeSet<Vec<Index>> =
            self.population.iter().map(|member| member.row.clone()).collect();
        for (at, row) in scored.rows.iter().enumerate() {
            if there.insert(row.to_vec()) {
                let standing = Standing::of(scored, at);
                self.population.push(Member { row: row.to_vec(), standing, front: 0, crowding: 0.0 });
            }
        }
        sort(&mut self.population, self.problem.goals());
        self.population.truncate(self.size);
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        None
    }
}

/// Whether one is better: with a lower violation, or an equal one and better for some goal and worse for none.
fn constrained(one: &Standing, other: &Standing) -> bool {
    match one.violation.total_cmp(&other.violation) {
        Ordering::Less => true,
        Ordering::Greater => false,
        Ordering::Equal => dominates(&one.merits, &other.merits),
    }
}

/// Sets fronts and crowding, and sorts by them.
fn sort(population: &mut [Member], goals: usize) {
    let mut left: Vec<usize> = (0..population.len()).collect();
    let mut front = 0;
    while !left.is_empty() {
        let beaten = |at: &usize| {
            left.iter().any(|by| constrained(&population[*by].standing, &population[*at].standing))
        };
        let (rest, first): (Vec<usize>, Vec<usize>) = left.iter().copied().partition(|at| beaten(at));
        first.iter().for_each(|at| population[*at].front = front);
        crowd(population, first, goals);
        left = rest;
        front += 1;
    }
    population.sort_by(|a, b| a.order(b).then_with(|| a.row.cmp(&b.row)));
}

/// Sets the crowding of a front's members: for each goal the distance between the two neighbors, as a share of the
/// front's range, summed over the goals.
fn crowd(population: &mut [Member], mut front: Vec<usize>, goals: usize) {
    front.iter().for_each(|at| population[*at].crowding = 0.0);
    for goal in 0..goals {
        let merit = |population: &[Member], at: usize| population[at].standing.merits[goal];
        front.sort_by(|a, b| merit(population, *a).total_cmp(&merit(population, *b)));
        let (Some(&first), Some(&last)) = (front.first(), front.last()) else { return };
        let range = merit(population, last) - merit(population, first);
        population[first].crowding = f64::INFINITY;
        population[last].crowding = f64::INFINITY;
        if range <= 0.0 {
            continue;
        }
        for three in front.windows(3) {
            let distance = merit(population, three[2]) - merit(population, three[0]);
            population[three[1]].crowding += distance / range;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Merits;
    use rand::SeedableRng;

    fn member(number: u16, merits: [f64; 2], violation: f64) -> Member {
        let merits: Merits = [merits[0], merits[1], 0.0, 0.0];
        Member { row: vec![number], standing: Standing { violation, merits }, front: 9, crowding: 9.0 }
    }

    #[test]
    fn the_fronts_of_five_members_are_those_by_hand() {
        let mut five = [
            member(0, [1.0, 5.0], 0.0),
            member(1, [2.0, 4.0], 0.0),
            member(2, [5.0, 1.0], 0.0),
            member(3, [1.0, 4.0], 0.0),
            member(4, [9.0, 9.0], 0.1),
        ];
        sort(&mut five, 2);
        let found: Vec<_> = five.iter().map(|one| (one.row[0], one.front, one.crowding)).collect();
        let end = f64::INFINITY;
        // between the ends, 4 / 4 of the range of both goals
        assert_eq!(found, [(0, 0, end), (2, 0, end), (1, 0, 2.0), (3, 1, end), (4, 2, end)]);
    }

    #[test]
    fn a_front_has_no_member_that_another_of_it_or_of_a_later_one_beats() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let draw = |rng: &mut ChaCha8Rng| f64::from(rng.random_range(0..6));
        let mut many: Vec<Member> = (0..80)
            .map(|number| {
                let merits = [draw(&mut rng), draw(&mut rng)];
                member(number, merits, (draw(&mut rng) - 3.0).max(0.0))
            })
            .collect();
        sort(&mut many, 2);
        for one in &many {
            let beaten_by: Vec<usize> = many
                .iter()
                .filter(|other| constrained(&other.standing, &one.standing))
                .map(|other| other.front)
                .collect();
            assert_eq!(one.front, beaten_by.iter().max().map_or(0, |front| front + 1));
        }
    }
}
