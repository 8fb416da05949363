//! A policy of independent softmaxes, one for the allowed values of each gene.

use rand_chacha::ChaCha8Rng;
use space::{GeneRow, Genome, Index};

use super::{Adam, AdamSettings, RowOdds, drawn_from, entropy_slopes, normal, odds_of, softmax};

/// Scale of the initial logits (AutoDL-Projects).
const INITIAL: f64 = 1e-3;

/// The policy.
#[derive(Clone, Debug)]
pub(super) struct Independent {
    /// The logits of all genes, one after the other.
    pub logits: Adam,
    /// The first logit of each gene, and the end.
    starts: Vec<usize>,
}

impl Independent {
    pub fn new(genome: &Genome, rng: &mut ChaCha8Rng) -> Self {
        let mut starts = vec![0];
        for gene in 0..genome.len() {
            starts.push(starts[gene] + genome.allowed(gene).len());
        }
        let logits = (0..starts[genome.len()]).map(|_| INITIAL * normal(rng)).collect();
        Self { logits: Adam::new(logits, AdamSettings::default()), starts }
    }

    /// The probabilities of a gene's values.
    pub fn probabilities(&self, gene: usize) -> Vec<f64> {
        softmax(&self.logits.values[self.starts[gene]..self.starts[gene + 1]])
    }

    pub fn draw(&self, genome: &Genome, rng: &mut ChaCha8Rng) -> Vec<Index> {
        let mut row = vec![0; genome.len()];
        for gene in 0..genome.len() {
            if genome.exists(&row, gene) {
                row[gene] = genome.allowed(gene)[drawn_from(&self.probabilities(gene), rng)];
            }
        }
        row
    }

    /// How sure the policy is of a row.
    pub fn odds(&self, genome: &Genome, row: &GeneRow) -> RowOdds {
        let there = (0..genome.len()).filter(|gene| genome.exists(row, *gene));
        let of_gene = |gene: usize| {
            let chosen = genome.allowed(gene).iter().position(|value| *value == row[gene]);
            odds_of(&self.probabilities(gene), chosen.unwrap_or_default())
        };
        there.map(of_gene).sum()
    }

    /// The gradient of a row's log-probability times the advantage, and of the entropy of its genes times its weight.
    pub fn gradient(&self, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> Vec<f64> {
        let mut gradient = Vec::with_capacity(self.logits.values.len());
        for gene in 0..genome.len() {
            let probabilities = self.probabilities(gene);
            if !genome.exists(row, gene) {
                gradient.extend(vec![0.0; probabilities.len()]);
                continue;
            }
            let flatter = entropy_slopes(&probabilities);
            let values = genome.allowed(gene).iter().zip(probabilities.iter().zip(flatter));
            gradient.extend(values.map(|(value, (share, flatter))| {
                let chosen = if *value == row[gene] { 1.0 } else { 0.0 };
                advantage * (chosen - share) + entropy * flatter
            }));
        }
        gradient
    }
}
