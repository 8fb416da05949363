//! A controller: an LSTM that chooses the genes one after the other, each given those before it (Zoph and Le 2017). As ENAS
//! (Pham et al. 2018) has it: one layer without biases, all weights uniform, logits tempered and squashed by a tanh, Adam
//! without a first moment. Genes of one kind with the same values share output weights and embeddings.
//!
//! A choice's embedding is the input of the next step. Genes that do not exist are passed over.
//!
//! Where genes decide about nodes ([`space::NodeGene`]), earlier nodes are chosen by attention. A node that is decided takes one
//! more step, whose hidden state is its anchor; an input's anchor is that of a step on the first input. Which earlier node is
//! read is a softmax of `v . tanh(W1 anchor + W2 hidden)`, and the anchor of the chosen one is the next input. Each link is
//! a choice by itself, of logits `-q` and `q` with the node's own anchor as the hidden state; the mean of the linked nodes'
//! anchors and a zero is the next input. Links are drawn to a wanted share of them by their Kullback-Leibler divergence from it,
//! summed over a node's links and averaged over nodes. The authors' code takes `sigmoid(q)` for a link's probability there, and
//! draws it with `sigmoid(2q)`; here both are the latter.
//!
//! The entropy is the sum of those of the choices along a row, given those before each; its gradient does not count how earlier
//! choices change later entropies.

mod walk;

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::{GeneRow, Genome, Index};

use super::{Adam, AdamSettings, RowOdds, drawn_from, entropy_slopes};
use walk::{Attention, Choice, Decision, Input, Step, Walk};

/// Initial weights are uniform within this.
const INITIAL: f64 = 0.1;
const SETTINGS: AdamSettings = AdamSettings { decays: [0.0, 0.999], addend: 1e-3 };

/// Settings of an LSTM as a policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LstmSettings {
    /// Units of the LSTM.
    pub hidden: usize,
    /// Logits are divided by it.
    pub temperature: f64,
    /// Then they are squashed to this range by a tanh.
    pub range: f64,
    /// The wanted share of links, between 0 and 1.
    pub link_share: f64,
    /// Weight of the divergence from that share, in units of the reward.
    pub link_weight: f64,
}

/// The controller.
#[derive(Clone, Debug)]
pub(super) struct Lstm {
    settings: LstmSettings,
    /// The kind of each gene.
    kinds: Vec<usize>,
    /// For each kind the first output weight, the first embedding weight, and the number of values.
    places: Vec<(usize, usize, usize)>,
    /// The first weight of the attention over nodes: two square matrices and a vector.
    attention: usize,
    pub weights: Adam,
}

#[derive(Clone, Debug)]
struct State {
    hidden: Vec<f64>,
    cell: Vec<f64>,
}

impl Lstm {
    pub fn new(genome: &Genome, settings: LstmSettings, rng: &mut ChaCha8Rng) -> Self {
        let size = settings.hidden;
        let mut names = BTreeMap::new();
        let mut places: Vec<(usize, usize, usize)> = Vec::new();
        // the matrix of the gates, then the first input
        let mut len = 2 * size * 4 * size + size;
        let mut kinds = Vec::with_capacity(genome.len());
        for (at, gene) in genome.genes().iter().enumerate() {
            let allowed: Vec<String> =
                genome.allowed(at).iter().map(|value| gene.values[usize::from(*value)].to_string()).collect();
            let count = allowed.len();
            let kind = *names.entry((gene.dimension.key, allowed)).or_insert_with(|| {
                places.push((len, len + size * count, count));
                len += 2 * size * count;
                places.len() - 1
            });
            kinds.push(kind);
        }
        let attention = len;
        if genome.genes().iter().any(|gene| gene.of_node.is_some()) {
            len += 2 * size * size + size;
        }
        let weights = (0..len).map(|_| rng.random_range(-INITIAL..INITIAL)).collect();
        Self { settings, kinds, places, attention, weights: Adam::new(weights, SETTINGS) }
    }

    /// The place of the first input among the weights.
    fn first_input(&self) -> usize {
        8 * self.settings.hidden * self.settings.hidden
    }

    fn rest(&self) -> State {
        State { hidden: vec![0.0; self.settings.hidden], cell: vec![0.0; self.settings.hidden] }
    }

    /// One step of the LSTM: gates, then the state after it.
    fn advance(&self, input: &[f64], before: &State) -> (Vec<f64>, State) {
        let size = self.settings.hidden;
        let weights = &self.weights.values;
        let mut sums = vec![0.0; 4 * size];
        let values = input.iter().chain(&before.hidden);
        for (row, value) in weights.chunks_exact(4 * size).zip(values) {
            sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * value);
        }
        for (at, sum) in sums.iter_mut().enumerate() {
            *sum = if at < 3 * size { sigmoid(*sum) } else { sum.tanh() };
        }
        let mut after = self.rest();
        for unit in 0..size {
            let [taken, kept, shown, new] = [0, 1, 2, 3].map(|gate| sums[gate * size + unit]);
            after.cell[unit] = kept * before.cell[unit] + taken * new;
            after.hidden[unit] = shown * after.cell[unit].tanh();
        }
        (sums, after)
    }

    /// What attention over nodes makes of the anchor of one and of a hidden state.
    fn attend(&self, node: &Step, hidden: &[f64]) -> Attention {
        let size = self.settings.hidden;
        let weights = &self.weights.values[self.attention..];
        let mut scores = vec![0.0; size];
        let rows = weights[..2 * size * size].chunks_exact(size);
        for (row, value) in rows.zip(node.after.hidden.iter().chain(hidden)) {
            scores.iter_mut().zip(row).for_each(|(score, weight)| *score += weight * value);
        }
        scores.iter_mut().for_each(|score| *score = score.tanh());
        let logit: f64 = scores.iter().zip(&weights[2 * size * size..]).map(|(score, v)| score * v).sum();
        Attention { scores, tempered: logit / self.settings.temperature }
    }

    /// A logit that was divided by the temperature, squashed.
    fn squashed(&self, tempered: f64) -> f64 {
        self.settings.range * tempered.tanh()
    }

    /// The slope of a logit, given that of the squashed one.
    fn unsquashed_slope(&self, tempered: f64, slope: f64) -> f64 {
        let squashed = tempered.tanh();
        slope * self.settings.range * (1.0 - squashed * squashed) / self.settings.temperature
    }

    /// The logits of a gene's values, divided by the temperature.
    fn tempered(&self, gene: usize, hidden: &[f64]) -> Vec<f64> {
        let (start, _, count) = self.places[self.kinds[gene]];
        let mut logits = vec![0.0; count];
        for (row, value) in self.weights.values[start..].chunks_exact(count).zip(hidden) {
            logits.iter_mut().zip(row).for_each(|(logit, weight)| *logit += weight * value);
        }
        logits.iter_mut().for_each(|logit| *logit /= self.settings.temperature);
        logits
    }

    pub fn draw(&self, genome: &Genome, rng: &mut ChaCha8Rng) -> Vec<Index> {
        Walk::run(self, genome, |_, probabilities| drawn_from(probabilities, rng)).0
    }

    /// The steps that choose this row.
    fn steps_of(&self, genome: &Genome, row: &GeneRow) -> Vec<Step> {
        let place = |gene: usize| genome.allowed(gene).iter().position(|value| *value == row[gene]);
        Walk::run(self, genome, |gene, _| place(gene).expect("a row of allowed values")).1
    }

    /// How sure the policy is of a row.
    pub fn odds(&self, genome: &Genome, row: &GeneRow) -> RowOdds {
        let steps = self.steps_of(genome, row);
        steps.iter().flat_map(|step| &step.decisions).map(Decision::odds).sum()
    }

    /// The gradient of a row's log-probability times the advantage, of the entropy of its choices times its weight, and of the
    /// links' divergence from their wanted share times its weight: backward through the steps.
    pub fn gradient(&self, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> Vec<f64> {
        let steps = self.steps_of(genome, row);
        let linked = steps.iter().filter(|step| step.decisions.iter().any(Decision::is_link)).count();
        let drawn = Slopes {
            advantage,
            entropy,
            link_weight: self.settings.link_weight / linked.max(1) as f64,
            link_share: self.settings.link_share,
        };
        let mut backward = Backward {
            lstm: self,
            steps: &steps,
            hidden: vec![vec![0.0; self.settings.hidden]; steps.len()],
            gradient: vec![0.0; self.weights.values.len()],
        };
        let mut next = self.rest();
        for at in (0..steps.len()).rev() {
            backward.hidden[at].iter_mut().zip(&next.hidden).for_each(|(own, from_next)| *own += from_next);
            for decision in &steps[at].decisions {
                backward.through_decision(at, &decision.choice, &drawn.of(decision));
            }
            next = backward.through_step(at, &next.cell);
        }
        backward.gradient
    }
}

/// Slopes that go back through the steps of a row.
struct Backward<'a> {
    lstm: &'a Lstm,
    steps: &'a [Step],
    /// Of the hidden state after each step.
    hidden: Vec<Vec<f64>>,
    /// Of the weights.
    gradient: Vec<f64>,
}

impl Backward<'_> {
    /// Backward through a decision after step `at`, given the slopes of its logits.
    fn through_decision(&mut self, at: usize, choice: &Choice, slopes: &[f64]) {
        match choice {
            Choice::Value { gene, tempered } => {
                let (start, _, count) = self.lstm.places[self.lstm.kinds[*gene]];
                let logits: Vec<f64> = (0..count)
                    .map(|value| self.lstm.unsquashed_slope(tempered[value], slopes[value]))
                    .collect();
                // of the output weights, and of the hidden state
                for (unit, hidden) in self.hidden[at].iter_mut().enumerate() {
                    let own = start + unit * count;
                    for (value, slope) in logits.iter().enumerate() {
                        self.gradient[own + value] += slope * self.steps[at].after.hidden[unit];
                        *hidden += slope * self.lstm.weights.values[own + value];
                    }
                }
            }
            Choice::Nodes(nodes) => {
                for ((anchor, attention), slope) in nodes.iter().zip(slopes) {
                    let slope = self.lstm.unsquashed_slope(attention.tempered, *slope);
                    self.through_attention(*anchor, at, &attention.scores, slope);
                }
            }
        }
    }

    /// Backward through the attention of step `at` on the anchor of another, given the slope of its logit.
    fn through_attention(&mut self, anchor: usize, at: usize, scores: &[f64], slope: f64) {
        let size = scores.len();
        let weights = &self.lstm.weights.values;
        let vector = self.lstm.attention + 2 * size * size;
        let mut sums = vec![0.0; size];
        for (unit, score) in scores.iter().enumerate() {
            self.gradient[vector + unit] += slope * score;
            sums[unit] = slope * weights[vector + unit] * (1.0 - score * score);
        }
        for (matrix, step) in [(0, anchor), (1, at)] {
            let states = self.steps[step].after.hidden.iter().zip(&mut self.hidden[step]);
            for (unit, (value, hidden)) in states.enumerate() {
                let row = self.lstm.attention + (matrix * size + unit) * size;
                for (place, sum) in sums.iter().enumerate() {
                    self.gradient[row + place] += sum * value;
                    *hidden += sum * weights[row + place];
                }
            }
        }
    }

    /// Backward through step `at`, given the slopes of the cell after it; the slopes of the state before it.
    fn through_step(&mut self, at: usize, cell: &[f64]) -> State {
        let step = &self.steps[at];
        let size = cell.len();
        let mut before = self.lstm.rest();
        let sums = self.slopes_of_gates(at, cell, &mut before.cell);
        let mut input = vec![0.0; size];
        let values = step.values.iter().chain(&step.before.hidden);
        let slopes = input.iter_mut().chain(&mut before.hidden);
        for (at, (value, own)) in values.zip(slopes).enumerate() {
            let row = at * 4 * size;
            for (place, sum) in sums.iter().enumerate() {
                *own += sum * self.lstm.weights.values[row + place];
                self.gradient[row + place] += sum * value;
            }
        }
        match &step.input {
            Input::Weights(place) => {
                let own = &mut self.gradient[*place..place + size];
                own.iter_mut().zip(&input).for_each(|(own, slope)| *own += slope);
            }
            Input::Anchors { steps, share } => {
                for anchor in steps {
                    let own = self.hidden[*anchor].iter_mut().zip(&input);
                    own.for_each(|(own, slope)| *own += share * slope);
                }
            }
        }
        before
    }

    /// The slopes of the sums that step `at` makes its gates and new content of; `before` gets those of the cell before it.
    fn slopes_of_gates(&self, at: usize, cell: &[f64], before: &mut [f64]) -> Vec<f64> {
        let step = &self.steps[at];
        let size = cell.len();
        let mut sums = vec![0.0; 4 * size];
        for (unit, hidden) in self.hidden[at].iter().enumerate() {
            let [taken, kept, shown, new] = [0, 1, 2, 3].map(|gate| step.gates[gate * size + unit]);
            let content = step.after.cell[unit].tanh();
            let of_cell = cell[unit] + hidden * shown * (1.0 - content * content);
            let of_gates = [of_cell * new, of_cell * step.before.cell[unit], hidden * content];
            for (gate, (slope, value)) in of_gates.into_iter().zip([taken, kept, shown]).enumerate() {
                sums[gate * size + unit] = slope * value * (1.0 - value);
            }
            sums[3 * size + unit] = of_cell * taken * (1.0 - new * new);
            before[unit] = of_cell * kept;
        }
        sums
    }
}

/// What the slopes of a decision's logits follow.
struct Slopes {
    advantage: f64,
    entropy: f64,
    link_weight: f64,
    link_share: f64,
}

impl Slopes {
    /// The slopes of the decision's logits.
    fn of(&self, decision: &Decision) -> Vec<f64> {
        let Decision { probabilities, chosen, .. } = decision;
        let flatter = entropy_slopes(probabilities);
        let mut slopes: Vec<f64> = (0..probabilities.len())
            .map(|value| {
                let hit = if value == *chosen { 1.0 } else { 0.0 };
                self.advantage * (hit - probabilities[value]) + self.entropy * flatter[value]
            })
            .collect();
        if decision.is_link() {
            // of logits -q and q, by q
            let own = slopes[1] - slopes[0];
            let [no, yes] = [probabilities[0], probabilities[1]].map(|p| p.max(f64::MIN_POSITIVE));
            let [not_wanted, wanted] = [1.0 - self.link_share, self.link_share];
            let divergence = ((yes / wanted).ln() - (no / not_wanted).ln()) * 2.0 * yes * no;
            slopes = vec![own - self.link_weight * divergence];
        }
        slopes
    }
}

fn sigmoid(value: f64) -> f64 {
    1.0 / (1.0 + (-value).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use space::preset;

    const SMALL: LstmSettings =
        LstmSettings { hidden: 5, temperature: 2.0, range: 1.5, link_share: 0.4, link_weight: 0.7 };

    /// The log-probability of a row times the advantage, with the entropy of its choices and the divergence of its links.
    fn value(lstm: &Lstm, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> f64 {
        let steps = lstm.steps_of(genome, row);
        let odds = lstm.odds(genome, row);
        let mut divergences = Vec::new();
        for step in &steps {
            let links = step.decisions.iter().filter(|decision| decision.is_link());
            let yes: Vec<f64> = links.map(|link| link.probabilities[1]).collect();
            if !yes.is_empty() {
                let of_link = |p: &f64| p * (p / 0.4).ln() + (1.0 - p) * ((1.0 - p) / 0.6).ln();
                divergences.push(yes.iter().map(of_link).sum::<f64>());
            }
        }
        let divergence = divergences.iter().sum::<f64>() / divergences.len().max(1) as f64;
        advantage * odds.log_probability + entropy * odds.entropy - 0.7 * divergence
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        for (name, links) in [("tiny", 0), ("tiny-macro", 3)] {
            let space = preset(name).expect("a preset");
            let genome = space.genome();
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let mut lstm = Lstm::new(genome, SMALL, &mut rng);
            lstm.weights.values.iter_mut().for_each(|weight| *weight = rng.random_range(-0.8..0.8));
            for _ in 0..4 {
                let row = lstm.draw(genome, &mut rng);
                let steps = lstm.steps_of(genome, &row);
                let decisions = steps.iter().flat_map(|step| &step.decisions);
                let found = decisions.filter(|decision| decision.is_link()).count();
                assert!(found >= links, "{name}: {found} links");
                let (advantage, entropy) = (rng.random_range(-1.0..1.0), 0.3);
                let gradient = lstm.gradient(genome, &row, advantage, entropy);
                for (at, slope) in gradient.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut lstm = lstm.clone();
                        lstm.weights.values[at] += by;
                        value(&lstm, genome, &row, advantage, entropy)
                    };
                    let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((slope - expected).abs() < 1e-8, "{name}, weight {at}: {slope} {expected}");
                }
            }
        }
    }

    /// A space of fewer choices: links that are fixed count in what the next step reads, and are no decisions.
    #[test]
    fn fixed_links_are_read_and_not_decided() {
        let space = preset("tiny-macro").expect("a preset");
        let link = space.genome().find("l2.from0").expect("a link");
        for value in 0..2 {
            let genome = space.genome().fixed(link, value);
            let mut rng = ChaCha8Rng::seed_from_u64(5);
            let lstm = Lstm::new(&genome, SMALL, &mut rng);
            let row = lstm.draw(&genome, &mut rng);
            assert_eq!(row[link], value);
            let steps = lstm.steps_of(&genome, &row);
            let links = steps.iter().flat_map(|step| &step.decisions).filter(|one| one.is_link()).count();
            assert_eq!(links, 5, "one of six is fixed");
            // step 0 chose the resolution, step 1 is the stem's anchor, which the step after layer 2 reads where they are linked
            let linked = steps
                .iter()
                .filter(|step| matches!(&step.input, Input::Anchors { steps, .. } if steps.contains(&1)));
            let others =
                ["l1.from0", "l3.from0"].map(|name| usize::from(row[genome.find(name).expect("a link")]));
            // no step follows the last layer
            assert_eq!(linked.count(), others[0] + usize::from(value), "{row:?}");
        }
    }

    #[test]
    fn links_go_to_their_wanted_share() {
        let space = preset("tiny-macro").expect("a preset");
        let genome = space.genome();
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let links: Vec<usize> = (0..genome.len())
            .filter(|gene| {
                let of_node = genome.genes()[*gene].of_node;
                of_node.is_some_and(|of| matches!(of.role, space::NodeRole::Link { .. }))
            })
            .collect();
        for link_share in [0.2, 0.7] {
            let settings =
                LstmSettings { hidden: 16, temperature: 1.0, link_share, link_weight: 5.0, ..SMALL };
            let mut lstm = Lstm::new(genome, settings, &mut rng);
            for _ in 0..150 {
                let row = lstm.draw(genome, &mut rng);
                let gradient = lstm.gradient(genome, &row, 0.0, 0.0);
                lstm.weights.step(&gradient, 0.01);
            }
            let rows: Vec<_> = (0..400).map(|_| lstm.draw(genome, &mut rng)).collect();
            let taken = rows.iter().flat_map(|row| links.iter().map(|gene| f64::from(row[*gene])));
            let share = taken.sum::<f64>() / (400 * links.len()) as f64;
            assert!((share - link_share).abs() < 0.05, "{share} for {link_share}");
        }
    }

    #[test]
    fn genes_of_a_kind_share_weights_and_all_values_are_drawn() {
        let space = preset("tiny").expect("a preset");
        let genome = space.genome();
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let lstm = Lstm::new(genome, SMALL, &mut rng);
        let gene = |name: &str| genome.find(name).expect("a gene");
        assert_eq!(lstm.kinds[gene("s1.b1.kernel")], lstm.kinds[gene("s2.b1.kernel")]);
        assert_ne!(lstm.kinds[gene("s1.b1.kernel")], lstm.kinds[gene("s1.b1.expand")]);
        let rows: Vec<_> = (0..300).map(|_| lstm.draw(genome, &mut rng)).collect();
        assert!(rows.iter().all(|row| genome.holds(row)));
        for gene in 0..genome.len() {
            let mut seen: Vec<Index> =
                rows.iter().filter(|row| genome.exists(row, gene)).map(|row| row[gene]).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen, genome.allowed(gene), "{}", genome.genes()[gene].name);
        }
    }
}
