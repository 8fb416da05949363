//! The search by climbers: first chains of random steps, if the objective has slopes (`anneal`), then climbers. Each
//! goes from a sub-network to the best of its neighbors, of pairs of steps and of longer jumps, until nothing there is
//! better; then it restarts from a mutation or a mixture of the best results (a memetic search, Moscato 1989, with
//! Once-for-All's mutations and crossovers).
//!
//! All results keep the limits: a start that does not is changed where it costs most per gain, else moved towards a
//! feasible one gene by gene, instead of being drawn again. Work is bounded by a number of candidates. The result
//! depends on the seed and the inputs alone, not on time or threads.
//!
//! To minimize a cost under a limit on a predicted metric, the same climbs are used: `exchange`.

mod aim;
mod anneal;
mod climb;
mod exchange;
mod place;

use std::collections::HashSet;

use base::random::numbered_rng;
use space::{Index, Steps};

use super::parameters::{Parameter, Parameters};
use crate::error::{Error, Result};
use crate::genes::{self, Places, hash};
use crate::metric::{Better, Fidelity};
use crate::prices::{Column, Prices};
use crate::problem::{Problem, Source};
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};
use crate::start;
use aim::Aim;
use anneal::Annealing;
use climb::{Camp, Climb, MOST_STEPS};
use exchange::Exchange;

/// Stream of its random numbers.
const SEARCH: u64 = 6;

/// Goals beyond the second do not guide climbs.
const MOST_GOALS: usize = 2;
/// Most limits on costs.
const MOST_LIMITED: usize = 8;

/// Settings of the search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchConfig {
    /// Decides every random choice.
    pub seed: u64,
    /// Sub-networks that climb concurrently: 8, so that a round of them is work for several threads.
    pub population: usize,
    /// Candidates after which no further round begins: 60,000; Once-for-All's search evaluates 50,000 (500 generations
    /// of 100, Cai et al. 2020).
    pub candidates: usize,
    /// Share of the candidates for annealing, before the climbs, if the objective has slopes: .9. The climbs get the
    /// rest, also if annealing ends before its share is spent.
    pub annealed: f64,
    /// Number of best ends of climbs from which others start: 16.
    pub parents: usize,
    /// Share of starts by mutation, the others are by crossover: .5 (Cai et al. 2020).
    pub mutated: f64,
    /// Probability with which a mutation redraws a gene: .3. It is not .1 as in a search without climbs, for a climb from
    /// near an end leads back to it.
    pub gene_probability: f64,
    /// Climbs without a better candidate after which a search ends.
    pub patience: usize,
    /// Further latency limits, evenly spaced between the least latency and the limit, that are searched for the front;
    /// 0 for none.
    pub front_limits: usize,
    /// Most candidates for each of these limits.
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

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "candidates", default: "60000", what: "rows after which no further round begins" },
    Parameter { name: "population", default: "8", what: "rows that climb concurrently" },
    Parameter {
        name: "annealed",
        default: "0.9",
        what: "share of the candidates for chains of random steps",
    },
    Parameter { name: "parents", default: "16", what: "best ends of climbs from which others start" },
    Parameter { name: "mutated", default: "0.5", what: "share of starts by mutation, others by crossover" },
    Parameter { name: "probability", default: "0.3", what: "of a mutation, for each group of genes" },
    Parameter {
        name: "front_limits",
        default: "none",
        what: "tighter limits on the second goal that are searched for the front",
    },
    Parameter { name: "patience", default: "300", what: "climbs without a better row after which it ends" },
];

impl SearchConfig {
    fn of(problem: &Problem<'_>, parameters: &Parameters) -> Result<Self> {
        Ok(Self {
            seed: problem.seed,
            candidates: parameters.count("candidates")?,
            population: parameters.count("population")?,
            annealed: parameters.share("annealed")?,
            parents: parameters.count("parents")?,
            mutated: parameters.share("mutated")?,
            gene_probability: parameters.share("probability")?,
            patience: parameters.count("patience")?,
            front_limits: parameters.count_or_none("front_limits")?.unwrap_or(0),
            ..Self::default()
        })
    }

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

/// The current phase.
enum Stage<'a> {
    /// Evaluates the starts.
    Starts(Vec<Vec<Index>>),
    Anneal(Box<Annealing<'a>>),
    Climb(Box<Climb<'a>>),
    /// Evaluates the neighbors of the front, up to a number of candidates.
    Around {
        most: usize,
        seen: HashSet<u64>,
    },
    Done,
}

/// Further limits under which a front is searched.
struct Tighter {
    column: Column,
    least: f64,
    highest: f64,
    /// The next limit; the loosest comes first.
    step: usize,
}

/// The strategy of this module.
pub struct Climbers<'a> {
    prices: Prices<'a>,
    camp: Camp<'a>,
    stage: Stage<'a>,
    seed: u64,
    tighter: Option<Tighter>,
    exchange: Option<Exchange>,
}

impl<'a> Climbers<'a> {
    /// Climbers for a problem whose goal is any metric under limits on costs, or a cost under limits on costs and one
    /// on a predicted metric.
    ///
    /// # Errors
    /// [`Error::InfeasibleTogether`] if limits on costs provably rule everything out together, [`Error::NotFound`] if
    /// nothing was found that keeps them; or if no estimator has factored costs, there are other limits, more than two
    /// goals, or an invalid setting.
    pub fn new(problem: &Problem<'a>, config: &SearchConfig) -> Result<Self> {
        config.check()?;
        let prices = problem.prices().clone();
        if prices.is_empty() {
            let expected = "one that has costs, with or without a latency table";
            return Err(base::Error::invalid("climbers", "estimators", expected, "none").into());
        }
        if problem.goals() > MOST_GOALS {
            return Err(base::Error::invalid("climbers", "goals", "at most two", problem.goals()).into());
        }
        let limited = prices.limits().count();
        if limited > MOST_LIMITED {
            let expected = format!("at most {MOST_LIMITED} on costs");
            return Err(base::Error::invalid("climbers", "limits", expected, limited).into());
        }
        let (goal, better) = problem.source(0).expect("a problem has a goal");
        let mut limits = problem.estimated_limits();
        let (aim, exchange) = match (goal, limits.next(), limits.next()) {
            (_, None, _) => (Aim::new(problem, goal, better), None),
            (Source::Priced(column), Some((at, better, _)), None) => {
                (Aim::new(problem, Source::Estimated(at), better), Some(Exchange::new(&prices, column)))
            }
            _ => return Err(refused_limits(problem)),
        };
        let tie = match problem.source(1) {
            Some((Source::Priced(column), Better::Lower)) => Some(column),
            _ => None,
        };
        let tie = exchange.as_ref().map(|exchange| exchange.column).or(tie);
        if config.front_limits > 0 && (tie.is_none() || exchange.is_some()) {
            let expected = "a second goal that is a cost, and a first one that is not";
            return Err(base::Error::invalid("search", "front_limits", expected, config.front_limits).into());
        }
        prices.check_each()?;
        let starts = start::starts(&prices)?;
        let camp = Camp {
            config: config.clone(),
            aim,
            places: Places::new(problem.genome()),
            rng: numbered_rng(problem.seed, SEARCH),
            tie,
            ends: Vec::new(),
            anchors: Vec::new(),
            begun: HashSet::new(),
        };
        let stage = Stage::Starts(starts);
        let seed = problem.seed;
        Ok(Self { prices, camp, stage, seed, tighter: None, exchange })
    }

    pub(super) fn from_parameters(problem: &Problem<'a>, parameters: &Parameters) -> Result<Self> {
        Self::new(problem, &SearchConfig::of(problem, parameters)?)
    }

    /// Anneals from the starts, or climbs if annealing is not possible.
    fn begin(&mut self, starts: Vec<Vec<Index>>, scored: &Scored<'_>, count: usize) -> Result<Stage<'a>> {
        if let Some(exchange) = &mut self.exchange {
            let most = count + exchange.candidates(&self.camp.config);
            return Ok(self.climb(&self.prices.clone(), starts, most));
        }
        let annealed = self.camp.config.annealed * self.camp.config.candidates as f64;
        let chains = Annealing::new(self.camp.aim, &self.prices, scored, annealed as usize, self.seed)?;
        Ok(match chains {
            Some(annealing) => Stage::Anneal(Box::new(annealing)),
            None => self.climb(&self.prices.clone(), starts, self.camp.config.candidates),
        })
    }

    fn climb(&mut self, prices: &Prices<'a>, starts: Vec<Vec<Index>>, most: usize) -> Stage<'a> {
        Stage::Climb(Box::new(Climb::new(&mut self.camp, prices, starts, most)))
    }

    /// Climbs from the best rows of the chains, with at least the candidates that annealing left.
    fn climb_on(&mut self, mut met: Vec<Vec<Index>>, count: usize) -> Stage<'a> {
        let config = &self.camp.config;
        met.truncate(config.population);
        let annealed = (config.annealed * config.candidates as f64) as usize;
        let most = (count + config.candidates - annealed).min(config.candidates).max(count);
        self.climb(&self.prices.clone(), met, most)
    }

    /// The phase after climbs.
    fn after_climbs(&mut self, view: &View<'_>) -> Result<Stage<'a>> {
        if let Some(exchange) = &mut self.exchange {
            let next = exchange.next(&self.prices, view);
            let Some(prices) = next else { return Ok(self.around(view)) };
            let Ok(starts) = start::starts(&prices) else { return Ok(self.around(view)) };
            let most = view.count() + exchange.candidates(&self.camp.config);
            return Ok(self.climb(&prices, starts, most));
        }
        if self.camp.config.front_limits == 0 {
            return Ok(Stage::Done);
        }
        let tighter = self.tighter.take().or_else(|| self.first_tighter(view));
        let Some(mut tighter) = tighter.filter(|tighter| tighter.step > 0) else {
            return Ok(self.around(view));
        };
        let Tighter { column, least, highest, step } = tighter;
        let share = step as f64 / (self.camp.config.front_limits + 1) as f64;
        tighter.step -= 1;
        self.tighter = Some(tighter);
        let prices = self.prices.within(column, least + (highest - least) * share);
        let seen = view.front().iter().rev().filter(|point| prices.keeps(&point.row));
        let mut starts: Vec<_> =
            seen.take(self.camp.config.population).map(|point| point.row.clone()).collect();
        if starts.is_empty() {
            // an even tighter limit cannot be kept together with the other limits
            let Ok(feasible) = start::starts(&prices) else { return Ok(self.around(view)) };
            starts = feasible;
        }
        let most = view.count() + self.camp.config.front_candidates;
        Ok(self.climb(&prices, starts, most))
    }

    /// Limits between the least cost and the highest on the front, evenly spaced.
    fn first_tighter(&self, view: &View<'_>) -> Option<Tighter> {
        let column = self.camp.tie?;
        let highest = view.front().iter().map(|point| self.prices.of(column, &point.row)).fold(0.0, f64::max);
        let (_, least) = self.prices.least(column);
        Some(Tighter { column, least, highest, step: self.camp.config.front_limits })
    }

    /// Evaluates neighbors of the front with the candidates of one more limit: tight limits lie closer together than
    /// those that were searched.
    fn around(&self, view: &View<'_>) -> Stage<'a> {
        Stage::Around { most: view.count() + self.camp.config.front_candidates, seen: HashSet::new() }
    }

    /// Adds all neighbors of new points of the front; returns whether there are any.
    fn ask_around(&mut self, view: &View<'_>, rows: &mut GeneRows) -> bool {
        let Stage::Around { seen, .. } = &mut self.stage else { return false };
        let fresh = view.front().iter().filter(|point| seen.insert(hash(&point.row)));
        let mut steps = Steps::default();
        for point in fresh.take(self.camp.config.population) {
            genes::steps(self.prices.space(), &point.row, &[], &mut steps);
            steps.steps.truncate(MOST_STEPS);
            for step in &steps.steps {
                steps.apply(self.prices.genome(), *step, rows.push(&point.row));
            }
        }
        !rows.is_empty()
    }
}

fn refused_limits(problem: &Problem<'_>) -> Error {
    let expected = "limits on costs, and one on a predicted metric if the goal is a cost";
    base::Error::invalid("search", "limits", expected, problem.limits_text()).into()
}

impl Strategy for Climbers<'_> {
    fn ask(&mut self, view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        match &mut self.stage {
            Stage::Starts(starts) => starts.iter().for_each(|row| {
                rows.push(row);
            }),
            Stage::Anneal(annealing) => annealing.ask(view.count(), rows),
            Stage::Climb(climb) => climb.ask(&mut self.camp, rows),
            Stage::Around { .. } => {
                if !self.ask_around(view, rows) {
                    self.stage = Stage::Done;
                }
            }
            Stage::Done => {}
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        match &mut self.stage {
            Stage::Starts(starts) => {
                let starts = std::mem::take(starts);
                self.stage = self.begin(starts, scored, view.count())?;
            }
            Stage::Anneal(annealing) => {
                if let Some(met) = annealing.tell(view.count(), scored)? {
                    self.stage = self.climb_on(met, view.count());
                }
            }
            Stage::Climb(climb) => {
                if !climb.tell(&mut self.camp, scored, view.count()) {
                    self.stage = self.after_climbs(view)?;
                }
            }
            Stage::Around { most, .. } => {
                if view.count() >= *most {
                    self.stage = Stage::Done;
                }
            }
            Stage::Done => {}
        }
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        matches!(self.stage, Stage::Done).then_some(Proof::None)
    }
}

#[cfg(test)]
pub(crate) mod tests;
