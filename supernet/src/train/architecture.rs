//! Architecture parameters: a logit for each value of each choice that a mixture can hold, which follow the gradient of the loss
//! on validation images while the weights follow that on training images (Liu et al. 2019, DARTS; Dong and Yang 2019, GDAS; Cai
//! et al. 2019, ProxylessNAS).

use base::random::rng_for;
use network::checkpoint::OptimizerState;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use search::policy::{Adam, AdamSettings, drawn_from, normal, softmax};
use serde::{Deserialize, Serialize};
use space::{Arch, GeneId, Index, SearchSpace};
use std::collections::BTreeMap;

use super::policy_state::{Lists, count_of, parts_of, put};
use super::recipe::within;
use crate::error::{Error, Result};

/// Scale of the initial logits (all three methods).
const INITIAL: f64 = 1e-3;
/// The value that joins two nodes without an operator, to which searches collapse.
const SKIP: &str = "skip_connect";
/// The value that joins no nodes.
const NONE: &str = "none";

/// How architecture parameters are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArchitectureRule {
    /// All values at once, weighted by their softmax, in steps of weights and of logits.
    Darts,
    /// One value of each choice, drawn with Gumbel noise at a falling temperature.
    Gdas,
    /// One value of each choice in steps of weights, and two in steps of logits, one of which counts.
    Proxyless,
}

/// Settings of a recipe's architecture parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchitectureRecipe {
    /// How they are trained.
    pub by: ArchitectureRule,
    /// 1, or for DARTS 2: whether the weights' dependence on the logits counts in the slopes.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub order: u64,
    /// Adam's learning rate.
    pub lr: f64,
    /// Decays of Adam's averages of the gradient and of its square.
    pub decays: [f64; 2],
    /// Decay of the logits, added to their gradient.
    pub weight_decay: f64,
    /// Steps of weights between two steps of logits.
    #[serde(default = "one")]
    pub every_steps: u64,
    /// Passes over the training images in which only weights are trained.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// First and last temperature of GDAS, between which it falls linearly.
    #[serde(default = "temperatures", skip_serializing_if = "are_default")]
    pub temperatures: [f64; 2],
    /// Most choices that are derived as `skip_connect`; the others of these have their next best value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_skips: Option<usize>,
}

fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

fn temperatures() -> [f64; 2] {
    [10.0, 0.1]
}

fn are_default(given: &[f64; 2]) -> bool {
    *given == temperatures()
}

impl ArchitectureRecipe {
    /// Checks the fields; `place` names the recipe in messages.
    ///
    /// # Errors
    /// If one is out of range.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let field = |name: &str| format!("architecture.{name}");
        let most = if self.by == ArchitectureRule::Darts { 2.0 } else { 1.0 };
        within(place, &field("order"), self.order as f64, [1.0, most])?;
        within(place, &field("lr"), self.lr, [1e-12, 10.0])?;
        self.decays.iter().try_for_each(|decay| within(place, &field("decays"), *decay, [0.0, 0.999_999]))?;
        within(place, &field("weight_decay"), self.weight_decay, [0.0, 1.0])?;
        within(place, &field("every_steps"), self.every_steps as f64, [1.0, 1e6])?;
        within(place, &field("warmup_epochs"), self.warmup_epochs, [0.0, 1e6])?;
        self.temperatures
            .iter()
            .try_for_each(|temperature| within(place, &field("temperatures"), *temperature, [1e-3, 1e3]))
    }
}

/// The logits between two steps.
#[derive(Clone, Debug)]
pub(super) struct Logits {
    pub recipe: ArchitectureRecipe,
    /// The choices that are mixed, with the place of the first logit of each.
    genes: Vec<(GeneId, usize)>,
    adam: Adam,
}

/// What a step of logits runs: for each choice of the space the values of the mixture, and each value's weight.
pub(super) struct Mixed {
    pub values: Vec<Vec<Index>>,
    /// For each mixed choice, in their order.
    ways: Vec<Way>,
}

/// How one choice is mixed: weights of its values, and what their slopes say about the logits.
enum Way {
    /// All values by their probabilities.
    All { shares: Vec<f64> },
    /// One value of weight 1; `soft` are the probabilities with noise, and the temperature.
    Drawn { chosen: usize, soft: Vec<f64>, temperature: f64 },
    /// Two values, the first of weight 1 and the second of weight 0; their probabilities.
    Pair { chosen: [usize; 2], shares: [f64; 2] },
    /// One value of weight 1, where no other can be drawn: there is nothing to learn.
    Fixed { chosen: usize },
}

/// Slopes of a loss by the weights of a mixed choice's values, and by that of a map of ones, over all its places.
#[derive(Clone, Debug, Default)]
pub(super) struct GateSlopes {
    pub values: BTreeMap<Index, f64>,
    pub ones: f64,
    pub places: usize,
}

impl Logits {
    /// Fresh ones.
    ///
    /// # Errors
    /// If the space has a choice that no mixture can hold, or none that one can.
    pub fn new(recipe: ArchitectureRecipe, space: &SearchSpace, seed: u64) -> Result<Self> {
        let genome = space.genome();
        let mixed = space.mixed_genes();
        let open =
            (0..genome.len()).filter(|gene| *gene != space::RESOLUTION && genome.allowed(*gene).len() > 1);
        let mut open = open.peekable();
        let other = open.peek().is_none() || open.any(|gene| !mixed.contains(&gene));
        if other {
            let expected = "a space whose every choice is an operator of an edge, such as nas-bench-201";
            let place = format!("space {}", space.name());
            return Err(Error::invalid(place, "choices", expected, "others")
                .and_then_do("take recipe enas or uniform, which draw one sub-network a step"));
        }
        let mut rng = rng_for("architecture", seed, &[]);
        let mut genes = Vec::with_capacity(mixed.len());
        let mut values = Vec::new();
        for gene in mixed {
            genes.push((gene, values.len()));
            values.extend(genome.allowed(gene).iter().map(|_| INITIAL * normal(&mut rng)));
        }
        let settings = AdamSettings { decays: recipe.decays, addend: 1e-8 };
        let mut adam = Adam::new(values, settings);
        adam.round();
        Ok(Self { recipe, genes, adam })
    }

    /// The probabilities of a mixed choice's values.
    fn shares(&self, at: usize) -> Vec<f64> {
        let end = self.genes.get(at + 1).map_or(self.adam.values.len(), |next| next.1);
        softmax(&self.adam.values[self.genes[at].1..end])
    }

    /// Draws a sub-network by the probabilities; choices that are not mixed are drawn evenly.
    pub fn draw(&self, space: &SearchSpace, rng: &mut ChaCha8Rng) -> Arch {
        let genome = space.genome();
        let mut row = genome.random(rng);
        for (at, (gene, _)) in self.genes.iter().enumerate() {
            row[*gene] = genome.allowed(*gene)[drawn_from(&self.shares(at), rng)];
        }
        space.arch(&row)
    }

    /// What a step of weights by DARTS runs.
    pub fn all(&self, space: &SearchSpace) -> Mixed {
        self.mixed(space, |shares| Way::All { shares: shares.to_vec() })
    }

    /// What a step of logits runs; `progress` is the share of the phase that is over.
    pub fn trial(&self, space: &SearchSpace, progress: f64, rng: &mut ChaCha8Rng) -> Mixed {
        let [first, last] = self.recipe.temperatures;
        let temperature = first + (last - first) * progress;
        self.mixed(space, |shares| match self.recipe.by {
            _ if shares.len() == 1 => Way::Fixed { chosen: 0 },
            ArchitectureRule::Darts => Way::All { shares: shares.to_vec() },
            ArchitectureRule::Gdas => {
                let noisy: Vec<f64> = shares
                    .iter()
                    .map(|share| {
                        let noise = -(-(1.0 - rng.random::<f64>()).ln()).max(f64::MIN_POSITIVE).ln();
                        (share.max(f64::MIN_POSITIVE).ln() + noise) / temperature
                    })
                    .collect();
                let chosen = (0..noisy.len()).max_by(|one, other| noisy[*one].total_cmp(&noisy[*other]));
                Way::Drawn { chosen: chosen.unwrap_or_default(), soft: softmax(&noisy), temperature }
            }
            ArchitectureRule::Proxyless => {
                let first = drawn_from(shares, rng);
                let mut rest = shares.to_vec();
                rest[first] = 0.0;
                let left: f64 = rest.iter().sum();
                if left == 0.0 {
                    return Way::Fixed { chosen: first };
                }
                rest.iter_mut().for_each(|share| *share /= left);
                let pair = [first, drawn_from(&rest, rng)];
                let both = shares[pair[0]] + shares[pair[1]];
                let own = pair.map(|at| shares[at] / both);
                // which of both counts follows their own probabilities
                let chosen = if rng.random::<f64>() < own[0] { pair } else { [pair[1], pair[0]] };
                Way::Pair { chosen, shares: chosen.map(|at| shares[at] / both) }
            }
        })
    }

    fn mixed(&self, space: &SearchSpace, mut way: impl FnMut(&[f64]) -> Way) -> Mixed {
        let genome = space.genome();
        let mut values: Vec<Vec<Index>> =
            (0..genome.len()).map(|gene| vec![genome.allowed(gene)[0]]).collect();
        let mut ways = Vec::with_capacity(self.genes.len());
        for (at, (gene, _)) in self.genes.iter().enumerate() {
            let allowed = genome.allowed(*gene);
            let own = way(&self.shares(at));
            values[*gene] = match &own {
                Way::All { .. } => allowed.to_vec(),
                Way::Drawn { chosen, .. } | Way::Fixed { chosen } => vec![allowed[*chosen]],
                Way::Pair { chosen, .. } => {
                    let mut pair = chosen.map(|at| allowed[at]).to_vec();
                    pair.sort_unstable();
                    pair
                }
            };
            ways.push(own);
        }
        Mixed { values, ways }
    }

    /// The weight of a value of a choice in a mixture.
    pub fn weight(&self, mixed: &Mixed, space: &SearchSpace, gene: GeneId, value: Index) -> f32 {
        let at = self.genes.iter().position(|(own, _)| *own == gene);
        let place = space.genome().allowed(gene).iter().position(|own| *own == value);
        let (Some(at), Some(place)) = (at, place) else { return 1.0 };
        match &mixed.ways[at] {
            Way::All { shares } => shares[place] as f32,
            Way::Pair { chosen, .. } if chosen[1] == place => 0.0,
            Way::Pair { .. } | Way::Drawn { .. } | Way::Fixed { .. } => 1.0,
        }
    }

    /// The slopes of a loss by the logits, given those by the weights of the values of a mixture.
    pub fn slopes(
        &self,
        mixed: &Mixed,
        space: &SearchSpace,
        gates: &BTreeMap<GeneId, GateSlopes>,
    ) -> Vec<f64> {
        let mut slopes = vec![0.0; self.adam.values.len()];
        for (at, (gene, start)) in self.genes.iter().enumerate() {
            let Some(own) = gates.get(gene).filter(|own| own.places > 0) else { continue };
            let allowed = space.genome().allowed(*gene);
            // a value that adds nothing has a slope of 0
            let of = |place: usize| own.values.get(&allowed[place]).copied().unwrap_or_default();
            let shares = self.shares(at);
            let slopes = &mut slopes[*start..*start + shares.len()];
            match &mixed.ways[at] {
                Way::All { shares } => {
                    let gates: Vec<f64> = (0..shares.len()).map(of).collect();
                    slopes.copy_from_slice(&through_softmax(shares, &gates));
                }
                Way::Drawn { chosen, soft, temperature } => {
                    let gates: Vec<f64> = (0..soft.len())
                        .map(|place| if place == *chosen { of(place) } else { own.ones })
                        .collect();
                    let noisy = through_softmax(soft, &gates);
                    let total: f64 = noisy.iter().sum::<f64>() / temperature;
                    for ((slope, noisy), share) in slopes.iter_mut().zip(noisy).zip(shares) {
                        // the logits come through their logarithmic softmax
                        *slope = noisy / temperature - share * total;
                    }
                }
                // as in the authors' code: what adds nothing has no gradient where it counts
                Way::Pair { chosen, .. } if !own.values.contains_key(&allowed[chosen[0]]) => {}
                Way::Pair { chosen, shares } => {
                    let both = through_softmax(shares, &chosen.map(of));
                    chosen.iter().zip(both).for_each(|(place, slope)| slopes[*place] = slope);
                }
                Way::Fixed { .. } => {}
            }
        }
        slopes
    }

    /// A step down these slopes. A pair is then shifted, so that the probabilities of the other values stay.
    pub fn step(&mut self, mixed: &Mixed, slopes: &[f64]) {
        let before = self.adam.values.clone();
        let decay = self.recipe.weight_decay;
        let up: Vec<f64> = slopes.iter().zip(&before).map(|(slope, value)| -slope - decay * value).collect();
        match self.recipe.by {
            ArchitectureRule::Proxyless => self.step_pairs(mixed, &up, &before),
            ArchitectureRule::Darts | ArchitectureRule::Gdas => self.adam.step(&up, self.recipe.lr),
        }
        self.adam.round();
    }

    /// Adam moves all logits; those that were in no pair are put back.
    fn step_pairs(&mut self, mixed: &Mixed, up: &[f64], before: &[f64]) {
        self.adam.step(up, self.recipe.lr);
        for (at, (_, start)) in self.genes.iter().enumerate() {
            let count = self.shares(at).len();
            let own = *start..*start + count;
            let Way::Pair { chosen, .. } = &mixed.ways[at] else {
                self.adam.values[own.clone()].copy_from_slice(&before[own]);
                continue;
            };
            let log_sum = |values: &[f64]| {
                let [one, other] = chosen.map(|place| values[start + place]);
                let most = one.max(other);
                most + ((one - most).exp() + (other - most).exp()).ln()
            };
            let shift = log_sum(&self.adam.values) - log_sum(before);
            for place in own {
                match chosen.contains(&(place - start)) {
                    true => self.adam.values[place] -= shift,
                    false => self.adam.values[place] = before[place],
                }
            }
        }
    }

    /// Mean entropy of a mixed choice in nats, and the mean probability of a skip.
    pub fn summary(&self, space: &SearchSpace) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for (at, (gene, _)) in self.genes.iter().enumerate() {
            for (place, share) in self.shares(at).into_iter().enumerate() {
                sums[0] -= share * share.max(f64::MIN_POSITIVE).ln();
                if self.is_skip(space, *gene, place) {
                    sums[1] += share;
                }
            }
        }
        sums.map(|sum| sum / self.genes.len() as f64)
    }

    fn is_skip(&self, space: &SearchSpace, gene: GeneId, place: usize) -> bool {
        self.is(space, gene, place, SKIP)
    }

    fn is(&self, space: &SearchSpace, gene: GeneId, place: usize, name: &str) -> bool {
        let value = space.genome().allowed(gene)[place];
        space.genome().genes()[gene].values[usize::from(value)].to_string() == name
    }

    /// Whether all numbers are finite.
    pub fn is_sound(&self) -> bool {
        self.adam.values.iter().chain(self.adam.moments().iter().flatten()).all(|value| value.is_finite())
    }

    /// The sub-network of the most probable values, at the highest resolution, with at most so many skips; and its skips.
    pub fn derived(&self, space: &SearchSpace) -> (Arch, usize) {
        let genome = space.genome();
        let mut row: Vec<Index> = (0..genome.len()).map(|gene| genome.allowed(gene)[0]).collect();
        let mut skips: Vec<(f64, GeneId, Index)> = Vec::new();
        for (at, (gene, _)) in self.genes.iter().enumerate() {
            let shares = self.shares(at);
            let mut order: Vec<usize> = (0..shares.len()).collect();
            order.sort_by(|one, other| shares[*other].total_cmp(&shares[*one]));
            row[*gene] = genome.allowed(*gene)[order[0]];
            if self.is_skip(space, *gene, order[0]) {
                let adds = |place: &&usize| !self.is(space, *gene, **place, NONE);
                let next = order[1..].iter().find(adds).copied().unwrap_or(order[0]);
                skips.push((shares[order[0]] - shares[next], *gene, genome.allowed(*gene)[next]));
            }
        }
        let most = self.recipe.most_skips.unwrap_or(usize::MAX);
        // the surest skips stay
        skips.sort_by(|one, other| other.0.total_cmp(&one.0));
        let kept = skips.len().min(most);
        for (_, gene, next) in skips.into_iter().skip(most) {
            row[gene] = next;
        }
        (space.arch(&row).at(space.greatest_resolution()), kept)
    }

    /// Spreads the logits, so that all probabilities differ.
    #[cfg(test)]
    pub(super) fn spread(&mut self, seed: u64) {
        let mut rng = rng_for("spread", seed, &[]);
        self.adam.values.iter_mut().for_each(|value| *value = normal(&mut rng));
    }

    /// The logits with one of them moved.
    #[cfg(test)]
    pub(super) fn moved(&self, at: usize, by: f64) -> Self {
        let mut moved = self.clone();
        moved.adam.values[at] += by;
        moved
    }

    /// Adds its state to that which a checkpoint holds.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn add_to(&self, state: &mut OptimizerState) -> Result<()> {
        let single = |list: &[f64]| list.iter().map(|value| *value as f32).collect();
        let [means, squares] = self.adam.moments();
        let lists = [
            ("values", single(&self.adam.values)),
            ("means", single(&means)),
            ("squares", single(&squares)),
            ("counts", parts_of(u64::from(self.adam.steps())).to_vec()),
        ];
        put(state, lists)
    }

    /// The logits as a checkpoint's state holds them, taken out of that.
    ///
    /// # Errors
    /// If the state has none, or another's.
    pub fn restored(mut self, state: &mut OptimizerState) -> Result<Self> {
        let refused = |got: &str| {
            Error::invalid("checkpoint", "architecture", "the logits of this space's choices", got)
                .and_then_do("resume with the recipe that the run was started with")
        };
        let mut lists = Lists::take(state).ok_or_else(|| refused("none"))?;
        let mut list = |name: &str, len: usize| -> Result<Vec<f64>> {
            let list = lists.list(name)?.filter(|list| list.len() == len);
            let list = list.ok_or_else(|| refused(&format!("others ({name})")))?;
            Ok(list.into_iter().map(f64::from).collect())
        };
        let count = self.adam.values.len();
        let values = list("values", count)?;
        let moments = [list("means", count)?, list("squares", count)?];
        let counts = list("counts", 2)?;
        if moments[1].iter().any(|square| *square < 0.0) {
            return Err(refused("squares below 0"));
        }
        let steps = count_of([counts[0], counts[1]].map(|part| part as f32), "steps")?;
        self.adam.restore(values, moments, u32::try_from(steps).unwrap_or(u32::MAX));
        Ok(self)
    }
}

/// Slopes by the logits of a softmax, given those by its values.
fn through_softmax(shares: &[f64], gates: &[f64]) -> Vec<f64> {
    let mean: f64 = shares.iter().zip(gates).map(|(share, gate)| share * gate).sum();
    shares.iter().zip(gates).map(|(share, gate)| share * (gate - mean)).collect()
}

#[cfg(test)]
mod tests;
