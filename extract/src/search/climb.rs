//! Where to go from one sub-network: its neighbours say what each step gains and costs, and steps that fit together are
//! proposed with one another.
//!
//! Costs add up over the blocks, so what a step costs is known before it is made; what two steps gain together is about
//! the sum, and only the most promising sums are looked at.

use super::constraint::{Limits, Quantity};
use super::genes::{Gene, Move};
use super::index::CostIndex;
use super::known::{Rows, Scored};

/// A step with what it changes.
#[derive(Clone, Copy, Debug)]
struct Step {
    step: Move,
    gain: f32,
    /// By how much each limited quantity grows, as a share of its limit.
    costs: [f32; Quantity::ALL.len()],
    /// Their sum.
    cost: f32,
}

/// Greatest numbers of steps that are made at once besides pairs.
const JUMPS: [usize; 5] = [3, 4, 6, 10, usize::MAX];
/// Halvings of the price of cost for a jump.
const HALVINGS: usize = 14;

/// What is limited, and how much of it is left, as shares of the limits.
struct Room {
    quantities: Vec<(usize, Quantity, f64)>,
    left: [f32; Quantity::ALL.len()],
}

impl Room {
    fn new(limits: &Limits, from: &Scored) -> Self {
        let places = Quantity::ALL.iter().enumerate();
        let limited = places.filter_map(|(place, &quantity)| Some((place, quantity, limits.of(quantity)?)));
        let quantities: Vec<_> = limited.collect();
        let mut left = [f32::INFINITY; Quantity::ALL.len()];
        for &(place, quantity, limit) in &quantities {
            left[place] = (1.0 - from.costs.of(quantity) / limit) as f32;
        }
        Self { quantities, left }
    }

    fn step(&self, step: Move, from: &Scored, to: &Scored) -> Step {
        let mut costs = [0.0; Quantity::ALL.len()];
        for &(place, quantity, limit) in &self.quantities {
            costs[place] = ((to.costs.of(quantity) - from.costs.of(quantity)) / limit) as f32;
        }
        Step { step, gain: to.accuracy - from.accuracy, costs, cost: costs.iter().sum() }
    }

    /// Whether steps that cost so much together seem to fit; the exact costs are asked for when they are made. Memory
    /// is the greatest of the blocks' and no sum, so it is left to that.
    fn holds(&self, costs: impl Fn(usize) -> f32) -> bool {
        let fits = |&(place, quantity, _): &(usize, Quantity, f64)| {
            quantity == Quantity::Memory || costs(place) <= self.left[place]
        };
        self.quantities.iter().all(fits)
    }
}

/// Adds to `rows` what several steps from `genes` lead to: at most `pairs` pairs of them, and some jumps. All of them
/// keep the limits.
pub(super) fn propose(
    (index, limits): (&CostIndex, &Limits),
    (genes, from): (&[Gene], &Scored),
    (moves, scores): (&[Move], &[Scored]),
    pairs: usize,
    rows: &mut Rows,
) {
    let room = Room::new(limits, from);
    let steps: Vec<Step> = moves.iter().zip(scores).map(|(step, to)| room.step(*step, from, to)).collect();
    let mut add = |chosen: &[Move]| {
        let row = rows.push(genes);
        chosen.iter().for_each(|step| step.apply(row));
        if !limits.keeps(&index.costs_of(row)) {
            rows.pop();
        }
    };
    for [left, right] in best_pairs(&steps, &room, pairs) {
        add(&[steps[left].step, steps[right].step]);
    }
    for most in JUMPS {
        add(&jump(&steps, &room, most));
    }
}

/// The pairs that seem to gain most, of those that seem to fit.
fn best_pairs(steps: &[Step], room: &Room, most: usize) -> Vec<[usize; 2]> {
    let mut found: Vec<(f32, [usize; 2])> = Vec::new();
    for (left, a) in steps.iter().enumerate() {
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

/// At most `most` steps apart from one another that gain most for what is left: the best by gain less price times cost,
/// at the lowest price at which they fit (Lagrange's relaxation, the price found by halving).
fn jump(steps: &[Step], room: &Room, most: usize) -> Vec<Move> {
    let mut best = at_price(steps, 0.0, most);
    if fits(&best, room) {
        return best.into_iter().map(|step| step.step).collect();
    }
    let worth = |step: &Step| if step.cost > 0.0 { step.gain / step.cost } else { 0.0 };
    let (mut low, mut high) = (0.0, steps.iter().map(worth).fold(0.0, f32::max).max(f32::MIN_POSITIVE));
    best.clear();
    for _ in 0..HALVINGS {
        let price = 0.5 * (low + high);
        let chosen = at_price(steps, price, most);
        if fits(&chosen, room) {
            (best, high) = (chosen, price);
        } else {
            low = price;
        }
    }
    best.into_iter().map(|step| step.step).collect()
}

fn fits(chosen: &[Step], room: &Room) -> bool {
    room.holds(|place| chosen.iter().map(|step| step.costs[place]).sum())
}

/// The steps that are worth their price, best first, each apart from those before.
fn at_price(steps: &[Step], price: f32, most: usize) -> Vec<Step> {
    let worth = |step: &Step| step.gain - price * step.cost;
    let mut worthy: Vec<Step> = steps.iter().filter(|step| worth(step) > 0.0).copied().collect();
    worthy.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
    let mut chosen: Vec<Step> = Vec::new();
    for step in worthy {
        if chosen.len() >= most {
            break;
        }
        if chosen.iter().all(|other| other.step.is_apart(step.step)) {
            chosen.push(step);
        }
    }
    chosen
}
