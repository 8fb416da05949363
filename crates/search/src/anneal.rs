//! Simulated annealing with informed proposals, for objectives that have slopes.
//!
//! A chain of random steps goes downwards as well, the less the colder it is (Kirkpatrick, Gelatt and Vecchi 1983). Slopes
//! say about what each step gains, so that promising ones are proposed (Zanella 2020; Grathwohl et al. 2021), together with
//! others that make room for them where the limits ask for that; the objective itself decides. Between phases chains are
//! drawn anew, each by how much more probable it is at the colder temperature (population annealing, Hukushima and Iba
//! 2003), which is also how resolutions are chosen.

mod chain;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasherDefault;
use std::mem;
use std::sync::Arc;

use base::random::numbered_rng;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use space::{Encoded, Index, Row};

use super::climb::{Place, Ways, Worth};
use super::constraint::Limits;
use super::genes::{GeneFeatures, hash};
use super::index::CostIndex;
use super::known::{AsItIs, Known, Rows, Scored};
use super::objective::Objective;
use crate::error::Result;
use chain::{Chain, draw_anew};

/// Stream of its random numbers.
const ANNEALING: u64 = 7;
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
/// Share of a phase's proposals that must be new for another phase to follow: below it chains go to and fro between places
/// that are known, and climbs from the best of these find the rest.
const LEAST_FRESH: f64 = 0.05;
/// Places whose steps a group keeps at most: some 30 MB.
const MOST_WAYS: usize = 2048;
/// The highest and the lowest temperature, as multiples of what steps gain or lose where chains begin (the root of the
/// mean square).
const HOT: f64 = 0.25;
const COLD: f64 = 0.1;
/// Proposals of a chain that are drawn until one keeps the limits.
const TRIES: usize = 8;

/// What is searched for.
#[derive(Clone, Copy)]
pub(super) struct Problem<'a> {
    pub index: &'a CostIndex,
    pub limits: &'a Limits,
    pub objective: &'a dyn Objective,
    pub features: &'a GeneFeatures,
}

impl Problem<'_> {
    /// The steps from a sub-network.
    fn ways(&self, row: &Row, slopes: &[f32]) -> Arc<Ways> {
        let Self { index, limits, features, .. } = *self;
        let worth = Worth::of_slopes(features, slopes);
        Arc::new(Place { index, limits, places: features.places(), row, worth: &worth }.ways(&[]))
    }

    fn keeps(&self, row: &Row) -> bool {
        self.limits.keeps(&self.index.costs_of(row))
    }
}

/// The generator of a group, or of what is drawn for all, which is 0.
fn generator(seed: u64, of: u64) -> ChaCha8Rng {
    numbered_rng(seed.wrapping_mul(GROUPS + 1).wrapping_add(of), ANNEALING)
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
    /// Where chains have been since the last draw.
    ways: HashMap<u64, Arc<Ways>, BuildHasherDefault<AsItIs>>,
    /// Proposals since the last draw.
    proposed: usize,
}

/// A chain's place, and where it may go.
type Proposal = (usize, u64, Vec<Index>);

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
            ways: HashMap::default(),
            proposed: 0,
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
        let mut suiting = Vec::new();
        self.encoded.clear();
        for (at, chain) in self.chains.iter().enumerate() {
            let mut next = chain.row.clone();
            let mut kept = || {
                next.copy_from_slice(&chain.row);
                chain.propose(self.problem.index.genome(), &mut next, &mut suiting, &mut self.rng)
                    && self.problem.keeps(&next)
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
        self.proposed += proposals.len();
        let accuracies = self.problem.objective.predict_encoded(&self.encoded)?;
        self.accuracies.extend(fresh.into_iter().zip(accuracies.iter().copied()));
        self.met_accuracies.extend(accuracies);
        Ok(proposals)
    }

    /// Goes where the temperature allows; the chains that went, and the hashes of where they went.
    fn decide(&mut self, proposals: Vec<Proposal>, temperature: f64) -> Vec<(usize, u64)> {
        let mut moved = Vec::with_capacity(proposals.len());
        for (at, key, next) in proposals {
            let (accuracy, chain) = (self.accuracies[&key], &mut self.chains[at]);
            let rise = f64::from(accuracy - chain.accuracy);
            if rise >= 0.0 || self.rng.random::<f64>() < (rise / temperature).exp() {
                (chain.row, chain.accuracy) = (next, accuracy);
                if accuracy > chain.best.1 {
                    chain.best = (chain.row.clone(), accuracy);
                }
                moved.push((at, key));
            }
        }
        moved
    }

    /// Asks for the slopes where chains went, unless one of them was there lately.
    fn learn(&mut self, moved: &[(usize, u64)], temperature: f64) -> Result<()> {
        self.encoded.clear();
        if self.ways.len() >= MOST_WAYS {
            self.ways.clear();
        }
        let mut fresh: Vec<(usize, u64)> = Vec::with_capacity(moved.len());
        for &(at, key) in moved {
            if !self.ways.contains_key(&key) && fresh.iter().all(|(_, other)| *other != key) {
                self.encoded.push(self.problem.features.of(&self.chains[at].row));
                fresh.push((at, key));
            }
        }
        if !fresh.is_empty() {
            let slopes = self.problem.objective.slopes(&self.encoded)?.expect("it has slopes");
            for ((at, key), slopes) in fresh.iter().zip(slopes.chunks_exact(slopes.len() / fresh.len())) {
                self.ways.insert(*key, self.problem.ways(&self.chains[*at].row, slopes));
            }
        }
        for (at, key) in moved {
            let chain = &mut self.chains[*at];
            chain.ways = self.ways[key].clone();
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
    starts: &[Vec<Index>],
    candidates: usize,
    seed: u64,
    stopped: impl Fn() -> bool + Sync,
) -> Result<Option<Vec<Vec<Index>>>> {
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
            group.ways.clear();
        }
        let proposed: usize = groups.iter_mut().map(|group| mem::take(&mut group.proposed)).sum();
        let fresh = known.count() - before;
        if stopped() || fresh as f64 <= LEAST_FRESH * proposed as f64 {
            break;
        }
        let colder = 1.0 / temperature((phase + 1) * rounds) - 1.0 / temperature(phase * rounds);
        let mut chains: Vec<&mut Chain> = groups.iter_mut().flat_map(|group| &mut group.chains).collect();
        draw_anew(&mut chains, colder, rng.random());
    }
    let chains = groups.into_iter().flat_map(|group| group.chains);
    let mut best: Vec<(Vec<Index>, f32)> = chains.map(|chain| chain.best).collect();
    best.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    best.dedup_by(|a, b| a.0 == b.0);
    Ok(Some(best.into_iter().map(|(genes, _)| genes).collect()))
}

/// What steps gain or lose from where chains begin: the root of the mean square; `None` if all gain nothing.
fn unit(chains: &[Chain]) -> Option<f64> {
    let squares =
        chains.iter().flat_map(|chain| chain.ways.ways.iter().map(|step| f64::from(step.gain).powi(2)));
    let (sum, count) = squares.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
    (sum != 0.0).then(|| f64::sqrt(sum / count))
}

/// A chain at each start.
fn begin(
    known: &mut Known<'_>,
    problem: &Problem<'_>,
    starts: &[Vec<Index>],
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
    let chain = |((genes, scored), slopes): ((&Vec<Index>, &Scored), _)| {
        Chain::new(genes.clone(), scored.accuracy, problem.ways(genes, slopes))
    };
    Ok(Some(starts.iter().zip(&scores).zip(slopes).map(chain).collect()))
}
