//! A controller: an LSTM that chooses the genes one after the other, each given those before it (Zoph and Le 2017). As ENAS
//! (Pham et al. 2018) has it: one layer without biases, all weights uniform, logits tempered and squashed by a tanh, Adam
//! without a first moment. Genes of one kind with the same values share output weights and embeddings.
//!
//! A choice's embedding is the input of the next step. Genes that do not exist are passed over.

use std::collections::BTreeMap;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::{GeneRow, Genome, Index};

use super::super::adam::{Adam, AdamSettings, softmax};
use super::{drawn_from, entropy_slopes};

/// Initial weights are uniform within this.
const INITIAL: f64 = 0.1;
const SETTINGS: AdamSettings = AdamSettings { decays: [0.0, 0.999], addend: 1e-3 };

/// Settings of a controller.
#[derive(Clone, Copy, Debug)]
pub(super) struct LstmSettings {
    /// Units of the LSTM.
    pub hidden: usize,
    /// Logits are divided by it.
    pub temperature: f64,
    /// Then they are squashed to this range by a tanh.
    pub range: f64,
}

/// The controller.
#[derive(Clone, Debug)]
pub(super) struct Lstm {
    settings: LstmSettings,
    /// The kind of each gene.
    kinds: Vec<usize>,
    /// For each kind the first output weight, the first embedding weight, and the number of values.
    places: Vec<(usize, usize, usize)>,
    pub weights: Adam,
}

/// A step of the LSTM that chose a gene, with all that its gradient needs.
struct Step {
    gene: usize,
    /// Place of the input among the weights.
    input: usize,
    /// Hidden state and cell before.
    before: State,
    /// Input, forget and output gate, and the new content.
    gates: Vec<f64>,
    after: State,
    /// Logits divided by the temperature, before the tanh.
    tempered: Vec<f64>,
    probabilities: Vec<f64>,
    chosen: usize,
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
        let weights = (0..len).map(|_| rng.random_range(-INITIAL..INITIAL)).collect();
        Self { settings, kinds, places, weights: Adam::new(weights, SETTINGS) }
    }

    /// The place of the first input among the weights.
    fn first_input(&self) -> usize {
        8 * self.settings.hidden * self.settings.hidden
    }

    fn rest(&self) -> State {
        State { hidden: vec![0.0; self.settings.hidden], cell: vec![0.0; self.settings.hidden] }
    }

    /// One step of the LSTM: gates, then the state after it.
    fn advance(&self, input: usize, before: &State) -> (Vec<f64>, State) {
        let size = self.settings.hidden;
        let weights = &self.weights.values;
        let mut sums = vec![0.0; 4 * size];
        let values = weights[input..input + size].iter().chain(&before.hidden);
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

    /// The steps that choose a row, each choice made by `choose` from the row so far and the probabilities.
    fn run(
        &self,
        genome: &Genome,
        mut choose: impl FnMut(usize, &[f64]) -> usize,
    ) -> (Vec<Index>, Vec<Step>) {
        let size = self.settings.hidden;
        let mut row = vec![0; genome.len()];
        let mut steps = Vec::new();
        let (mut input, mut state) = (self.first_input(), self.rest());
        for gene in 0..genome.len() {
            if !genome.exists(&row, gene) {
                continue;
            }
            let (gates, after) = self.advance(input, &state);
            let tempered = self.tempered(gene, &after.hidden);
            let logits: Vec<f64> = tempered.iter().map(|logit| self.settings.range * logit.tanh()).collect();
            let probabilities = softmax(&logits);
            let chosen = choose(gene, &probabilities);
            row[gene] = genome.allowed(gene)[chosen];
            let before = std::mem::replace(&mut state, after.clone());
            steps.push(Step { gene, input, before, gates, after, tempered, probabilities, chosen });
            input = self.places[self.kinds[gene]].1 + chosen * size;
        }
        (row, steps)
    }

    pub fn draw(&self, genome: &Genome, rng: &mut ChaCha8Rng) -> Vec<Index> {
        self.run(genome, |_, probabilities| drawn_from(probabilities, rng)).0
    }

    /// The steps that choose this row.
    fn steps_of(&self, genome: &Genome, row: &GeneRow) -> Vec<Step> {
        let place = |gene: usize| genome.allowed(gene).iter().position(|value| *value == row[gene]);
        self.run(genome, |gene, _| place(gene).expect("a row of allowed values")).1
    }

    /// The gradient of a row's log-probability times the advantage, and of the entropy of its choices times its weight:
    /// backward through the steps.
    pub fn gradient(&self, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> Vec<f64> {
        let weights = &self.weights.values;
        let mut gradient = vec![0.0; weights.len()];
        let mut next = self.rest();
        for step in self.steps_of(genome, row).iter().rev() {
            let (start, _, count) = self.places[self.kinds[step.gene]];
            let flatter = entropy_slopes(&step.probabilities);
            let logits: Vec<f64> = (0..count)
                .map(|value| {
                    let chosen = if value == step.chosen { 1.0 } else { 0.0 };
                    let slope = advantage * (chosen - step.probabilities[value]) + entropy * flatter[value];
                    let squashed = step.tempered[value].tanh();
                    slope * self.settings.range * (1.0 - squashed * squashed) / self.settings.temperature
                })
                .collect();
            // of the output weights, and of the hidden state
            let mut hidden = std::mem::take(&mut next.hidden);
            for (unit, hidden) in hidden.iter_mut().enumerate() {
                let own = start + unit * count;
                for (value, slope) in logits.iter().enumerate() {
                    gradient[own + value] += slope * step.after.hidden[unit];
                    *hidden += slope * weights[own + value];
                }
            }
            next = self.backward(step, &hidden, &next.cell, &mut gradient);
        }
        gradient
    }

    /// Backward through one step of the LSTM, given the slopes of its state; the slopes of the state before it.
    fn backward(&self, step: &Step, hidden: &[f64], cell: &[f64], gradient: &mut [f64]) -> State {
        let size = self.settings.hidden;
        let mut before = self.rest();
        let mut sums = vec![0.0; 4 * size];
        for unit in 0..size {
            let [taken, kept, shown, new] = [0, 1, 2, 3].map(|gate| step.gates[gate * size + unit]);
            let content = step.after.cell[unit].tanh();
            let of_cell = cell[unit] + hidden[unit] * shown * (1.0 - content * content);
            let of_gates = [of_cell * new, of_cell * step.before.cell[unit], hidden[unit] * content];
            for (gate, (slope, value)) in of_gates.into_iter().zip([taken, kept, shown]).enumerate() {
                sums[gate * size + unit] = slope * value * (1.0 - value);
            }
            sums[3 * size + unit] = of_cell * taken * (1.0 - new * new);
            before.cell[unit] = of_cell * kept;
        }
        for at in 0..2 * size {
            let row = at * 4 * size;
            let value =
                if at < size { self.weights.values[step.input + at] } else { step.before.hidden[at - size] };
            let mut slope = 0.0;
            for (place, sum) in sums.iter().enumerate() {
                slope += sum * self.weights.values[row + place];
                gradient[row + place] += sum * value;
            }
            match at < size {
                true => gradient[step.input + at] += slope,
                false => before.hidden[at - size] = slope,
            }
        }
        before
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

    const SMALL: LstmSettings = LstmSettings { hidden: 5, temperature: 2.0, range: 1.5 };

    /// The log-probability of a row, and the entropy of its choices.
    fn value(lstm: &Lstm, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> f64 {
        let steps = lstm.steps_of(genome, row);
        let of_step = |step: &Step| {
            let own: f64 = step.probabilities.iter().map(|p| -p * p.ln()).sum();
            advantage * step.probabilities[step.chosen].ln() + entropy * own
        };
        steps.iter().map(of_step).sum()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let space = preset("tiny").expect("a preset");
        let genome = space.genome();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut lstm = Lstm::new(genome, SMALL, &mut rng);
        lstm.weights.values.iter_mut().for_each(|weight| *weight = rng.random_range(-0.8..0.8));
        for _ in 0..4 {
            let row = lstm.draw(genome, &mut rng);
            let (advantage, entropy) = (rng.random_range(-1.0..1.0), 0.3);
            let gradient = lstm.gradient(genome, &row, advantage, entropy);
            for (at, slope) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut lstm = lstm.clone();
                    lstm.weights.values[at] += by;
                    value(&lstm, genome, &row, advantage, entropy)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-8, "weight {at}: {slope} {expected}");
            }
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
