//! Steps from one sub-network: the worth of each choice there, learned from its neighbors, and several steps at once
//! that seem to gain most within the rest of the limits.
//!
//! Costs add up over the blocks, so a step's cost is known before it is made; the joint gain of steps is about the sum
//! of their single gains, and only the most promising sums are evaluated.

use space::{Change, GeneRow, Index, Step, Steps};

use super::MOST_LIMITED;
use crate::genes::{self, GeneFeatures, Places};
use crate::index::Costs;
use crate::prices::{Column, Prices};
use crate::quantity::Quantity;
use crate::rows::GeneRows;

/// The worth of each gene's values around one sub-network, compared with its own values.
#[derive(Clone, Debug, Default)]
pub(super) struct Worth {
    values: Vec<f32>,
}

impl Worth {
    pub fn new(places: &Places) -> Self {
        Self { values: vec![0.0; places.len()] }
    }

    /// The approximate gain of each value by the objective's slopes; `sign` is -1 where less is better.
    pub fn of_slopes(features: &GeneFeatures, slopes: &[f32], sign: f32) -> Self {
        Self {
            values: features
                .of_places()
                .iter()
                .map(|features: &[u32]| sign * features.iter().map(|at| slopes[*at as usize]).sum::<f32>())
                .collect(),
        }
    }

    /// Learns from all neighbors of a sub-network. The gain of a step by which genes come or go is the sum over all its
    /// changes.
    pub fn learn(&mut self, places: &Places, from: f32, steps: &Steps, merits: &[f32]) {
        self.values.fill(0.0);
        let mut learned = vec![false; self.values.len()];
        let mut order: Vec<usize> = (0..steps.steps.len()).collect();
        order.sort_by_key(|&at| steps.changes(steps.steps[at]).len());
        for at in order {
            let changes = steps.changes(steps.steps[at]);
            let places = || changes.iter().map(|change| places.of(change.group, change.to));
            let mut rest = merits[at] - from;
            let mut new = 0;
            for place in places() {
                new += usize::from(!learned[place]);
                rest -= self.values[place];
            }
            for place in places().filter(|&place| !std::mem::replace(&mut learned[place], true)) {
                self.values[place] = rest / new as f32;
            }
        }
    }

    /// The estimated gain of changes.
    fn gain(&self, places: &Places, changes: &[Change]) -> f32 {
        let of = |group: u16, combination: Index| self.values[places.of(group, combination)];
        changes.iter().map(|change| of(change.group, change.to) - of(change.group, change.from)).sum()
    }
}

/// A step with its gain and costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub step: Step,
    pub gain: f32,
    /// The increase of each limited cost, as a share of its limit.
    pub costs: [f32; MOST_LIMITED],
    /// The sum of the costs.
    pub cost: f32,
}

/// The limited columns, and how much of each limit is left, as shares of the limits.
#[derive(Clone, Debug)]
pub(super) struct Room {
    limited: Vec<(Column, f64)>,
    left: [f32; MOST_LIMITED],
}

impl Room {
    fn new(prices: &Prices<'_>, from: &[Costs]) -> Self {
        let limited: Vec<_> = prices.limits().collect();
        let mut left = [f32::INFINITY; MOST_LIMITED];
        for (left, (column, limit)) in left.iter_mut().zip(&limited) {
            *left = (1.0 - from[column.index].of(column.quantity) / limit) as f32;
        }
        Self { limited, left }
    }

    /// Whether steps with these joint costs seem to fit; the exact costs are computed when they are made. Memory is the
    /// maximum over the blocks and not a sum, so it is checked only then.
    pub fn holds(&self, costs: impl Fn(usize) -> f32) -> bool {
        self.limited.iter().enumerate().all(|(place, (column, _)): (usize, &(Column, f64))| {
            column.quantity == Quantity::Memory || costs(place) <= self.left[place]
        })
    }
}

/// A sub-network from which steps start.
pub(super) struct Place<'a> {
    pub prices: &'a Prices<'a>,
    pub places: &'a Places,
    pub row: &'a GeneRow,
    pub worth: &'a Worth,
}

/// The steps from a place, with the rest of the limits there.
#[derive(Clone, Debug)]
pub(super) struct Ways {
    pub ways: Vec<Way>,
    /// The changes of each step.
    pub steps: Steps,
    pub room: Room,
}

/// Largest numbers of steps that are made at once besides pairs; the last is all that fit.
const JUMPS: [usize; 5] = [3, 4, 6, 10, usize::MAX];
/// Number of prices of cost that are tried for jumps, the ratio of each to the one before, and the number of halvings
/// of the range in which the longest jump begins to fit.
const PRICES: usize = 16;
const FALL: f32 = 0.6;
const HALVINGS: usize = 6;

impl Place<'_> {
    /// All steps except those that change a gene in `locked`.
    pub fn ways(&self, locked: &[bool]) -> Ways {
        let genome = self.prices.genome();
        let mut steps = Steps::default();
        genes::steps(self.prices.space(), self.row, locked, &mut steps);
        let from: Vec<Costs> = self.prices.iter().map(|priced| priced.index.costs_of(self.row)).collect();
        let room = Room::new(self.prices, &from);
        let mut row = self.row.to_vec();
        let mut changes_from: Vec<_> = self.prices.iter().map(|priced| priced.index.from(self.row)).collect();
        let mut ways = Vec::with_capacity(steps.steps.len());
        for step in &steps.steps {
            let changes = steps.changes(*step);
            let mut costs = [0.0; MOST_LIMITED];
            for (cost, (column, limit)) in costs.iter_mut().zip(&room.limited) {
                let Column { index, quantity } = *column;
                let added = if quantity == Quantity::Memory {
                    row.copy_from_slice(self.row);
                    steps.apply(genome, *step, &mut row);
                    self.prices.of(*column, &row) - from[index].of(quantity)
                } else {
                    changes_from[index].added(changes, |costs| costs.of(quantity))
                };
                *cost = (added / limit) as f32;
            }
            let gain = self.worth.gain(self.places, changes);
            let cost = costs[..room.limited.len()].iter().sum();
            ways.push(Way { step: *step, gain, costs, cost });
        }
        Ways { ways, steps, room }
    }

    /// Adds to `rows` the ends of the `most` most promising single steps and pairs, and of some jumps: all that keep
    /// the limits.
    pub fn propose(&self, most: usize, rows: &mut GeneRows) {
        let genome = self.prices.genome();
        let Ways { ways, steps, room } = self.ways(&[]);
        let mut add = |chosen: &[usize]| {
            let row = rows.push(self.row);
            chosen.iter().for_each(|&at| steps.apply(genome, ways[at].step, row));
            if !self.prices.keeps(row) {
                rows.pop();
            }
        };
        for [left, right] in promising(&ways, &room, most) {
            match left == right {
                true => add(&[left]),
                false => add(&[left, right]),
            }
        }
        for jump in Jumps::of(&ways, &room).found {
            add(&jump);
        }
    }

    /// The longest jump that changes no gene in `locked`, if it ends within the limits.
    pub fn repaired(&self, locked: &[bool]) -> Option<Vec<Index>> {
        let genome = self.prices.genome();
        let Ways { ways, steps, room } = self.ways(locked);
        let mut row = self.row.to_vec();
        let [.., longest] = Jumps::of(&ways, &room).found;
        longest.into_iter().for_each(|at| steps.apply(genome, ways[at].step, &mut row));
        self.prices.keeps(&row).then_some(row)
    }
}

/// Single steps and pairs that seem to gain most, among those that seem to fit; a single one is paired with itself.
fn promising(ways: &[Way], room: &Room, most: usize) -> Vec<[usize; 2]> {
    let mut found: Vec<(f32, [usize; 2])> = Vec::new();
    for (left, a) in ways.iter().enumerate() {
        if a.gain > 0.0 && room.holds(|place| a.costs[place]) {
            found.push((a.gain, [left, left]));
        }
        for (right, b) in ways.iter().enumerate().skip(left + 1) {
            let gain = a.gain + b.gain;
            if gain > 0.0 && a.step.is_apart(b.step) && room.holds(|place| a.costs[place] + b.costs[place]) {
                found.push((gain, [left, right]));
            }
        }
    }
    let order = |a: &(f32, [usize; 2]), b: &(f32, [usize; 2])| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if found.len() > most {
        found.select_nth_unstable_by(most, order);
        found.truncate(most);
    }
    found.sort_unstable_by(order);
    found.into_iter().map(|(_, pair)| pair).collect()
}

/// For each of [`JUMPS`] up to that many steps, apart from one another, that gain most within the rest of the limits:
/// the best by gain less price times cost, at the lowest price at which they fit (Lagrange's relaxation). A price is
/// tried once for all.
struct Jumps {
    found: [Vec<usize>; JUMPS.len()],
    prices: [f32; JUMPS.len()],
    /// The steps that are worth their price, best first, and those chosen from them.
    worthy: Vec<(f32, usize)>,
    chosen: Vec<usize>,
    taken: Vec<bool>,
}

impl Jumps {
    fn of(ways: &[Way], room: &Room) -> Self {
        let genes = ways.iter().map(|step| usize::from(step.step.last) + 1).max().unwrap_or(0);
        let mut jumps = Self {
            found: Default::default(),
            prices: [f32::INFINITY; JUMPS.len()],
            worthy: Vec::with_capacity(ways.len()),
            chosen: Vec::with_capacity(genes),
            taken: vec![false; genes],
        };
        if !jumps.try_price(ways, room, 0.0) {
            jumps.lower_prices(ways, room);
        }
        jumps
    }

    /// Tries prices from the one at which nothing is worth its cost downwards.
    fn lower_prices(&mut self, ways: &[Way], room: &Room) {
        let mut low = 0.0;
        let mut high = 1.01
            * ways
                .iter()
                .map(|step: &Way| if step.cost == 0.0 { 0.0 } else { (step.gain / step.cost).abs() })
                .fold(f32::MIN_POSITIVE, f32::max);
        // the steps that save most, if none fits
        self.choose(ways, high);
        let unset = self.found.iter_mut().zip(&self.prices).filter(|(_, price)| price.is_infinite());
        unset.for_each(|(found, _)| found.clone_from(&self.chosen));
        for _ in 0..PRICES {
            if !self.try_price(ways, room, high) {
                low = high;
                break;
            }
            high *= FALL;
        }
        high /= FALL;
        for _ in 0..HALVINGS {
            let price = 0.5 * (low + high);
            if self.try_price(ways, room, price) { high = price } else { low = price }
        }
    }

    /// Enters the jumps that fit at a lower price than before; returns whether the longest does.
    fn try_price(&mut self, ways: &[Way], room: &Room, price: f32) -> bool {
        self.choose(ways, price);
        let mut fits = false;
        for (at, most) in JUMPS.into_iter().enumerate() {
            let jump = &self.chosen[..most.min(self.chosen.len())];
            fits = room.holds(|place| jump.iter().map(|&step| ways[step].costs[place]).sum());
            if fits && price < self.prices[at] {
                self.prices[at] = price;
                self.found[at].clear();
                self.found[at].extend_from_slice(jump);
            }
        }
        fits
    }

    /// Chooses the steps that are worth the price, best first, each apart from those before.
    fn choose(&mut self, ways: &[Way], price: f32) {
        let worth = ways.iter().enumerate().map(|(at, step)| (step.gain - price * step.cost, at));
        self.worthy.clear();
        self.worthy.extend(worth.filter(|(worth, _)| *worth > 0.0));
        self.worthy.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.chosen.clear();
        self.taken.fill(false);
        for &(_, at) in &self.worthy {
            let taken = &mut self.taken[usize::from(ways[at].step.first)..=usize::from(ways[at].step.last)];
            if taken.iter().all(|taken| !taken) {
                taken.fill(true);
                self.chosen.push(at);
            }
        }
    }
}
