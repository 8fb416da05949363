//! Simulated annealing with informed proposals, for objectives that have slopes.
//!
//! A chain of random steps also accepts worse ones, the fewer the colder it is (Kirkpatrick, Gelatt and Vecchi 1983).
//! Slopes estimate the gain of each step, so that promising ones are proposed (Zanella 2020; Grathwohl et al. 2021),
//! together with others that make room for them within the limits; the objective itself decides. Between phases chains
//! are resampled, each by its ratio of probabilities at the colder temperature (population annealing, Hukushima and Iba
//! 2003), which is also how resolutions are chosen.

mod chain;

use std::mem;
use std::ops::Range;
use std::sync::Arc;

use base::random::numbered_rng;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use space::{Encoded, GeneRow, Index};

use super::aim::Aim;
use super::place::{Place, Ways, Worth};
use crate::error::Result;
use crate::estimator::Predictor;
use crate::genes::ByHash;
use crate::prices::Prices;
use crate::rows::GeneRows;
use crate::solve::Scored;
use chain::{Chain, draw_anew};

/// Stream of its random numbers.
const ANNEALING: u64 = 7;
/// Groups of chains; one thread runs each between two resamplings.
const GROUPS: u64 = 2;
/// Least and most chains per group; their proposals are one product for a predictor. With fewer candidates there are
/// fewer chains.
const CHAINS: [usize; 2] = [8, 48];
/// Target number of rounds per chain, in proposals.
const ROUNDS: usize = 500;
/// Least number of rounds with which annealing gains anything.
const LEAST_ROUNDS: usize = 100;
/// Number of phases, after each of which chains are resampled.
const PHASES: usize = 24;
/// Least share of new proposals in a phase for another to follow: below it chains go back and forth between known
/// places, and climbs from the best of these find the rest.
const LEAST_FRESH: f64 = 0.05;
/// Most places whose steps a group stores: some 30 MB.
const MOST_WAYS: usize = 2048;
/// The highest and the lowest temperature, as multiples of the gains and losses of steps from the chains' starts (the
/// root of the mean square).
const HOT: f64 = 0.25;
const COLD: f64 = 0.1;
/// Draws of a chain's proposal until one keeps the limits.
const TRIES: usize = 8;

/// The chains' aim and limits.
struct Setting<'a> {
    prices: Prices<'a>,
    aim: Aim<'a>,
    predictor: &'a Predictor<'a>,
}

impl Setting<'_> {
    /// The steps from a sub-network.
    fn ways(&self, row: &GeneRow, slopes: &[f32]) -> Arc<Ways> {
        let features = self.predictor.features();
        let worth = Worth::of_slopes(features, slopes, self.aim.sign);
        Arc::new(Place { prices: &self.prices, places: features.places(), row, worth: &worth }.ways(&[]))
    }
}

/// The generator of a group; 0 is that of draws for all groups.
fn generator(seed: u64, of: u64) -> ChaCha8Rng {
    numbered_rng(seed.wrapping_mul(GROUPS + 1).wrapping_add(of), ANNEALING)
}

/// Chains that one thread runs.
struct Group {
    chains: Vec<Chain>,
    rng: ChaCha8Rng,
    /// The proposals, and the chains that have one.
    proposals: GeneRows,
    movers: Vec<usize>,
    encoded: Encoded,
    /// Where chains have been since the last resampling.
    ways: ByHash<Arc<Ways>>,
    /// Proposals since the last resampling.
    proposed: usize,
}

impl Group {
    fn new(setting: &Setting<'_>, chains: Vec<Chain>, rng: ChaCha8Rng) -> Self {
        let proposals = GeneRows::new(setting.prices.genome().len());
        let movers = Vec::new();
        let encoded = Encoded::default();
        let ways = ByHash::default();
        Self { chains, rng, proposals, movers, encoded, ways, proposed: 0 }
    }

    /// Weighs steps by a temperature, and proposes.
    fn begin(&mut self, setting: &Setting<'_>, temperature: f64) {
        self.chains.iter_mut().for_each(|chain| chain.weigh(temperature));
        self.propose(setting);
    }

    /// A proposal for each chain that has one.
    fn propose(&mut self, setting: &Setting<'_>) {
        let mut suiting = Vec::new();
        let genome = setting.prices.genome();
        self.proposals.clear();
        self.movers.clear();
        for (at, chain) in self.chains.iter().enumerate() {
            let next = self.proposals.push(&chain.row);
            let keeps = (0..TRIES).any(|_| {
                next.copy_from_slice(&chain.row);
                chain.propose(genome, next, &mut suiting, &mut self.rng) && setting.prices.keeps(next)
            });
            if keeps {
                self.movers.push(at);
            } else {
                self.proposals.pop();
            }
        }
        self.proposed += self.movers.len();
    }

    /// Accepts proposals as the temperature allows; `places` is the range of the group's proposals among all.
    fn step(
        &mut self,
        setting: &Setting<'_>,
        scored: &Scored<'_>,
        places: Range<usize>,
        temperature: f64,
    ) -> Result<()> {
        let mut moved = Vec::with_capacity(self.movers.len());
        for (&at, place) in self.movers.iter().zip(places) {
            let merit = setting.aim.merit(&setting.prices, scored, place);
            let chain = &mut self.chains[at];
            let rise = f64::from(merit - chain.merit);
            if rise >= 0.0 || self.rng.random::<f64>() < (rise / temperature).exp() {
                chain.row.copy_from_slice(scored.rows.get(place));
                chain.merit = merit;
                if merit > chain.best.1 {
                    chain.best = (chain.row.clone(), merit);
                }
                moved.push((at, scored.key(place)));
            }
        }
        self.learn(setting, &moved, temperature)
    }

    /// Computes the slopes at new positions, except those that a chain of the group visited recently.
    fn learn(&mut self, setting: &Setting<'_>, moved: &[(usize, u64)], temperature: f64) -> Result<()> {
        self.encoded.clear();
        if self.ways.len() >= MOST_WAYS {
            self.ways.clear();
        }
        let mut fresh: Vec<(usize, u64)> = Vec::with_capacity(moved.len());
        for &(at, key) in moved {
            if !self.ways.contains_key(&key) && fresh.iter().all(|(_, other)| *other != key) {
                self.encoded.push(setting.predictor.features().of(&self.chains[at].row));
                fresh.push((at, key));
            }
        }
        if !fresh.is_empty() {
            let slopes = setting.predictor.slopes(&self.encoded)?.expect("it has slopes");
            for ((at, key), slopes) in fresh.iter().zip(slopes.chunks_exact(slopes.len() / fresh.len())) {
                self.ways.insert(*key, setting.ways(&self.chains[*at].row, slopes));
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

/// Temperatures of all rounds.
struct Schedule {
    /// Rounds per phase.
    rounds: usize,
    /// The gains and losses of steps from the chains' starts.
    unit: f64,
}

impl Schedule {
    fn temperature(&self, phase: usize, round: usize) -> f64 {
        let share = (phase * self.rounds + round) as f64 / (self.rounds * PHASES) as f64;
        self.unit * HOT * (COLD / HOT).powf(share)
    }
}

/// Chains with falling temperatures.
pub(super) struct Annealing<'a> {
    setting: Setting<'a>,
    groups: Vec<Group>,
    schedule: Schedule,
    rng: ChaCha8Rng,
    phase: usize,
    round: usize,
    /// Number of sub-networks that had been evaluated when the phase began.
    before: usize,
}

/// The layout of chains for a number of candidates: chains per group, and rounds per phase; `None` if there are too
/// few.
fn layout(candidates: usize) -> Option<[usize; 2]> {
    let size = (candidates / (GROUPS as usize * ROUNDS)).clamp(CHAINS[0], CHAINS[1]);
    let rounds = candidates / (GROUPS as usize * size * PHASES);
    (rounds * PHASES >= LEAST_ROUNDS).then_some([size, rounds])
}

impl<'a> Annealing<'a> {
    /// Chains at the evaluated `starts`, equally many at each; `scored` has their values. `None` if the candidates are
    /// too few for that, or the aim has no slopes or the same ones everywhere, so that climbs find the best.
    pub fn new(
        aim: Aim<'a>,
        prices: &Prices<'a>,
        scored: &Scored<'_>,
        candidates: usize,
        seed: u64,
    ) -> Result<Option<Self>> {
        let (Some([size, rounds]), Some(predictor)) = (layout(candidates), aim.predictor) else {
            return Ok(None);
        };
        let mut rng = generator(seed, 0);
        let setting = Setting { prices: prices.clone(), aim, predictor };
        let Some(states) = begin(&setting, scored, &mut rng)? else { return Ok(None) };
        let Some(unit) = unit(&states) else { return Ok(None) };
        let groups = (0..GROUPS)
            .map(|group: u64| {
                let begun = states.iter().cycle().skip(group as usize * size % states.len()).take(size);
                Group::new(&setting, begun.cloned().collect(), generator(seed, 1 + group))
            })
            .collect();
        let schedule = Schedule { rounds, unit };
        let mut annealing = Self { setting, groups, schedule, rng, phase: 0, round: 0, before: 0 };
        annealing.begin_phase();
        Ok(Some(annealing))
    }

    fn begin_phase(&mut self) {
        let setting = &self.setting;
        let temperature = self.schedule.temperature(self.phase, 0);
        self.groups.par_iter_mut().for_each(|group| group.begin(setting, temperature));
    }

    /// Adds the proposals of all chains.
    pub fn ask(&mut self, count: usize, rows: &mut GeneRows) {
        if self.round == 0 {
            self.before = count;
        }
        self.groups.iter().for_each(|group| rows.extend(&group.proposals));
    }

    /// Moves the chains; after the last round returns the best row of each, best first.
    pub fn tell(&mut self, count: usize, scored: &Scored<'_>) -> Result<Option<Vec<Vec<Index>>>> {
        let Self { setting, groups, schedule, phase, round, .. } = self;
        let temperatures = [0, 1].map(|later| schedule.temperature(*phase, *round + later));
        let proposes = *round + 1 < schedule.rounds;
        let mut first = 0;
        let parts: Vec<Range<usize>> = groups
            .iter()
            .map(|group| {
                first += group.movers.len();
                first - group.movers.len()..first
            })
            .collect();
        groups.par_iter_mut().zip(parts).try_for_each(|(group, places)| {
            group.step(setting, scored, places, temperatures[0])?;
            if proposes {
                group.propose(setting);
            }
            Ok::<_, crate::Error>(())
        })?;
        self.round += 1;
        Ok(if proposes || self.next_phase(count) { None } else { Some(self.best()) })
    }

    /// Resamples chains and begins the next phase; `false` if there is none.
    fn next_phase(&mut self, count: usize) -> bool {
        self.groups.iter_mut().for_each(|group| group.ways.clear());
        let proposed: usize = self.groups.iter_mut().map(|group| mem::take(&mut group.proposed)).sum();
        let fresh = count - self.before;
        (self.phase, self.round) = (self.phase + 1, 0);
        if fresh as f64 <= LEAST_FRESH * proposed as f64 {
            return false;
        }
        let temperature = |phase| self.schedule.temperature(phase, 0);
        let colder = 1.0 / temperature(self.phase) - 1.0 / temperature(self.phase - 1);
        let mut chains: Vec<&mut Chain> =
            self.groups.iter_mut().flat_map(|group| &mut group.chains).collect();
        draw_anew(&mut chains, colder, self.rng.random());
        if self.phase < PHASES {
            self.begin_phase();
        }
        self.phase < PHASES
    }

    /// The best row of each chain, best first.
    fn best(&mut self) -> Vec<Vec<Index>> {
        let chains = self.groups.drain(..).flat_map(|group| group.chains);
        let mut best: Vec<(Vec<Index>, f32)> = chains.map(|chain| chain.best).collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        best.dedup_by(|a, b| a.0 == b.0);
        best.into_iter().map(|(genes, _)| genes).collect()
    }
}

/// The gains and losses of steps from the chains' starts: the root of the mean square; `None` if all gain nothing.
fn unit(chains: &[Chain]) -> Option<f64> {
    let squares =
        chains.iter().flat_map(|chain| chain.ways.ways.iter().map(|step| f64::from(step.gain).powi(2)));
    let (sum, count) = squares.fold((0.0, 0.0), |(sum, count), square| (sum + square, count + 1.0));
    (sum != 0.0).then(|| f64::sqrt(sum / count))
}

/// A chain at each start.
fn begin(setting: &Setting<'_>, scored: &Scored<'_>, rng: &mut ChaCha8Rng) -> Result<Option<Vec<Chain>>> {
    let Setting { prices, aim, predictor } = setting;
    let mut encoded = Encoded::default();
    scored.rows.iter().for_each(|row| encoded.push(predictor.features().of(row)));
    // another one, to see whether slopes differ
    let mut other = scored.rows.get(0).to_vec();
    prices.genome().mutate(&mut other, 1.0, rng);
    encoded.push(predictor.features().of(&other));
    let Some(slopes) = predictor.slopes(&encoded)? else { return Ok(None) };
    let mut slopes = slopes.chunks_exact(slopes.len() / encoded.len());
    let last = slopes.next_back();
    if slopes.clone().all(|slopes| Some(slopes) == last) {
        return Ok(None);
    }
    let mut chains = Vec::new();
    for (at, slopes) in slopes.enumerate() {
        let row = scored.rows.get(at);
        let merit = aim.merit(prices, scored, at);
        chains.push(Chain::new(row.to_vec(), merit, setting.ways(row, slopes)));
    }
    Ok(Some(chains))
}
