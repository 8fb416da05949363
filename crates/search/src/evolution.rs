//! The search as a whole: chains of random steps, where the objective has slopes ([`super::anneal`]), then climbers. Each
//! goes from a sub-network to the best of its neighbours, of pairs of steps and of longer jumps, until nothing there is
//! better; then it starts anew from a mutation or a mixture of the best that were found (a memetic search, Moscato 1989,
//! with Once-for-All's mutations and crossovers).
//!
//! What is found keeps the limits: a start that does not is changed where it costs most for what it gains, else led
//! towards a feasible one gene by gene, instead of being drawn again. Work is bounded by a number of candidates. What is
//! found depends on the seed and the inputs alone, not on time or threads.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{self, AtomicBool};

use base::random::numbered_rng;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use space::{Genome, Index, Row, Steps};

use super::anneal::{Problem, anneal};
use super::climb::{Place, Worth};
use super::constraint::Limits;
use super::genes::{self, GeneFeatures, Places, hash};
use super::index::{Candidate, CostIndex};
use super::known::{Known, Point, Rows, Scored};
use super::objective::Objective;
use super::pareto;
use super::start;
use crate::error::Result;

/// Stream of its random numbers.
const SEARCH: u64 = 6;

/// How candidates are made.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchConfig {
    /// Decides every random choice.
    pub seed: u64,
    /// Sub-networks that climb side by side: 8, so that a round of them is work for several threads.
    pub population: usize,
    /// Candidates after which no further round begins: 60,000; Once-for-All's search looks at 50,000 (500 generations of
    /// 100, Cai et al. 2020).
    pub candidates: usize,
    /// Share of those by annealing, before the climbs, where the objective has slopes: .9. The rest is for the climbs, also
    /// where annealing ends before its share is spent.
    pub annealed: f64,
    /// Ends of climbs, the best ones, that others begin at: 16.
    pub parents: usize,
    /// Share of those by mutation, the others by crossover: .5 (Cai et al. 2020).
    pub mutated: f64,
    /// Probability with which a mutation redraws a gene: .3. It is not .1 as in a search without climbs, for a climb from
    /// near an end leads back to it.
    pub gene_probability: f64,
    /// Climbs without a better candidate after which a search ends.
    pub patience: usize,
    /// Further latency limits, evenly spaced between the least latency and the limit, that are searched for
    /// the front; 0 for none.
    pub front_limits: usize,
    /// Most candidates for each of those.
    pub front_candidates: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            population: 8,
            candidates: 60_000,
            annealed: 0.9,
            parents: 16,
            mutated: 0.5,
            gene_probability: 0.3,
            patience: 300,
            front_limits: 0,
            front_candidates: 5_000,
        }
    }
}

impl SearchConfig {
    fn check(&self) -> Result<()> {
        let shares = [
            ("annealed", self.annealed),
            ("mutated", self.mutated),
            ("gene_probability", self.gene_probability),
        ];
        for (field, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(base::Error::invalid("search", field, "a share from 0 to 1", share).into());
            }
        }
        for (field, number) in [("population", self.population), ("parents", self.parents)] {
            if number == 0 {
                return Err(base::Error::invalid("search", field, "at least 1", 0).into());
            }
        }
        Ok(())
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchReport {
    /// The candidate with the highest expected accuracy; of equals the fastest.
    pub best: Candidate,
    /// Number of different sub-networks whose accuracy was predicted.
    pub candidates: u64,
    /// What nothing seen is better than in both accuracy and latency, fastest first.
    pub front: Vec<Candidate>,
    /// The candidates with the highest expected accuracies, best first: [`TOP`](super::TOP) of them where there are so many.
    pub top: Vec<Candidate>,
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

/// A sub-network on its way up.
#[derive(Clone, Debug)]
struct Climber {
    genes: Vec<Index>,
    scored: Scored,
    worth: Worth,
    /// Whether the worth was learnt somewhere else.
    stale: bool,
}

/// Best first: accuracy, then latency, then the genes' own order, so that no two are equal.
fn order((a, ours): (&Scored, &Row), (b, theirs): (&Scored, &Row)) -> Ordering {
    b.accuracy
        .total_cmp(&a.accuracy)
        .then(a.costs.latency_us.total_cmp(&b.costs.latency_us))
        .then_with(|| ours.cmp(theirs))
}

/// Steps and pairs of steps that a climber looks at by what it learnt somewhere else, and by what it learnt where it
/// stands.
const FEW_PAIRS: usize = 48;
const MANY_PAIRS: usize = 160;
/// Mutations and mixtures that are looked at for each climb; the best begins it.
const VARIANTS: usize = 4;
/// Most neighbours that are looked at; spaces with more choices show a random part of them.
const MOST_STEPS: usize = 2048;
/// Rounds that a climber at each resolution gets before the best go on.
const TRIAL_ROUNDS: usize = 2;

struct Search<'a> {
    index: &'a CostIndex,
    places: Places,
    config: &'a SearchConfig,
    stop: &'a AtomicBool,
    rng: ChaCha8Rng,
    known: Known<'a>,
    /// Where climbs ended under the present limits, best first.
    ends: Vec<Climber>,
    /// What is led back while there are none: something feasible at each resolution.
    anchors: Vec<Climber>,
    /// Hashes of what climbs began at.
    begun: HashSet<u64>,
    /// Rows and scores of neighbours, and of what is proposed beyond them.
    rows: [Rows; 2],
    scores: [Vec<Scored>; 2],
}

/// Searches the index's space for the highest accuracy that the estimator expects under the limits.
///
/// When `stop` is set it returns what was best until then.
///
/// # Errors
/// [`crate::Error::Infeasible`] if one limit alone rules everything out; [`crate::Error::InfeasibleTogether`] if several together are
/// proved to; [`crate::Error::NotFound`] if nothing was found that keeps all; or if the estimator is of another space.
pub fn evolve(
    index: &CostIndex,
    estimator: &dyn Objective,
    limits: &Limits,
    config: &SearchConfig,
    stop: &AtomicBool,
) -> Result<SearchReport> {
    check_space(index, estimator)?;
    check_latency(index, limits, config)?;
    config.check()?;
    limits.check_each(index)?;
    let features = GeneFeatures::new(index.space(), estimator.encoder());
    let features = features.expect("the estimator has the space's resolutions");
    let mut search = Search::new(index, Known::new(index, estimator, features.clone(), limits), config, stop);
    let mut starts = start::starts(index, limits)?;
    let problem = Problem { index, limits, objective: estimator, features: &features };
    let annealed = (config.annealed * config.candidates as f64) as usize;
    let stopped = || stop.load(atomic::Ordering::Relaxed);
    let mut left = config.candidates;
    if let Some(met) = anneal(&mut search.known, problem, &starts, annealed, config.seed, stopped)? {
        starts = met;
        starts.truncate(config.population);
        left -= annealed;
    }
    left = left.min(config.candidates.saturating_sub(search.known.count()));
    search.climb_from(starts, limits, left)?;
    if config.front_limits > 0 {
        search.explore_front(limits)?;
        search.look_around_front()?;
    }
    Ok(search.report())
}

/// A latency can be limited only where there is a table.
fn check_latency(index: &CostIndex, limits: &Limits, config: &SearchConfig) -> Result<()> {
    if index.has_latency() || (limits.latency_us.is_none() && config.front_limits == 0) {
        return Ok(());
    }
    let expected = "a latency table, for a limit on latency and for a front";
    Err(base::Error::invalid("search", "latency", expected, "none").into())
}

fn check_space(index: &CostIndex, estimator: &dyn Objective) -> Result<()> {
    let (ours, theirs) = (index.space(), estimator.space());
    // a search may be of some of the space's resolutions only
    if theirs.at_resolutions(ours.resolutions()).is_ok_and(|same| same.fingerprint() == ours.fingerprint()) {
        return Ok(());
    }
    let describe = |space: &space::SearchSpace| format!("{} ({})", space.name(), space.fingerprint());
    let error = base::Error::invalid("estimator", "space", describe(ours), describe(theirs));
    Err(error.and_then_do("fit an estimator to sub-networks of the searched space").into())
}

/// Starts.
impl<'a> Search<'a> {
    fn new(index: &'a CostIndex, known: Known<'a>, config: &'a SearchConfig, stop: &'a AtomicBool) -> Self {
        let width = index.genome().len();
        let (rng, rows) = (numbered_rng(config.seed, SEARCH), [Rows::new(width), Rows::new(width)]);
        let (ends, anchors, begun) = (Vec::new(), Vec::new(), HashSet::new());
        let scores = [Vec::new(), Vec::new()];
        let places = Places::new(index.genome());
        Self { index, places, config, stop, rng, known, ends, anchors, begun, rows, scores }
    }

    fn genome(&self) -> &'a Genome {
        self.index.genome()
    }

    fn stopped(&self) -> bool {
        self.stop.load(atomic::Ordering::Relaxed)
    }

    /// So many places to begin at that were not begun at before: mutations of ends or mixtures of two, while there are
    /// none random sub-networks, changed elsewhere until they are feasible. Fewer, where ten tries for each gave nothing.
    fn others(&mut self, wanted: usize, limits: &Limits) -> Vec<Climber> {
        let mut drawn = Vec::with_capacity(wanted);
        for _ in 0..wanted * VARIANTS {
            drawn.push(self.drawn());
        }
        let seed = self.rng.random::<u64>();
        let (index, places) = (self.index, &self.places);
        let repaired = |(place, (genes, parent)): (usize, (Vec<Index>, Climber))| {
            let locked: Vec<bool> =
                genes.iter().zip(&parent.genes).map(|(ours, theirs)| ours != theirs).collect();
            let place_from = Place { index, limits, places, row: &genes, worth: &parent.worth };
            let genes = place_from.repaired(&locked).unwrap_or_else(|| {
                let mut genes = genes.clone();
                let mut rng = numbered_rng(seed.wrapping_add(place as u64), SEARCH);
                let keeps = |genes: &Row| limits.keeps(&index.costs_of(genes));
                index.genome().toward(&mut genes, &parent.genes, &mut rng, keeps);
                genes
            });
            Climber { genes, stale: true, ..parent }
        };
        let all: Vec<Climber> = drawn.into_par_iter().enumerate().map(repaired).collect();
        all.into_iter().filter(|climber| self.begun.insert(hash(&climber.genes))).collect()
    }

    /// A mutation or a mixture, and what it was made of.
    fn drawn(&mut self) -> (Vec<Index>, Climber) {
        let from = if self.ends.is_empty() { &self.anchors } else { &self.ends };
        let [parent, other] = [(); 2].map(|()| &from[self.rng.random_range(0..from.len())]);
        let (mut genes, mutated) = (parent.genes.clone(), self.rng.random_bool(self.config.mutated));
        let genome = self.index.genome();
        if self.ends.is_empty() {
            genome.mutate(&mut genes, 1.0, &mut self.rng);
        } else if parent.genes == other.genes || mutated {
            genome.mutate(&mut genes, self.config.gene_probability, &mut self.rng);
        } else {
            genome.mix(&mut genes, &other.genes, &mut self.rng);
        }
        (genes, parent.clone())
    }
}

/// Climbs.
impl Search<'_> {
    /// Climbs from the starts, then from mixtures of the ends, until so many more candidates were looked at or nothing
    /// better was found for long.
    fn climb_from(&mut self, starts: Vec<Vec<Index>>, limits: &Limits, candidates: usize) -> Result<()> {
        let most = self.known.count() + candidates;
        self.ends.clear();
        let worth = Worth::new(&self.places);
        let start = |genes| Climber { genes, scored: Scored::default(), worth: worth.clone(), stale: false };
        let mut climbers = self.placed(starts.into_iter().map(start).collect())?;
        self.anchors = climbers.clone();
        for _ in 0..TRIAL_ROUNDS {
            if climbers.len() > self.config.population && !self.stopped() {
                climbers = self.round(climbers, limits)?;
            }
        }
        sort(&mut climbers);
        climbers.truncate(self.config.population);
        let mut idle = 0;
        while !self.stopped() && self.known.count() < most && idle < self.config.patience {
            let best = self.ends.first().map(|end| end.scored.accuracy);
            let before = climbers.len();
            climbers = self.round(climbers, limits)?;
            let better = self.ends.first().map(|end| end.scored.accuracy) != best;
            idle = if better { 0 } else { idle + before - climbers.len() };
            let wanted = self.config.population - climbers.len();
            if wanted > 0 {
                let others = self.others(wanted, limits);
                let mut others = self.placed(others)?;
                sort(&mut others);
                others.truncate(wanted);
                climbers.extend(others);
            }
            if climbers.is_empty() {
                break;
            }
        }
        for climber in climbers {
            end(&mut self.ends, climber, self.config.parents);
        }
        Ok(())
    }

    /// The climbers with what is known of where they stand.
    fn placed(&mut self, mut climbers: Vec<Climber>) -> Result<Vec<Climber>> {
        let [rows, _] = &mut self.rows;
        rows.clear();
        for climber in &climbers {
            rows.push(&climber.genes);
        }
        self.known.look(rows, &mut self.scores[0])?;
        climbers.iter_mut().zip(&self.scores[0]).for_each(|(climber, scored)| climber.scored = *scored);
        Ok(climbers)
    }

    /// One step of each climber; those for whom nothing is better are ends and do not come back.
    fn round(&mut self, mut climbers: Vec<Climber>, limits: &Limits) -> Result<Vec<Climber>> {
        self.learn(&mut climbers)?;
        let places = self.look_further(&climbers, limits)?;
        let mut going = Vec::with_capacity(climbers.len());
        for (climber, places) in climbers.into_iter().zip(places) {
            let candidates = places.map(|place| (&self.scores[1][place], self.rows[1].get(place)));
            let best = candidates.min_by(|a, b| order(*a, *b));
            match best.filter(|best| order(*best, (&climber.scored, &climber.genes)).is_lt()) {
                Some((scored, genes)) => {
                    let (genes, scored) = (genes.to_vec(), *scored);
                    going.push(Climber { genes, scored, stale: true, ..climber });
                }
                None if climber.stale => going.push(Climber { stale: false, ..climber }),
                None => end(&mut self.ends, climber, self.config.parents),
            }
        }
        Ok(going)
    }

    /// Looks at all neighbours of the climbers that know of no better place.
    fn learn(&mut self, climbers: &mut [Climber]) -> Result<()> {
        let [rows, _] = &mut self.rows;
        rows.clear();
        let mut all = Vec::new();
        for climber in climbers.iter().filter(|climber| !climber.stale) {
            let mut steps = Steps::default();
            genes::steps(self.index.space(), &climber.genes, &[], &mut steps);
            while steps.steps.len() > MOST_STEPS {
                let out = self.rng.random_range(0..steps.steps.len());
                steps.steps.swap_remove(out);
            }
            for step in &steps.steps {
                steps.apply(self.index.genome(), *step, rows.push(&climber.genes));
            }
            all.push(steps);
        }
        self.known.look(rows, &mut self.scores[0])?;
        let mut scores = &self.scores[0][..];
        for (climber, steps) in climbers.iter_mut().filter(|climber| !climber.stale).zip(&all) {
            let (near, rest) = scores.split_at(steps.steps.len());
            climber.worth.learn(&self.places, &climber.scored, steps, near);
            scores = rest;
        }
        Ok(())
    }

    /// Looks at several steps at once; where the rows of each climber are.
    fn look_further(&mut self, climbers: &[Climber], limits: &Limits) -> Result<Vec<Range<usize>>> {
        let (index, places, width) = (self.index, &self.places, self.genome().len());
        let proposed = |climber: &Climber| {
            let mut rows = Rows::new(width);
            let Climber { genes, worth, .. } = climber;
            Place { index, limits, places, row: genes, worth }
                .propose(if climber.stale { FEW_PAIRS } else { MANY_PAIRS }, &mut rows);
            rows
        };
        let proposed: Vec<Rows> = climbers.par_iter().map(proposed).collect();
        let [_, rows] = &mut self.rows;
        rows.clear();
        let mut found = Vec::with_capacity(climbers.len());
        for proposed in proposed {
            let start = rows.len();
            rows.extend(&proposed);
            found.push(start..rows.len());
        }
        self.known.look(rows, &mut self.scores[1])?;
        Ok(found)
    }

    /// Searches under tighter latency limits as well, from the loosest to the tightest.
    fn explore_front(&mut self, limits: &Limits) -> Result<()> {
        let steps = self.config.front_limits;
        let front = self.known.front();
        let highest = front.iter().map(|point| point.scored.costs.latency_upper_us).fold(0.0, f64::max);
        let least = self.index.least(super::Quantity::Latency).1.latency_upper_us;
        for step in (1..=steps).rev() {
            let latency = least + (highest - least) * step as f64 / (steps + 1) as f64;
            let tighter = Limits { latency_us: Some(latency), ..*limits };
            let keeps = |point: &&Point| tighter.keeps(&point.scored.costs);
            let seen = self.known.front().iter().rev().filter(keeps).take(self.config.population);
            let mut starts: Vec<_> = seen.map(|point| point.genes.clone()).collect();
            if starts.is_empty() {
                // tighter still is not to be had together with the other limits
                let Ok(feasible) = start::starts(self.index, &tighter) else { break };
                starts = feasible;
            }
            self.climb_from(starts, &tighter, self.config.front_candidates)?;
        }
        Ok(())
    }

    /// Looks at all neighbours of what is on the front, the fastest first, until none of them is new there or the
    /// candidates of one more latency limit are spent: tight limits lie closer together than those that were searched.
    fn look_around_front(&mut self) -> Result<()> {
        let most = self.known.count() + self.config.front_candidates;
        let (mut seen, mut steps) = (HashSet::new(), Steps::default());
        while !self.stopped() && self.known.count() < most {
            let fresh = |point: &&Point| seen.insert(hash(&point.genes));
            let fresh: Vec<Vec<Index>> = self
                .known
                .front()
                .iter()
                .filter(fresh)
                .take(self.config.population)
                .map(|point| point.genes.clone())
                .collect();
            if fresh.is_empty() {
                break;
            }
            let [rows, _] = &mut self.rows;
            rows.clear();
            for genes in &fresh {
                genes::steps(self.index.space(), genes, &[], &mut steps);
                steps.steps.truncate(MOST_STEPS);
                steps.steps.iter().for_each(|step| steps.apply(self.index.genome(), *step, rows.push(genes)));
            }
            self.known.look(rows, &mut self.scores[0])?;
        }
        Ok(())
    }

    fn report(self) -> SearchReport {
        let interrupted = self.stopped();
        let candidate = |point: &Point| {
            let arch = self.index.space().arch(&point.genes);
            self.index.candidate(arch, point.scored.accuracy, &point.scored.costs)
        };
        let front = self.known.front();
        SearchReport {
            best: candidate(front.last().expect("a feasible start was looked at")),
            candidates: self.known.count() as u64,
            front: pareto::front(front.iter().map(candidate)),
            top: self.known.best().iter().map(candidate).collect(),
            interrupted,
        }
    }
}

fn sort(climbers: &mut [Climber]) {
    climbers.sort_by(|a, b| order((&a.scored, &a.genes), (&b.scored, &b.genes)));
}

/// Enters where a climb ended, if it is new and among the best.
fn end(ends: &mut Vec<Climber>, climber: Climber, most: usize) {
    let place = ends
        .partition_point(|end| order((&end.scored, &end.genes), (&climber.scored, &climber.genes)).is_lt());
    if ends.get(place).is_none_or(|end| end.genes != climber.genes) {
        ends.insert(place, climber);
        ends.truncate(most);
    }
}

#[cfg(test)]
pub(crate) mod tests;
