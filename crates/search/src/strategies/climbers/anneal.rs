//! Simulated annealing with informed proposals, for objectives that have slopes.
//!
//! A chain of random steps goes downwards as well, the less the colder it is (Kirkpatrick, Gelatt and Vecchi 1983). Slopes
//! say about what each step gains, so that promising ones are proposed (Zanella 2020; Grathwohl et al. 2021), together with
//! others that make room for them where the limits ask for that; the objective itself decides. Between phases chains are
//! drawn anew, each by how much more probable it is at the colder temperature (population annealing, Hukushima and Iba
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

/// What chains go after, and what they keep.
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

/// The generator of a group, or of what is drawn for all, which is 0.
fn generator(seed: u64, of: u64) -> ChaCha8Rng {
    numbered_rng(seed.wrapping_mul(GROUPS + 1).wrapping_add(of), ANNEALING)
}

/// Chains that one thread looks after.
struct Group {
    chains: Vec<Chain>,
    rng: ChaCha8Rng,
    /// Where the chains that have a proposal would go, and which chains these are.
    proposals: GeneRows,
    movers: Vec<usize>,
    encoded: Encoded,
    /// Where chains have been since the last draw.
    ways: ByHash<Arc<Ways>>,
    /// Proposals since the last draw.
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
            let mut kept = || {
                next.copy_from_slice(&chain.row);
                chain.propose(genome, next, &mut suiting, &mut self.rng) && setting.prices.keeps(next)
            };
            if (0..TRIES).any(|_| kept()) {
                self.movers.push(at);
            } else {
                self.proposals.pop();
            }
        }
        self.proposed += self.movers.len();
    }

    /// Goes where the temperature allows; `places` is where the group's proposals stand among all.
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

    /// Asks for the slopes where chains went, unless one of them was there lately.
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
    /// Rounds of a phase.
    rounds: usize,
    /// What steps gain or lose where chains begin.
    unit: f64,
}

impl Schedule {
    fn temperature(&self, phase: usize, round: usize) -> f64 {
        let share = (phase * self.rounds + round) as f64 / (self.rounds * PHASES) as f64;
        self.unit * HOT * (COLD / HOT).powf(share)
    }
}

/// Chains on their way down the temperatures.
pub(super) struct Annealing<'a> {
    setting: Setting<'a>,
    groups: Vec<Group>,
    schedule: Schedule,
    rng: ChaCha8Rng,
    phase: usize,
    round: usize,
    /// Sub-networks that had been looked at when the phase began.
    before: usize,
}

/// How chains are laid out for so many candidates: chains of a group, and rounds of a phase; `None` if these are too few.
fn layout(candidates: usize) -> Option<[usize; 2]> {
    let size = (candidates / (GROUPS as usize * ROUNDS)).clamp(CHAINS[0], CHAINS[1]);
    let rounds = candidates / (GROUPS as usize * size * PHASES);
    (rounds * PHASES >= LEAST_ROUNDS).then_some([size, rounds])
}

impl<'a> Annealing<'a> {
    /// Chains at `starts`, as many at each, which were looked at: `scored` is of them. `None` if the candidates are too few
    /// for that, or the aim has no slopes or the same ones everywhere, so that climbs find what is best.
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

    /// Adds what all chains propose.
    pub fn ask(&mut self, count: usize, rows: &mut GeneRows) {
        if self.round == 0 {
            self.before = count;
        }
        self.groups.iter().for_each(|group| rows.extend(&group.proposals));
    }

    /// Lets chains go; the best that each met, best first, once that was the last round.
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

    /// Draws chains anew and begins the next phase; `false` if there is none.
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

    /// The best that each chain met, best first.
    fn best(&mut self) -> Vec<Vec<Index>> {
        let chains = self.groups.drain(..).flat_map(|group| group.chains);
        let mut best: Vec<(Vec<Index>, f32)> = chains.map(|chain| chain.best).collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        best.dedup_by(|a, b| a.0 == b.0);
        best.into_iter().map(|(genes, _)| genes).collect()
    }
}

/// What steps gain or lose from where chains begin: the root of the mean square; `None` if all gain nothing.
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
    Ok(Some(
        slopes
            .enumerate()
            .map(|(at, slopes): (usize, &[f32])| {
                let row = scored.rows.get(at);
                Chain::new(row.to_vec(), aim.merit(prices, scored, at), setting.ways(row, slopes))
            })
            .collect(),
    ))
}
