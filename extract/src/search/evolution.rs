//! Evolutionary search (Real et al. 2019, as Once-for-All uses it), with bounded work for every candidate.
//!
//! Every candidate keeps the limits: one that does not is led towards a feasible one, gene by gene, instead of
//! being drawn again. What is found depends on the seed and the inputs alone, not on time or threads.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::atomic::{self, AtomicBool};

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use supernet::space::{Arch, sampler};

use super::constraint::Limits;
use super::genes::{corners, neighbours, toward};
use super::index::{Candidate, CostIndex, Costs};
use super::objective::Objective;
use super::pareto;
use crate::error::{Error, Result};
use crate::rng::{Purpose, rng};

/// How candidates are made.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchConfig {
    /// Decides every random choice.
    pub seed: u64,
    /// Candidates of a generation: 100 (Cai et al. 2020).
    pub population: usize,
    /// Most generations: 500 (Cai et al. 2020).
    pub generations: usize,
    /// Share of the population that has children: .25 (Cai et al. 2020).
    pub parents: f64,
    /// Share of children by mutation, the others by crossover: .5 (Cai et al. 2020).
    pub mutated: f64,
    /// Probability with which a mutation redraws a gene: .1 (Cai et al. 2020).
    pub gene_probability: f64,
    /// Generations without a better candidate after which a search ends.
    pub patience: usize,
    /// Further latency limits, evenly spaced between the least latency and the limit, that are searched for
    /// the front; 0 for none.
    pub front_limits: usize,
    /// Most generations for each of those.
    pub front_generations: usize,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            population: 100,
            generations: 500,
            parents: 0.25,
            mutated: 0.5,
            gene_probability: 0.1,
            patience: 40,
            front_limits: 0,
            front_generations: 40,
        }
    }
}

impl SearchConfig {
    fn check(&self) -> Result<()> {
        for (field, share) in [
            ("parents", self.parents),
            ("mutated", self.mutated),
            ("gene_probability", self.gene_probability),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(supernet::Error::invalid("search", field, "a share from 0 to 1", share).into());
            }
        }
        if self.population == 0 {
            return Err(supernet::Error::invalid("search", "population", "at least 1", 0).into());
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
    /// Whether `stop` ended it.
    pub interrupted: bool,
}

#[derive(Clone, Debug)]
struct Scored {
    arch: Arch,
    accuracy: f32,
    costs: Costs,
}

/// Best first: accuracy, then latency, then the architecture's own order, so that no two are equal.
fn order(a: &Scored, b: &Scored) -> Ordering {
    b.accuracy
        .total_cmp(&a.accuracy)
        .then(a.costs.latency_us.total_cmp(&b.costs.latency_us))
        .then_with(|| a.arch.cmp(&b.arch))
}

struct Search<'a> {
    index: &'a CostIndex,
    estimator: &'a dyn Objective,
    config: &'a SearchConfig,
    stop: &'a AtomicBool,
    rng: ChaCha8Rng,
    seen: BTreeSet<Arch>,
    evaluated: Vec<Scored>,
}

/// Searches the index's space for the highest accuracy that the estimator expects under the limits.
///
/// When `stop` is set it returns what was best until then.
///
/// # Errors
/// [`Error::Infeasible`] if one limit alone rules everything out; [`Error::NotFound`] if nothing was found
/// that keeps all; or if the estimator is of another space.
pub fn evolve(
    index: &CostIndex,
    estimator: &dyn Objective,
    limits: &Limits,
    config: &SearchConfig,
    stop: &AtomicBool,
) -> Result<SearchReport> {
    check_space(index, estimator)?;
    config.check()?;
    limits.check_each(index)?;
    let (seen, evaluated) = (BTreeSet::new(), Vec::new());
    let rng = rng(config.seed, Purpose::Search);
    let mut search = Search { index, estimator, config, stop, rng, seen, evaluated };
    let anchor = search.feasible(limits)?;
    search.evolve(&anchor, limits, config.generations)?;
    search.climb(limits)?;
    search.explore_front(limits)?;
    Ok(search.report())
}

fn check_space(index: &CostIndex, estimator: &dyn Objective) -> Result<()> {
    let (ours, theirs) = (index.space(), estimator.space());
    // a search may be of some of the space's resolutions only
    if theirs.at_resolutions(ours.resolutions()).is_ok_and(|same| same.fingerprint() == ours.fingerprint()) {
        return Ok(());
    }
    let describe =
        |space: &supernet::space::SearchSpace| format!("{} ({})", space.name(), space.fingerprint());
    let error = supernet::Error::invalid("estimator", "space", describe(ours), describe(theirs));
    Err(error.and_then_do("fit an estimator to sub-networks of the searched space").into())
}

impl Search<'_> {
    fn costs(&self, arch: &Arch) -> Costs {
        self.index.costs(arch).expect("every step stays in the space")
    }

    fn stopped(&self) -> bool {
        self.stop.load(atomic::Ordering::Relaxed)
    }

    /// A sub-network that keeps all limits, by steepest descent from the one with the least of each quantity.
    fn feasible(&self, limits: &Limits) -> Result<Arch> {
        let mut closest: Option<(f64, Arch)> = None;
        let starts = limits.iter().map(|(quantity, _)| self.index.least(quantity).0);
        for start in starts.chain([sampler::smallest(self.index.space())]) {
            let (violation, arch) = self.descend(start, limits);
            if violation == 0.0 {
                return Ok(arch);
            }
            if closest.as_ref().is_none_or(|(least, _)| violation < *least) {
                closest = Some((violation, arch));
            }
        }
        let (_, arch) = closest.expect("there is at least one start");
        let got = limits.describe(&self.costs(&arch));
        Err(Error::NotFound { limits: limits.to_string(), closest: Box::new(arch), got })
    }

    fn descend(&self, mut arch: Arch, limits: &Limits) -> (f64, Arch) {
        let violation = |arch: &Arch| limits.violation(&self.costs(arch));
        let mut least = violation(&arch);
        while least > 0.0 {
            let steps =
                neighbours(self.index.space(), &arch).into_iter().map(|next| (violation(&next), next));
            let Some((next, step)) = steps.min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)))
            else {
                break;
            };
            if next >= least {
                break;
            }
            (least, arch) = (next, step);
        }
        (least, arch)
    }

    /// Predicts those that are new and keep the limits.
    fn evaluate(&mut self, archs: Vec<Arch>, limits: &Limits) -> Result<()> {
        let mut fresh = Vec::with_capacity(archs.len());
        for arch in archs {
            if limits.keeps(&self.costs(&arch)) && self.seen.insert(arch.clone()) {
                fresh.push(arch);
            }
        }
        let accuracies = self.estimator.predict(&fresh)?;
        for (arch, accuracy) in fresh.into_iter().zip(accuracies) {
            let costs = self.costs(&arch);
            self.evaluated.push(Scored { arch, accuracy, costs });
        }
        Ok(())
    }

    /// The best of what was evaluated under the limits, best first.
    fn survivors(&self, from: impl Iterator<Item = usize>, limits: &Limits) -> Vec<usize> {
        let mut all: Vec<usize> = from.filter(|&at| limits.keeps(&self.evaluated[at].costs)).collect();
        all.sort_unstable_by(|&a, &b| order(&self.evaluated[a], &self.evaluated[b]));
        all.truncate(self.config.population);
        all
    }

    fn evolve(&mut self, anchor: &Arch, limits: &Limits, generations: usize) -> Result<()> {
        let first = self.first_generation(anchor, limits);
        self.evaluate(first, limits)?;
        let mut population = self.survivors(0..self.evaluated.len(), limits);
        let mut idle = 0;
        for _ in 0..generations {
            if idle >= self.config.patience || self.stopped() {
                break;
            }
            let children = self.children(&population, anchor, limits);
            let before = self.evaluated.len();
            self.evaluate(children, limits)?;
            if self.evaluated.len() == before {
                break;
            }
            let best = population.first().copied();
            let candidates = population.iter().copied().chain(before..self.evaluated.len());
            population = self.survivors(candidates, limits);
            idle = if population.first().copied() == best { idle + 1 } else { 0 };
        }
        Ok(())
    }

    /// The corners of the space and random sub-networks, led towards `anchor` until they are feasible, and
    /// `anchor` itself.
    fn first_generation(&mut self, anchor: &Arch, limits: &Limits) -> Vec<Arch> {
        let mut archs = vec![anchor.clone()];
        for corner in corners(self.index.space()) {
            archs.push(self.repaired(corner, anchor, limits));
        }
        let mut distinct: BTreeSet<Arch> = archs.iter().cloned().collect();
        for _ in 0..10 * self.config.population {
            if distinct.len() >= self.config.population {
                break;
            }
            let random = sampler::random(self.index.space(), &mut self.rng);
            let arch = self.repaired(random, anchor, limits);
            if distinct.insert(arch.clone()) {
                archs.push(arch);
            }
        }
        archs
    }

    fn repaired(&mut self, mut arch: Arch, anchor: &Arch, limits: &Limits) -> Arch {
        let index = self.index;
        let keeps = |arch: &Arch| index.costs(arch).is_some_and(|costs| limits.keeps(&costs));
        if !keeps(&arch) {
            toward(&mut arch, anchor, &mut self.rng, keeps);
        }
        arch
    }

    /// New sub-networks from the best of the population; where those run out, random ones.
    fn children(&mut self, population: &[usize], anchor: &Arch, limits: &Limits) -> Vec<Arch> {
        let wanted = self.config.population;
        let parents = ((wanted as f64 * self.config.parents) as usize).clamp(1, population.len());
        let mut children = BTreeSet::new();
        for attempt in 0..10 * wanted {
            if children.len() >= wanted {
                break;
            }
            let child = if attempt < 5 * wanted {
                self.child(&population[..parents], limits)
            } else {
                let random = sampler::random(self.index.space(), &mut self.rng);
                self.repaired(random, anchor, limits)
            };
            if !self.seen.contains(&child) {
                children.insert(child);
            }
        }
        children.into_iter().collect()
    }

    fn child(&mut self, parents: &[usize], limits: &Limits) -> Arch {
        let space = self.index.space();
        let parent = self.evaluated[parents[self.rng.random_range(0..parents.len())]].arch.clone();
        let child = if self.rng.random_bool(self.config.mutated) {
            sampler::mutate(space, &parent, self.config.gene_probability, &mut self.rng)
        } else {
            let other = &self.evaluated[parents[self.rng.random_range(0..parents.len())]].arch;
            sampler::crossover(&parent, other, &mut self.rng)
        };
        self.repaired(child, &parent, limits)
    }

    /// From the best, always to the best of what differs in one gene, until nothing there is better.
    fn climb(&mut self, limits: &Limits) -> Result<()> {
        while !self.stopped() {
            let best = self.best(limits).cloned();
            let Some(best) = best else { break };
            self.evaluate(neighbours(self.index.space(), &best.arch), limits)?;
            if self.best(limits).is_some_and(|now| now.arch == best.arch) {
                break;
            }
        }
        Ok(())
    }

    fn best(&self, limits: &Limits) -> Option<&Scored> {
        self.evaluated.iter().filter(|scored| limits.keeps(&scored.costs)).min_by(|a, b| order(a, b))
    }

    /// Searches under tighter latency limits as well, from the loosest to the tightest.
    fn explore_front(&mut self, limits: &Limits) -> Result<()> {
        let steps = self.config.front_limits;
        let highest = self.evaluated.iter().map(|scored| scored.costs.latency_upper_us).fold(0.0, f64::max);
        let least = self.index.least(super::Quantity::Latency).1.latency_upper_us;
        for step in (1..=steps).rev() {
            let latency = least + (highest - least) * step as f64 / (steps + 1) as f64;
            let tighter = Limits { latency_us: Some(latency), ..*limits };
            // tighter still is not to be had together with the other limits
            let Ok(anchor) = self.feasible(&tighter) else { break };
            self.evolve(&anchor, &tighter, self.config.front_generations)?;
            self.climb(&tighter)?;
        }
        Ok(())
    }

    fn report(self) -> SearchReport {
        let interrupted = self.stopped();
        let best = self.best(&Limits::default()).expect("the anchor was evaluated");
        let candidate = |scored: &Scored| Candidate::new(scored.arch.clone(), scored.accuracy, &scored.costs);
        SearchReport {
            best: candidate(best),
            candidates: self.evaluated.len() as u64,
            front: pareto::front(self.evaluated.iter().map(candidate)),
            interrupted,
        }
    }
}

#[cfg(test)]
mod tests;
