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
use std::sync::atomic::AtomicBool;

use base::random::numbered_rng;
use space::{Index, Steps};

use crate::candidate::Candidate;
use crate::error::{Error, Result};
use crate::estimator::Predictor;
use crate::genes::{self, Places, hash};
use crate::index::CostIndex;
use crate::log::Log;
use crate::metric::{Better, Fidelity, LATENCY, Limits, Metric, TOP1};
use crate::objective::Objective;
use crate::pareto;
use crate::prices::{Column, Prices};
use crate::problem::{Problem, Source};
use crate::rows::GeneRows;
use crate::solve::{Ended, Outcome, Proof, Scored, Strategy, View, solve};
use crate::start;
use aim::Aim;
use anneal::Annealing;
use climb::{Camp, Climb, MOST_STEPS};
use exchange::Exchange;

/// Stream of its random numbers.
const SEARCH: u64 = 6;

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

/// The result of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchReport {
    /// The candidate with the highest expected accuracy; of equals the fastest.
    pub best: Candidate,
    /// Number of distinct sub-networks whose accuracy was predicted.
    pub candidates: u64,
    /// The front of accuracy and latency over all evaluated sub-networks, fastest first.
    pub front: Vec<Candidate>,
    /// The candidates with the highest expected accuracies, best first, at most [`TOP`](crate::TOP).
    pub top: Vec<Candidate>,
    /// Whether `stop` ended it.
    pub interrupted: bool,
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
    /// nothing was found that keeps them; or if there are other limits, or an invalid setting.
    pub fn new(problem: &Problem<'a>, config: &SearchConfig) -> Result<Self> {
        config.check()?;
        let prices = problem.prices().clone();
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

/// A search of an index's space by climbers, for the highest accuracy that an objective expects under limits; of equals
/// for the fastest.
#[derive(Clone, Copy)]
pub struct AccuracySearch<'a> {
    /// Costs of the space's sub-networks.
    pub index: &'a CostIndex,
    /// Predicts their accuracies.
    pub objective: &'a dyn Objective,
    /// Limits on the result.
    pub limits: &'a Limits,
    /// Settings of the search.
    pub config: &'a SearchConfig,
    /// Ends the search when set; it then returns the best so far.
    pub stop: &'a AtomicBool,
}

impl AccuracySearch<'_> {
    /// The objective's metric.
    pub fn metric() -> Metric {
        Metric::new(TOP1, "share", Better::Higher)
    }

    /// Searches, and stores the objective's values in a log. Values that the log has already are not computed again.
    ///
    /// # Errors
    /// [`Error::Infeasible`] if one limit alone rules everything out; [`Error::InfeasibleTogether`] if several together
    /// provably do; [`Error::NotFound`] if nothing was found that keeps all; if the objective is of another space; or
    /// if the log cannot be written.
    pub fn run(&self, log: &mut dyn Log) -> Result<SearchReport> {
        let Self { index, objective, limits, config, stop } = *self;
        let predictor = Predictor::new(index.space(), objective, Self::metric())?;
        check_latency(index, limits, config)?;
        let goals = [TOP1, LATENCY];
        let goals = if index.has_latency() { &goals[..] } else { &goals[..1] };
        let problem =
            Problem::new(index.space(), &[&predictor, index], goals, limits)?.with_seed(config.seed);
        let mut climbers = Climbers::new(&problem, config)?;
        let outcome = solve(&problem, &mut climbers, log, stop)?;
        Ok(SearchReport::of(outcome))
    }
}

/// [`AccuracySearch::run`] without a log.
///
/// # Errors
/// As [`AccuracySearch::run`].
pub fn climb(
    index: &CostIndex,
    objective: &dyn Objective,
    limits: &Limits,
    config: &SearchConfig,
    stop: &AtomicBool,
) -> Result<SearchReport> {
    AccuracySearch { index, objective, limits, config, stop }.run(&mut ())
}

/// A latency can be limited only where there is a table.
fn check_latency(index: &CostIndex, limits: &Limits, config: &SearchConfig) -> Result<()> {
    if index.has_latency() || (limits.of(LATENCY).is_none() && config.front_limits == 0) {
        return Ok(());
    }
    let expected = "a latency table, for a limit on latency and for a front";
    Err(base::Error::invalid("search", "latency", expected, "none").into())
}

impl SearchReport {
    fn of(outcome: Outcome) -> Self {
        Self {
            best: outcome.best().expect("a feasible start was looked at").clone(),
            candidates: outcome.count as u64,
            interrupted: outcome.ended == Ended::Stopped,
            front: pareto::front(outcome.front),
            top: outcome.top,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
