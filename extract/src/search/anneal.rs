//! Simulated annealing with informed proposals, for objectives that have slopes.
//!
//! A chain of random steps goes downwards as well, the less the colder it is (Kirkpatrick, Gelatt and Vecchi 1983). Slopes
//! say about what each step gains, so that promising ones are proposed (Zanella 2020; Grathwohl et al. 2021), together with
//! others that make room for them where the limits ask for that; the objective itself decides. Between phases chains are
//! drawn anew, each by how much more probable it is at the colder temperature (population annealing, Hukushima and Iba
//! 2003), which is also how resolutions are chosen.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::mem;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::climb::{Place, Room, Step, Worth};
use super::constraint::Limits;
use super::genes::{Gene, GeneFeatures, hash};
use super::index::CostIndex;
use super::known::{AsItIs, Known, Rows, Scored};
use super::objective::Objective;
use crate::encode::Encoded;
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// Groups of chains, each of which one thread looks after between two draws.
const GROUPS: u64 = 2;
/// Chains of a group, at least and at most; what they propose is one product for a predictor. Fewer candidates are shared
/// by fewer chains.
const CHAINS: [usize; 2] = [8, 48];
/// Rounds that a chain should have, proposals all of them.
const ROUNDS: usize = 500;
/// Rounds in all, below which nothing is gained.
const LEAST_ROUNDS: usize = 100;
/// Parts of the way, after each of which chains are drawn anew.
const PHASES: usize = 24;
/// The highest and the lowest temperature, as multiples of what steps gain or lose where chains begin (the root of the
/// mean square).
const HOT: f64 = 0.25;
const COLD: f64 = 0.1;
/// A proposal's weight is e to the power of this share of its gain over the temperature, at most of [`MOST_EXPONENT`].
const BELIEF: f64 = 0.7;
const MOST_EXPONENT: f32 = 60.0;
/// Proposals of a chain that are drawn until one keeps the limits.
const TRIES: usize = 8;
/// Steps that may make room for another.
const REPAIRS: usize = 2;

/// What is searched for.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub index: &'a CostIndex,
    pub limits: &'a Limits,
    pub objective: &'a dyn Objective,
    pub features: &'a GeneFeatures,
}

impl Problem<'_> {
    /// The steps from a sub-network with what slopes say of them.
    fn steps(&self, genes: &[Gene], slopes: &[f32]) -> (Vec<Step>, Room) {
        let Self { index, limits, features, .. } = *self;
        let worth = Worth::of_slopes(features, slopes);
        Place { index, limits, genes, worth: &worth }.steps(&[])
    }

    fn keeps(&self, genes: &[Gene]) -> bool {
        self.limits.keeps(&self.index.costs_of(genes))
    }
}

/// A sub-network on its way.
#[derive(Clone)]
struct Chain {
    genes: Vec<Gene>,
    accuracy: f32,
    /// The best that it, or who it was copied from, has been.
    best: (Vec<Gene>, f32),
    steps: Vec<Step>,
    room: Room,
    /// How much each step is favoured, and the sums of these so far.
    weights: Vec<f32>,
    sums: Vec<f32>,
}

impl Chain {
    fn weigh(&mut self, temperature: f64) {
        let scale = (BELIEF / temperature) as f32;
        let mut sum = 0.0;
        self.weights.clear();
        self.sums.clear();
        for step in &self.steps {
            // beyond this a step is as good as certain
            let weight = (scale * step.gain).min(MOST_EXPONENT).exp();
            sum += weight;
            self.weights.push(weight);
            self.sums.push(sum);
        }
    }

    /// Draws a step by its weight.
    fn draw(&self, rng: &mut ChaCha8Rng) -> Option<Step> {
        let place = self.sums.last()? * rng.random::<f32>();
        let at = self.sums.partition_point(|sum| *sum < place);
        self.steps.get(at.min(self.steps.len() - 1)).copied()
    }

    /// Draws one of the steps that `suits` allows, by its weight.
    fn draw_of(&self, suits: impl Fn(&Step) -> bool, rng: &mut ChaCha8Rng) -> Option<Step> {
        let (mut sum, mut suiting) = (0.0, Vec::with_capacity(self.steps.len()));
        for (step, weight) in self.steps.iter().zip(&self.weights).filter(|(step, _)| suits(step)) {
            sum += weight;
            suiting.push((sum, step));
        }
        let place = sum * rng.random::<f32>();
        let at = suiting.partition_point(|(sum, _)| *sum < place);
        suiting.get(at).or(suiting.last()).map(|(_, step)| **step)
    }

    /// Makes a step, and others that make room for it; whether all fit then.
    fn propose(&self, next: &mut [Gene], rng: &mut ChaCha8Rng) -> bool {
        let Some(first) = self.draw(rng) else { return false };
        first.step.apply(next);
        let (mut changed, mut costs) = ([Some(first.step), None, None], first.costs);
        for changes in 1..=REPAIRS {
            if self.room.holds(|place| costs[place]) {
                return true;
            }
            let apart = |step: &Step| changed.iter().flatten().all(|other| step.step.is_apart(*other));
            let fits = |step: &Step| self.room.holds(|place| costs[place] + step.costs[place]) && apart(step);
            let saves = |step: &Step| step.cost < 0.0 && apart(step);
            let Some(other) = self.draw_of(fits, rng).or_else(|| self.draw_of(saves, rng)) else {
                return false;
            };
            other.step.apply(next);
            costs.iter_mut().zip(other.costs).for_each(|(cost, more)| *cost += more);
            changed[changes] = Some(other.step);
        }
        self.room.holds(|place| costs[place])
    }
}

/// The generator of a group, or of what is drawn for all, which is 0.
fn generator(seed: u64, of: u64) -> ChaCha8Rng {
    rng(seed.wrapping_mul(GROUPS + 1).wrapping_add(of), Purpose::Annealing)
}

/// Chains that one thread looks after.
struct Group<'a> {
    problem: Problem<'a>,
    chains: Vec<Chain>,
    rng: ChaCha8Rng,
    accuracies: HashMap<u64, f32, BuildHasherDefault<AsItIs>>,
    /// What was predicted since the last draw.
    met: Rows,
    met_accuracies: Vec<f32>,
    encoded: Encoded,
}

/// A chain's place, and where it may go.
type Proposal = (usize, u64, Vec<Gene>);

impl<'a> Group<'a> {
    fn new(problem: Problem<'a>, chains: Vec<Chain>, rng: ChaCha8Rng) -> Self {
        let (accuracies, met) = (HashMap::default(), Rows::new(problem.index.genome().len()));
        Self {
            problem,
            chains,
            rng,
            accuracies,
            met,
            met_accuracies: Vec::new(),
            encoded: Encoded::default(),
        }
    }

    /// A round at each temperature.
    fn phase(&mut self, temperatures: &[f64], stopped: &(impl Fn() -> bool + Sync)) -> Result<()> {
        self.chains.iter_mut().for_each(|chain| chain.weigh(temperatures[0]));
        for &temperature in temperatures {
            if stopped() {
                break;
            }
            let proposals = self.proposals()?;
            let moved = self.decide(proposals, temperature);
            self.learn(&moved, temperature)?;
        }
        Ok(())
    }

    /// A proposal for each chain that has one, all of them predicted.
    fn proposals(&mut self) -> Result<Vec<Proposal>> {
        let (mut proposals, mut fresh) = (Vec::with_capacity(self.chains.len()), Vec::new());
        self.encoded.clear();
        for (at, chain) in self.chains.iter().enumerate() {
            let mut next = chain.genes.clone();
            let mut kept = || {
                next.copy_from_slice(&chain.genes);
                chain.propose(&mut next, &mut self.rng) && self.problem.keeps(&next)
            };
            if !(0..TRIES).any(|_| kept()) {
                continue;
            }
            let key = hash(&next);
            // the value stands in for the accuracy until that is known
            if let Entry::Vacant(place) = self.accuracies.entry(key) {
                place.insert(f32::NEG_INFINITY);
                self.encoded.push(self.problem.features.of(&next));
                self.met.push(&next);
                fresh.push(key);
            }
            proposals.push((at, key, next));
        }
        let accuracies = self.problem.objective.predict_encoded(&self.encoded)?;
        self.accuracies.extend(fresh.into_iter().zip(accuracies.iter().copied()));
        self.met_accuracies.extend(accuracies);
        Ok(proposals)
    }

    /// Goes where the temperature allows; the chains that went.
    fn decide(&mut self, proposals: Vec<Proposal>, temperature: f64) -> Vec<usize> {
        let mut moved = Vec::with_capacity(proposals.len());
        for (at, key, next) in proposals {
            let (accuracy, chain) = (self.accuracies[&key], &mut self.chains[at]);
            let rise = f64::from(accuracy - chain.accuracy);
            if rise >= 0.0 || self.rng.random::<f64>() < (rise / temperature).exp() {
                (chain.genes, chain.accuracy) = (next, accuracy);
                if accuracy > chain.best.1 {
                    chain.best = (chain.genes.clone(), accuracy);
                }
                moved.push(at);
            }
        }
        moved
    }

    /// Asks for the slopes where chains went.
    fn learn(&mut self, moved: &[usize], temperature: f64) -> Result<()> {
        if moved.is_empty() {
            return Ok(());
        }
        self.encoded.clear();
        moved.iter().for_each(|at| self.encoded.push(self.problem.features.of(&self.chains[*at].genes)));
        let slopes = self.problem.objective.slopes(&self.encoded)?.expect("it has slopes");
        for (at, slopes) in moved.iter().zip(slopes.chunks_exact(slopes.len() / moved.len())) {
            let chain = &mut self.chains[*at];
            (chain.steps, chain.room) = self.problem.steps(&chain.genes, slopes);
            chain.weigh(temperature);
        }
        Ok(())
    }
}

/// The best that each chain met, best first, after about so many candidates; `None` if these are too few, or the objective
/// has no slopes or the same ones everywhere, so that climbs find what is best. Chains begin at `starts`, as many at each;
/// what is predicted is entered in `known`.
pub(super) fn anneal(
    known: &mut Known<'_>,
    problem: Problem<'_>,
    starts: &[Vec<Gene>],
    candidates: usize,
    seed: u64,
    stopped: impl Fn() -> bool + Sync,
) -> Result<Option<Vec<Vec<Gene>>>> {
    let size = (candidates / (GROUPS as usize * ROUNDS)).clamp(CHAINS[0], CHAINS[1]);
    let rounds = candidates / (GROUPS as usize * size * PHASES);
    if rounds * PHASES < LEAST_ROUNDS {
        return Ok(None);
    }
    let mut rng = generator(seed, 0);
    let Some(states) = begin(known, &problem, starts, &mut rng)? else { return Ok(None) };
    let Some(unit) = unit(&states) else { return Ok(None) };
    let group = |group: u64| {
        let begun = states.iter().cycle().skip(group as usize * size % states.len()).take(size);
        Group::new(problem, begun.cloned().collect(), generator(seed, 1 + group))
    };
    let mut groups: Vec<Group> = (0..GROUPS).map(group).collect();
    let temperature = |round: usize| {
        let share = round as f64 / (rounds * PHASES) as f64;
        unit * HOT * (COLD / HOT).powf(share)
    };
    for phase in 0..PHASES {
        let temperatures: Vec<f64> = (0..rounds).map(|round| temperature(phase * rounds + round)).collect();
        groups.par_iter_mut().try_for_each(|group| group.phase(&temperatures, &stopped))?;
        let before = known.count();
        for group in &mut groups {
            known.enter(&group.met, &mem::take(&mut group.met_accuracies));
            group.met.clear();
        }
        if stopped() || known.count() == before {
            break;
        }
        let colder = 1.0 / temperature((phase + 1) * rounds) - 1.0 / temperature(phase * rounds);
        let mut chains: Vec<&mut Chain> = groups.iter_mut().flat_map(|group| &mut group.chains).collect();
        draw_anew(&mut chains, colder, rng.random());
    }
    let chains = groups.into_iter().flat_map(|group| group.chains);
    let mut best: Vec<(Vec<Gene>, f32)> = chains.map(|chain| chain.best).collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    best.dedup_by(|a, b| a.0 == b.0);
    Ok(Some(best.into_iter().map(|(genes, _)| genes).collect()))
}

/// What steps gain or lose from where chains begin: the root of the mean square; `None` if all gain nothing.
fn unit(chains: &[Chain]) -> Option<f64> {
    let squares = chains.iter().flat_map(|chain| chain.steps.iter().map(|step| f64::from(step.gain).powi(2)));
    let (sum, count) = squares.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
    (sum != 0.0).then(|| f64::sqrt(sum / count))
}

/// A chain at each start.
fn begin(
    known: &mut Known<'_>,
    problem: &Problem<'_>,
    starts: &[Vec<Gene>],
    rng: &mut ChaCha8Rng,
) -> Result<Option<Vec<Chain>>> {
    let genome = problem.index.genome();
    let (mut rows, mut scores) = (Rows::new(genome.len()), Vec::new());
    let mut encoded = Encoded::default();
    for genes in starts {
        encoded.push(problem.features.of(genes));
        rows.push(genes);
    }
    // another one, to see whether slopes differ
    let mut other = starts[0].clone();
    genome.mutate(&mut other, 1.0, rng);
    encoded.push(problem.features.of(&other));
    let Some(slopes) = problem.objective.slopes(&encoded)? else { return Ok(None) };
    let mut slopes = slopes.chunks_exact(slopes.len() / encoded.len());
    let last = slopes.next_back();
    if slopes.clone().all(|slopes| Some(slopes) == last) {
        return Ok(None);
    }
    known.look(&rows, &mut scores)?;
    let chain = |((genes, scored), slopes): ((&Vec<Gene>, &Scored), _)| {
        let (steps, room) = problem.steps(genes, slopes);
        let (genes, accuracy) = (genes.clone(), scored.accuracy);
        Chain {
            best: (genes.clone(), accuracy),
            genes,
            accuracy,
            steps,
            room,
            weights: Vec::new(),
            sums: Vec::new(),
        }
    };
    Ok(Some(starts.iter().zip(&scores).zip(slopes).map(chain).collect()))
}

/// Draws chains by how much more probable they are where temperatures' inverses differ by so much, evenly (systematic
/// resampling), from where a share between 0 and 1 says.
fn draw_anew(chains: &mut [&mut Chain], colder: f64, offset: f64) {
    let highest = chains.iter().map(|chain| f64::from(chain.accuracy)).fold(f64::MIN, f64::max);
    let weight = |chain: &&mut Chain| (colder * (f64::from(chain.accuracy) - highest)).exp();
    let weights: Vec<f64> = chains.iter().map(weight).collect();
    let copies = copies(&weights, offset);
    let mut lost: Vec<usize> = (0..copies.len()).filter(|at| copies[*at] == 0).collect();
    for (from, copies) in copies.into_iter().enumerate() {
        for _ in 1..copies {
            let to = lost.pop().expect("as many are lost as are copied");
            *chains[to] = chains[from].clone();
        }
    }
}

/// How often each is drawn, in as many draws as there are weights: within 1 of what the weights ask for.
fn copies(weights: &[f64], offset: f64) -> Vec<usize> {
    let (sum, count) = (weights.iter().sum::<f64>(), weights.len());
    let (mut copies, mut at, mut end) = (vec![0; count], 0, weights[0]);
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
