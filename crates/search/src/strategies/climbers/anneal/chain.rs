//! One chain of annealing: its proposals, and the resampling of chains.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use space::{GeneRow, Genome, Index};

use crate::strategies::climbers::place::{Way, Ways};

/// A proposal's weight is e to the power of this share of its gain over the temperature, at most of [`MOST_EXPONENT`].
const BELIEF: f64 = 0.7;
const MOST_EXPONENT: f32 = 60.0;
/// Most steps that make room for another.
const REPAIRS: usize = 2;

/// One chain's position.
#[derive(Clone)]
pub(super) struct Chain {
    pub row: Vec<Index>,
    pub merit: f32,
    /// The best row of the chain, or of the one that it was copied from.
    pub best: (Vec<Index>, f32),
    pub ways: Arc<Ways>,
    /// The weight of each step, and their running sums.
    weights: Vec<f32>,
    sums: Vec<f32>,
}

impl Chain {
    /// A chain that begins at a sub-network, not yet weighted.
    pub fn new(row: Vec<Index>, merit: f32, ways: Arc<Ways>) -> Self {
        let best = (row.clone(), merit);
        let weights = Vec::new();
        let sums = Vec::new();
        Self { row, merit, best, ways, weights, sums }
    }

    /// Weighs each step by its gain at a temperature.
    pub fn weigh(&mut self, temperature: f64) {
        let scale = (BELIEF / temperature) as f32;
        let mut sum = 0.0;
        self.weights.clear();
        self.sums.clear();
        for step in &self.ways.ways {
            // beyond this a step is as good as certain
            let weight = (scale * step.gain).min(MOST_EXPONENT).exp();
            sum += weight;
            self.weights.push(weight);
            self.sums.push(sum);
        }
    }

    /// Draws a step by its weight.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Option<Way> {
        let place = self.sums.last()? * rng.random::<f32>();
        let at = self.sums.partition_point(|sum| *sum < place);
        self.ways.ways.get(at.min(self.ways.ways.len() - 1)).copied()
    }

    /// Draws one of the steps that `suits` allows, by its weight; `suiting` is a buffer for them.
    fn draw_of(
        &self,
        suits: impl Fn(&Way) -> bool,
        suiting: &mut Vec<(f32, usize)>,
        rng: &mut ChaCha8Rng,
    ) -> Option<Way> {
        let mut sum = 0.0;
        suiting.clear();
        for (at, (step, weight)) in self.ways.ways.iter().zip(&self.weights).enumerate() {
            if suits(step) {
                sum += weight;
                suiting.push((sum, at));
            }
        }
        let place = sum * rng.random::<f32>();
        let at = suiting.partition_point(|(sum, _)| *sum < place);
        suiting.get(at).or(suiting.last()).map(|(_, at)| self.ways.ways[*at])
    }

    /// Makes a step, and others that make room for it; returns whether the result keeps the limits. `suiting` is a
    /// buffer as in [`Chain::draw_of`].
    pub fn propose(
        &self,
        genome: &Genome,
        next: &mut GeneRow,
        suiting: &mut Vec<(f32, usize)>,
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let Some(first) = self.draw(rng) else { return false };
        self.ways.steps.apply(genome, first.step, next);
        let mut changed = [Some(first.step), None, None];
        let mut costs = first.costs;
        let room = &self.ways.room;
        for changes in 1..=REPAIRS {
            if room.holds(|place| costs[place]) {
                return true;
            }
            let apart = |step: &Way| changed.iter().flatten().all(|other| step.step.is_apart(*other));
            let Some(other) = self
                .draw_of(
                    |step: &Way| room.holds(|place| costs[place] + step.costs[place]) && apart(step),
                    suiting,
                    rng,
                )
                .or_else(|| self.draw_of(|step: &Way| step.cost < 0.0 && apart(step), suiting, rng))
            else {
                return false;
            };
            self.ways.steps.apply(genome, other.step, next);
            costs.iter_mut().zip(other.costs).for_each(|(cost, more)| *cost += more);
            changed[changes] = Some(other.step);
        }
        room.holds(|place| costs[place])
    }
}

/// Draws chains by their ratio of probabilities for a difference of the temperatures' inverses, evenly (systematic
/// resampling), from an offset between 0 and 1.
pub(super) fn draw_anew(chains: &mut [&mut Chain], colder: f64, offset: f64) {
    let highest = chains.iter().map(|chain| f64::from(chain.merit)).fold(f64::MIN, f64::max);
    let weights: Vec<f64> =
        chains.iter().map(|chain: &&mut Chain| (colder * (f64::from(chain.merit) - highest)).exp()).collect();
    let copies = copies(&weights, offset);
    let mut lost: Vec<usize> = (0..copies.len()).filter(|at| copies[*at] == 0).collect();
    for (from, copies) in copies.into_iter().enumerate() {
        for _ in 1..copies {
            let to = lost.pop().expect("as many are lost as are copied");
            *chains[to] = chains[from].clone();
        }
    }
}

/// How often each is drawn, in as many draws as there are weights: within 1 of the share of its weight.
fn copies(weights: &[f64], offset: f64) -> Vec<usize> {
    let sum = weights.iter().sum::<f64>();
    let count = weights.len();
    let mut copies = vec![0; count];
    let mut at = 0;
    let mut end = weights[0];
    for draw in 0..count {
        let place = (draw as f64 + offset) / count as f64 * sum;
        while end < place && at + 1 < count {
            at += 1;
            end += weights[at];
        }
        copies[at] += 1;
    }
    copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn copies_are_what_weights_ask_for_to_within_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for count in [1, 2, 7, 96] {
            for _ in 0..50 {
                let mut weights: Vec<f64> = (0..count).map(|_| rng.random::<f64>().powi(6)).collect();
                weights[count / 2] = if count > 1 { 0.0 } else { 1.0 };
                let copies = copies(&weights, rng.random());
                assert_eq!(copies.iter().sum::<usize>(), count);
                let wanted = count as f64 / weights.iter().sum::<f64>();
                for (copies, weight) in copies.into_iter().zip(weights) {
                    assert!((copies as f64 - wanted * weight).abs() <= 1.0 && (copies == 0 || weight > 0.0));
                }
            }
        }
    }
}
