//! Concurrent climbers: each evaluates its neighbors, then several steps at once, and goes to the best of them, until
//! nothing is better there; then another begins at a mutation or a mixture of the ends of others.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use space::{GeneRow, Genome, Index, Steps};

use super::SearchConfig;
use super::aim::Aim;
use super::place::{Place, Worth};
use crate::genes::{self, Places, hash};
use crate::prices::{Column, Prices};
use crate::rows::GeneRows;
use crate::solve::Scored;
use base::random::numbered_rng;

use super::SEARCH;

/// Steps and pairs of steps that a climber evaluates by worths learned elsewhere, and by worths learned where it
/// stands.
const FEW_PAIRS: usize = 48;
const MANY_PAIRS: usize = 160;
/// Mutations and mixtures that are evaluated per climb; the best begins it.
const VARIANTS: usize = 4;
/// Most neighbors that are evaluated; larger spaces take a random part of them.
pub(super) const MOST_STEPS: usize = 2048;
/// Rounds of the climbers at each resolution before only the best go on.
const TRIAL_ROUNDS: usize = 2;

/// One climber's position.
#[derive(Clone, Debug)]
pub(super) struct Climber {
    pub row: Vec<Index>,
    pub merit: f32,
    worth: Worth,
    /// Whether the worth was learned elsewhere.
    stale: bool,
}

/// The state that all climbs of a search share.
pub(super) struct Camp<'a> {
    pub config: SearchConfig,
    pub aim: Aim<'a>,
    pub places: Places,
    pub rng: ChaCha8Rng,
    /// The tie breaker: the second goal's cost, if there is one.
    pub tie: Option<Column>,
    /// Where climbs ended under the present limits, best first.
    pub ends: Vec<Climber>,
    /// Feasible rows, one per resolution, that stand in for ends while there are none.
    pub anchors: Vec<Climber>,
    /// Hashes of the rows at which climbs began.
    pub begun: HashSet<u64>,
}

impl Camp<'_> {
    /// Best first: merit, then the tie's cost, then the genes' order, so that no two are equal.
    fn order(&self, prices: &Prices<'_>, ours: (f32, &GeneRow), theirs: (f32, &GeneRow)) -> Ordering {
        let tie = |row: &GeneRow| self.tie.map_or(0.0, |column| prices.mean(column, row));
        theirs
            .0
            .total_cmp(&ours.0)
            .then_with(|| tie(ours.1).total_cmp(&tie(theirs.1)))
            .then_with(|| ours.1.cmp(theirs.1))
    }

    fn sort(&self, prices: &Prices<'_>, climbers: &mut [Climber]) {
        climbers.sort_by(|a, b| self.order(prices, (a.merit, &a.row), (b.merit, &b.row)));
    }

    /// Enters the end of a climb, if it is new and among the best.
    fn end(&mut self, prices: &Prices<'_>, climber: Climber) {
        let ours = (climber.merit, &climber.row[..]);
        let ends = &self.ends;
        let place =
            ends.partition_point(|end: &Climber| self.order(prices, (end.merit, &end.row), ours).is_lt());
        if ends.get(place).is_none_or(|end| end.row != climber.row) {
            self.ends.insert(place, climber);
            self.ends.truncate(self.config.parents);
        }
    }

    /// Up to `count` new places to begin at: mutations of ends or mixtures of two, while there are none random
    /// sub-networks, changed elsewhere until they are feasible. Fewer, if ten tries for each were not enough.
    fn others(&mut self, count: usize, prices: &Prices<'_>) -> Vec<Climber> {
        let genome = prices.genome();
        let mut drawn = Vec::with_capacity(count);
        for _ in 0..count * VARIANTS {
            drawn.push(self.drawn(genome));
        }
        let seed = self.rng.random::<u64>();
        let places = &self.places;
        let repaired = drawn.into_par_iter().enumerate().map(|(number, (row, parent))| {
            let seed = seed.wrapping_add(number as u64);
            let row = repaired(Place { prices, places, row: &row, worth: &parent.worth }, &parent.row, seed);
            Climber { row, stale: true, ..parent }
        });
        let all: Vec<Climber> = repaired.collect();
        all.into_iter().filter(|climber| self.begun.insert(hash(&climber.row))).collect()
    }

    /// A mutation or a mixture, and its parent.
    fn drawn(&mut self, genome: &Genome) -> (Vec<Index>, Climber) {
        let from = if self.ends.is_empty() { &self.anchors } else { &self.ends };
        let [parent, other] = [(); 2].map(|()| &from[self.rng.random_range(0..from.len())]);
        let mut row = parent.row.clone();
        let mutated = self.rng.random_bool(self.config.mutated);
        if self.ends.is_empty() {
            genome.mutate(&mut row, 1.0, &mut self.rng);
        } else if parent.row == other.row || mutated {
            genome.mutate(&mut row, self.config.gene_probability, &mut self.rng);
        } else {
            genome.mix(&mut row, &other.row, &mut self.rng);
        }
        (row, parent.clone())
    }
}

/// The row of a place, changed where it equals its parent until it keeps the limits; failing that, moved towards its
/// parent.
fn repaired(place: Place<'_>, parent: &GeneRow, seed: u64) -> Vec<Index> {
    let locked: Vec<bool> = place.row.iter().zip(parent).map(|(ours, theirs)| ours != theirs).collect();
    place.repaired(&locked).unwrap_or_else(|| {
        let mut row = place.row.to_vec();
        let mut rng = numbered_rng(seed, SEARCH);
        place.prices.genome().toward(&mut row, parent, &mut rng, |row| place.prices.keeps(row));
        row
    })
}

/// The values that climbers are waiting for.
enum Waiting {
    /// Of the starts.
    Begin,
    /// Of the neighbors of climbers that know no better place.
    Neighbors(Vec<Steps>),
    /// Of several steps at once: the range of each climber's rows.
    Further(Vec<Range<usize>>),
    /// Of possible new starts.
    Others(Vec<Climber>),
}

/// Climbs from starts, then from mixtures of the ends, up to a number of candidates or until nothing better was found
/// for long.
pub(super) struct Climb<'a> {
    prices: Prices<'a>,
    climbers: Vec<Climber>,
    waiting: Waiting,
    /// Candidates after which no further round begins.
    most: usize,
    /// Remaining rounds in which all climbers go on.
    trials: usize,
    idle: usize,
    /// The best end, and the number of climbers, when the round began.
    best: Option<f32>,
    before: usize,
}

impl<'a> Climb<'a> {
    /// Climbers at rows that keep the limits.
    pub fn new(camp: &mut Camp<'_>, prices: &Prices<'a>, starts: Vec<Vec<Index>>, most: usize) -> Self {
        camp.ends.clear();
        let worth = Worth::new(&camp.places);
        Self {
            prices: prices.clone(),
            climbers: starts
                .into_iter()
                .map(|row| Climber { row, merit: 0.0, worth: worth.clone(), stale: false })
                .collect(),
            waiting: Waiting::Begin,
            most,
            trials: TRIAL_ROUNDS,
            idle: 0,
            best: None,
            before: 0,
        }
    }

    /// Adds the rows that climbers request.
    pub fn ask(&mut self, camp: &mut Camp<'_>, rows: &mut GeneRows) {
        match &mut self.waiting {
            Waiting::Begin => self.climbers.iter().for_each(|climber| {
                rows.push(&climber.row);
            }),
            Waiting::Others(others) => others.iter().for_each(|climber| {
                rows.push(&climber.row);
            }),
            Waiting::Neighbors(_) => self.waiting = Waiting::Neighbors(self.neighbors(camp, rows)),
            Waiting::Further(_) => self.waiting = Waiting::Further(self.further(camp, rows)),
        }
    }

    /// All neighbors of the climbers that know no better place.
    fn neighbors(&self, camp: &mut Camp<'_>, rows: &mut GeneRows) -> Vec<Steps> {
        let mut all = Vec::new();
        for climber in self.climbers.iter().filter(|climber| !climber.stale) {
            let mut steps = Steps::default();
            genes::steps(self.prices.space(), &climber.row, &[], &mut steps);
            while steps.steps.len() > MOST_STEPS {
                let out = camp.rng.random_range(0..steps.steps.len());
                steps.steps.swap_remove(out);
            }
            for step in &steps.steps {
                steps.apply(self.prices.genome(), *step, rows.push(&climber.row));
            }
            all.push(steps);
        }
        all
    }

    /// Adds several steps at once; returns the range of each climber's rows.
    fn further(&self, camp: &Camp<'_>, rows: &mut GeneRows) -> Vec<Range<usize>> {
        let prices = &self.prices;
        let places = &camp.places;
        let proposed = |climber: &Climber| {
            let mut rows = GeneRows::new(prices.genome().len());
            Place { prices, places, row: &climber.row, worth: &climber.worth }
                .propose(if climber.stale { FEW_PAIRS } else { MANY_PAIRS }, &mut rows);
            rows
        };
        let proposed: Vec<GeneRows> = self.climbers.par_iter().map(proposed).collect();
        let mut found = Vec::with_capacity(self.climbers.len());
        for proposed in proposed {
            let start = rows.len();
            rows.extend(&proposed);
            found.push(start..rows.len());
        }
        found
    }

    /// Receives the requested values; returns whether there are further requests. `count` candidates were evaluated so
    /// far.
    pub fn tell(&mut self, camp: &mut Camp<'_>, scored: &Scored<'_>, count: usize) -> bool {
        let merits: Vec<f32> =
            (0..scored.rows.len()).map(|row| camp.aim.merit(&self.prices, scored, row)).collect();
        match std::mem::replace(&mut self.waiting, Waiting::Begin) {
            Waiting::Begin => {
                self.climbers.iter_mut().zip(&merits).for_each(|(climber, merit)| climber.merit = *merit);
                camp.anchors = self.climbers.clone();
                self.next_round(camp, count)
            }
            Waiting::Neighbors(steps) => {
                self.learn(camp, &merits, &steps);
                self.waiting = Waiting::Further(Vec::new());
                true
            }
            Waiting::Further(places) => {
                self.go(camp, scored.rows, &merits, places);
                self.end_round(camp, count)
            }
            Waiting::Others(mut others) => {
                others.iter_mut().zip(&merits).for_each(|(climber, merit)| climber.merit = *merit);
                camp.sort(&self.prices, &mut others);
                others.truncate(camp.config.population - self.climbers.len());
                self.climbers.extend(others);
                self.next_round(camp, count)
            }
        }
    }

    fn learn(&mut self, camp: &Camp<'_>, mut merits: &[f32], all: &[Steps]) {
        let learning = self.climbers.iter_mut().filter(|climber| !climber.stale);
        for (climber, steps) in learning.zip(all) {
            let (near, rest) = merits.split_at(steps.steps.len());
            climber.worth.learn(&camp.places, climber.merit, steps, near);
            merits = rest;
        }
    }

    /// One step of each climber; climbers for which nothing is better become ends and are removed.
    fn go(&mut self, camp: &mut Camp<'_>, rows: &GeneRows, merits: &[f32], places: Vec<Range<usize>>) {
        let climbers = std::mem::take(&mut self.climbers);
        for (climber, places) in climbers.into_iter().zip(places) {
            let candidates = places.map(|place| (merits[place], rows.get(place)));
            let best = candidates.min_by(|a, b| camp.order(&self.prices, *a, *b));
            let ours = (climber.merit, &climber.row[..]);
            match best.filter(|best| camp.order(&self.prices, *best, ours).is_lt()) {
                Some((merit, row)) => {
                    self.climbers.push(Climber { row: row.to_vec(), merit, stale: true, ..climber });
                }
                None if climber.stale => self.climbers.push(Climber { stale: false, ..climber }),
                None => camp.end(&self.prices, climber),
            }
        }
    }

    /// Replaces climbers that ended by others; returns whether there are further requests.
    fn end_round(&mut self, camp: &mut Camp<'_>, count: usize) -> bool {
        if self.trials > 0 {
            self.trials -= 1;
            return self.next_round(camp, count);
        }
        let better = camp.ends.first().map(|end| end.merit) != self.best;
        self.idle = if better { 0 } else { self.idle + self.before - self.climbers.len() };
        let wanted = camp.config.population - self.climbers.len();
        if wanted == 0 {
            return self.next_round(camp, count);
        }
        self.waiting = Waiting::Others(camp.others(wanted, &self.prices));
        true
    }

    /// Begins another round, unless climbs are over.
    fn next_round(&mut self, camp: &mut Camp<'_>, count: usize) -> bool {
        self.waiting = Waiting::Neighbors(Vec::new());
        if self.trials > 0 {
            if self.climbers.len() > camp.config.population {
                return true;
            }
            self.trials = 0;
        }
        if self.before == 0 {
            camp.sort(&self.prices, &mut self.climbers);
            self.climbers.truncate(camp.config.population);
        }
        (self.best, self.before) = (camp.ends.first().map(|end| end.merit), self.climbers.len());
        if self.climbers.is_empty() || count >= self.most || self.idle >= camp.config.patience {
            for climber in std::mem::take(&mut self.climbers) {
                camp.end(&self.prices, climber);
            }
            return false;
        }
        true
    }
}
