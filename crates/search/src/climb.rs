//! Where to go from one sub-network: what each choice is worth there, learnt from its neighbours, and several steps at
//! once that seem to gain most for what is left of the limits.
//!
//! Costs add up over the blocks, so what a step costs is known before it is made; what steps gain together is about the
//! sum of what they gain alone, and only the most promising sums are looked at.

use super::constraint::{Limits, Quantity};
use super::genes::{Gene, GeneFeatures, Genome, Move};
use super::index::{CostIndex, Costs};
use super::known::{Rows, Scored};

/// What each gene's values are worth around one sub-network, compared with the values it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Worth {
    values: Vec<f32>,
}

impl Worth {
    pub fn new(genome: &Genome) -> Self {
        Self { values: vec![0.0; genome.values()] }
    }

    /// What each value adds by the objective's slopes, more or less.
    pub fn of_slopes(features: &GeneFeatures, slopes: &[f32]) -> Self {
        let values =
            features.of_values().map(|features| features.map(|feature| slopes[feature as usize]).sum());
        Self { values: values.collect() }
    }

    /// Learns from all neighbours of a sub-network. What a step to another depth gains is the sum of what its blocks do.
    pub fn learn(
        &mut self,
        genome: &Genome,
        (genes, from): (&[Gene], &Scored),
        (moves, scores): (&[Move], &[Scored]),
    ) {
        self.values.fill(0.0);
        let mut learnt = vec![false; self.values.len()];
        let mut order: Vec<usize> = (0..moves.len()).collect();
        order.sort_by_key(|&at| moves[at].last - moves[at].first);
        for at in order {
            let Move { first, last, value, .. } = moves[at];
            let places = || (first..=last).map(|gene| genome.value(gene, value));
            let (mut rest, mut new) = (scores[at].accuracy - from.accuracy, 0);
            for place in places() {
                new += usize::from(!learnt[place]);
                rest -= self.values[place];
            }
            for place in places().filter(|&place| !std::mem::replace(&mut learnt[place], true)) {
                self.values[place] = rest / new as f32;
            }
        }
        debug_assert!(genes.iter().enumerate().all(|(gene, &value)| self.of(genome, gene, value) == 0.0));
    }

    fn of(&self, genome: &Genome, gene: usize, value: Gene) -> f32 {
        self.values[genome.value(gene, value)]
    }

    /// What a step seems to gain.
    fn gain(&self, genome: &Genome, genes: &[Gene], step: Move) -> f32 {
        let gain = |gene| self.of(genome, gene, step.value) - self.of(genome, gene, genes[gene]);
        (step.first..=step.last).map(gain).sum()
    }
}

/// A step with what it changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub step: Move,
    pub gain: f32,
    /// By how much each limited quantity grows, as a share of its limit.
    pub costs: [f32; Quantity::ALL.len()],
    /// Their sum.
    pub cost: f32,
}

/// What is limited, and how much of it is left, as shares of the limits.
#[derive(Clone, Debug)]
pub(super) struct Room {
    quantities: Vec<(usize, Quantity, f64)>,
    left: [f32; Quantity::ALL.len()],
}

impl Room {
    fn new(limits: &Limits, from: &Costs) -> Self {
        let places = Quantity::ALL.iter().enumerate();
        let limited = places.filter_map(|(place, &quantity)| Some((place, quantity, limits.of(quantity)?)));
        let quantities: Vec<_> = limited.collect();
        let mut left = [f32::INFINITY; Quantity::ALL.len()];
        for &(place, quantity, limit) in &quantities {
            left[place] = (1.0 - from.of(quantity) / limit) as f32;
        }
        Self { quantities, left }
    }

    /// Whether steps that cost so much together seem to fit; the exact costs are asked for when they are made. Memory
    /// is the greatest of the blocks' and no sum, so it is left to that.
    pub fn holds(&self, costs: impl Fn(usize) -> f32) -> bool {
        let fits = |&(place, quantity, _): &(usize, Quantity, f64)| {
            quantity == Quantity::Memory || costs(place) <= self.left[place]
        };
        self.quantities.iter().all(fits)
    }
}

/// A place to go from.
pub(super) struct Place<'a> {
    pub index: &'a CostIndex,
    pub limits: &'a Limits,
    pub genes: &'a [Gene],
    pub worth: &'a Worth,
}

/// Greatest numbers of steps that are made at once besides pairs; the last is all that fit.
const JUMPS: [usize; 5] = [3, 4, 6, 10, usize::MAX];
/// Prices of cost that jumps are tried at, each so much lower than the one before, and how often the range in which the
/// longest jump begins to fit is halved then.
const PRICES: usize = 16;
const FALL: f32 = 0.6;
const HALVINGS: usize = 6;

impl Place<'_> {
    /// All steps but those that change one of the genes in `locked`.
    pub fn steps(&self, locked: &[bool]) -> (Vec<Step>, Room) {
        let genome = self.index.genome();
        let mut moves = Vec::new();
        genome.moves(self.genes, &mut moves);
        moves.retain(|step| !locked.iter().take(step.last + 1).skip(step.first).any(|locked| *locked));
        let from = self.index.costs_of(self.genes);
        let room = Room::new(self.limits, &from);
        let mut genes = self.genes.to_vec();
        let step = |step: Move| {
            let mut costs = [0.0; Quantity::ALL.len()];
            for &(place, quantity, limit) in &room.quantities {
                let added = self.index.added(self.genes, step, quantity).unwrap_or_else(|| {
                    genes.copy_from_slice(self.genes);
                    step.apply(&mut genes);
                    self.index.costs_of(&genes).of(quantity) - from.of(quantity)
                });
                costs[place] = (added / limit) as f32;
            }
            let gain = self.worth.gain(genome, self.genes, step);
            Step { step, gain, costs, cost: costs.iter().sum() }
        };
        (moves.into_iter().map(step).collect(), room)
    }

    /// Adds to `rows` where the `most` most promising single steps and pairs lead, and some jumps: all that keep the
    /// limits.
    pub fn propose(&self, most: usize, rows: &mut Rows) {
        let (steps, room) = self.steps(&[]);
        let mut add = |chosen: &[Move]| {
            let row = rows.push(self.genes);
            chosen.iter().for_each(|step| step.apply(row));
            if !self.limits.keeps(&self.index.costs_of(row)) {
                rows.pop();
            }
        };
        for [left, right] in promising(&steps, &room, most) {
            match left == right {
                true => add(&[steps[left].step]),
                false => add(&[steps[left].step, steps[right].step]),
            }
        }
        for jump in Jumps::of(&steps, &room).found {
            add(&jump.iter().map(|&at| steps[at].step).collect::<Vec<_>>());
        }
    }

    /// The longest jump that changes no gene in `locked`, if it ends within the limits.
    pub fn repaired(&self, locked: &[bool]) -> Option<Vec<Gene>> {
        let (steps, room) = self.steps(locked);
        let mut genes = self.genes.to_vec();
        let [.., longest] = Jumps::of(&steps, &room).found;
        longest.into_iter().for_each(|at| steps[at].step.apply(&mut genes));
        self.limits.keeps(&self.index.costs_of(&genes)).then_some(genes)
    }
}

/// Single steps and pairs that seem to gain most, of those that seem to fit; a single one is paired with itself.
fn promising(steps: &[Step], room: &Room, most: usize) -> Vec<[usize; 2]> {
    let mut found: Vec<(f32, [usize; 2])> = Vec::new();
    for (left, a) in steps.iter().enumerate() {
        if a.gain > 0.0 && room.holds(|place| a.costs[place]) {
            found.push((a.gain, [left, left]));
        }
        for (right, b) in steps.iter().enumerate().skip(left + 1) {
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

/// For each of [`JUMPS`] so many steps, apart from one another, that gain most for what is left: the best by gain less
/// price times cost, at the lowest price at which they fit (Lagrange's relaxation). A price is tried once for all.
struct Jumps {
    found: [Vec<usize>; JUMPS.len()],
    prices: [f32; JUMPS.len()],
    /// What is worth its price, best first, and what was chosen of it.
    worthy: Vec<(f32, usize)>,
    chosen: Vec<usize>,
    taken: Vec<bool>,
}

impl Jumps {
    fn of(steps: &[Step], room: &Room) -> Self {
        let genes = steps.iter().map(|step| step.step.end + 1).max().unwrap_or(0);
        let mut jumps = Self {
            found: Default::default(),
            prices: [f32::INFINITY; JUMPS.len()],
            worthy: Vec::with_capacity(steps.len()),
            chosen: Vec::with_capacity(genes),
            taken: vec![false; genes],
        };
        if !jumps.try_price(steps, room, 0.0) {
            jumps.lower_prices(steps, room);
        }
        jumps
    }

    /// Tries prices from the one at which nothing is worth its cost downwards.
    fn lower_prices(&mut self, steps: &[Step], room: &Room) {
        let ratio = |step: &Step| if step.cost == 0.0 { 0.0 } else { (step.gain / step.cost).abs() };
        let (mut low, mut high) = (0.0, 1.01 * steps.iter().map(ratio).fold(f32::MIN_POSITIVE, f32::max));
        // what saves most, where nothing fits
        self.choose(steps, high);
        let unset = self.found.iter_mut().zip(&self.prices).filter(|(_, price)| price.is_infinite());
        unset.for_each(|(found, _)| found.clone_from(&self.chosen));
        for _ in 0..PRICES {
            if !self.try_price(steps, room, high) {
                low = high;
                break;
            }
            high *= FALL;
        }
        high /= FALL;
        for _ in 0..HALVINGS {
            let price = 0.5 * (low + high);
            if self.try_price(steps, room, price) { high = price } else { low = price }
        }
    }

    /// Enters the jumps that fit at a price lower than before; whether the longest does.
    fn try_price(&mut self, steps: &[Step], room: &Room, price: f32) -> bool {
        self.choose(steps, price);
        let mut fits = false;
        for (at, most) in JUMPS.into_iter().enumerate() {
            let jump = &self.chosen[..most.min(self.chosen.len())];
            fits = room.holds(|place| jump.iter().map(|&step| steps[step].costs[place]).sum());
            if fits && price < self.prices[at] {
                self.prices[at] = price;
                self.found[at].clear();
                self.found[at].extend_from_slice(jump);
            }
        }
        fits
    }

    /// Chooses the steps that are worth the price, best first, each apart from those before.
    fn choose(&mut self, steps: &[Step], price: f32) {
        let worth = steps.iter().enumerate().map(|(at, step)| (step.gain - price * step.cost, at));
        self.worthy.clear();
        self.worthy.extend(worth.filter(|(worth, _)| *worth > 0.0));
        self.worthy.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.chosen.clear();
        self.taken.fill(false);
        for &(_, at) in &self.worthy {
            let taken = &mut self.taken[steps[at].step.first..=steps[at].step.end];
            if taken.iter().all(|taken| !taken) {
                taken.fill(true);
                self.chosen.push(at);
            }
        }
    }
}
