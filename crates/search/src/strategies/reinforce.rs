//! REINFORCE (Williams 1992) with a policy of independent softmaxes, one for each gene, as NAS-Bench-201's authors have it:
//! the policy draws a row, the reward is its merit, and the parameters follow reward minus baseline times the gradient of the
//! row's log-probability, with Adam. The best of all that was drawn is the result, not the policy.

use base::random::rng_for;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::{Genome, Index};

use super::parameters::{Parameter, Parameters};
use super::random::kept;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

/// Scale of the initial logits (AutoDL-Projects).
const INITIAL: f64 = 1e-3;
/// Adam's decays and its addend (Kingma and Ba 2015).
const DECAYS: [f64; 2] = [0.9, 0.999];
const ADDEND: f64 = 1e-8;

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter { name: "lr", default: "0.01", what: "Adam's learning rate" },
    Parameter {
        name: "momentum",
        default: "0.9",
        what: "of the reward's moving average, which is the baseline",
    },
    Parameter {
        name: "entropy",
        default: "0",
        what: "weight of the policy's entropy, in units of the reward",
    },
    Parameter { name: "batch", default: "1", what: "rows per step of the policy" },
];

/// A parameter of the policy, with Adam's averages.
#[derive(Clone, Copy, Debug, Default)]
struct Logit {
    value: f64,
    mean: f64,
    square: f64,
}

/// A softmax over the allowed values of each gene.
#[derive(Clone, Debug)]
struct Policy {
    genes: Vec<Vec<Logit>>,
    steps: i32,
}

impl Policy {
    fn new(genome: &Genome, rng: &mut ChaCha8Rng) -> Self {
        let logit = |rng: &mut ChaCha8Rng| Logit { value: INITIAL * normal(rng), ..Logit::default() };
        let genes = (0..genome.len())
            .map(|gene: usize| genome.allowed(gene).iter().map(|_| logit(rng)).collect())
            .collect();
        Self { genes, steps: 0 }
    }

    /// The probabilities of a gene's values.
    fn probabilities(&self, gene: usize) -> Vec<f64> {
        let logits = &self.genes[gene];
        let most = logits.iter().map(|logit| logit.value).fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = logits.iter().map(|logit| (logit.value - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    fn draw(&self, genome: &Genome, rng: &mut ChaCha8Rng) -> Vec<Index> {
        let mut row = vec![0; genome.len()];
        for gene in 0..genome.len() {
            if !genome.exists(&row, gene) {
                continue;
            }
            let mut left: f64 = rng.random();
            let probabilities = self.probabilities(gene);
            let drawn = probabilities.iter().position(|probability| {
                left -= probability;
                left < 0.0
            });
            row[gene] = genome.allowed(gene)[drawn.unwrap_or(probabilities.len() - 1)];
        }
        row
    }

    /// The gradient of a row's log-probability times the advantage, and of the entropy of its genes times its weight.
    fn gradient(&self, genome: &Genome, row: &[Index], advantage: f64, entropy: f64) -> Vec<Vec<f64>> {
        let of_gene = |gene: usize| {
            let probabilities = self.probabilities(gene);
            if !genome.exists(row, gene) {
                return vec![0.0; probabilities.len()];
            }
            let own: f64 = probabilities.iter().map(|p| -p * p.max(f64::MIN_POSITIVE).ln()).sum();
            let values = genome.allowed(gene).iter().zip(&probabilities);
            values
                .map(|(value, p): (&Index, &f64)| {
                    let chosen = if *value == row[gene] { 1.0 } else { 0.0 };
                    let flatter = -p * (p.max(f64::MIN_POSITIVE).ln() + own);
                    advantage * (chosen - p) + entropy * flatter
                })
                .collect()
        };
        (0..genome.len()).map(of_gene).collect()
    }

    /// A step of Adam up the gradient.
    fn step(&mut self, gradient: &[Vec<f64>], lr: f64) {
        self.steps += 1;
        let [first, second] = DECAYS;
        let (bias, of_square) = (1.0 - first.powi(self.steps), 1.0 - second.powi(self.steps));
        for (logit, slope) in self.genes.iter_mut().flatten().zip(gradient.iter().flatten()) {
            logit.mean = first * logit.mean + (1.0 - first) * slope;
            logit.square = second * logit.square + (1.0 - second) * slope * slope;
            logit.value += lr * (logit.mean / bias) / ((logit.square / of_square).sqrt() + ADDEND);
        }
    }
}

/// A normal random number (Box and Muller 1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A moving average that is right from its first value on.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn update(&mut self, value: f64, momentum: f64) -> f64 {
        self.sum = momentum * self.sum + (1.0 - momentum) * value;
        self.weight = momentum * self.weight + (1.0 - momentum);
        self.sum / self.weight
    }
}

/// The strategy of this module.
pub struct Reinforce<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    lr: f64,
    momentum: f64,
    entropy: f64,
    batch: usize,
    policy: Policy,
    baseline: Average,
    /// The lowest merit of a row that keeps the limits.
    worst: f64,
}

impl<'a> Reinforce<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let mut rng = rng_for("reinforce strategy", problem.seed, &[]);
        let policy = Policy::new(problem.genome(), &mut rng);
        let entropy = parameters.text("entropy").parse().ok();
        let entropy = entropy.filter(|weight: &f64| weight.is_finite() && *weight >= 0.0);
        let momentum = parameters.share("momentum")?;
        if momentum >= 1.0 {
            return Err(parameters.refused("momentum", "a share below 1", parameters.text("momentum")));
        }
        Ok(Self {
            problem,
            rng,
            lr: parameters.positive("lr")?,
            momentum,
            entropy: entropy.ok_or_else(|| {
                parameters.refused("entropy", "a number, at least 0", parameters.text("entropy"))
            })?,
            batch: parameters.count("batch")?,
            policy,
            baseline: Average::default(),
            worst: f64::INFINITY,
        })
    }

    /// A row's reward: its merit, or for one that breaks a limit less than the worst merit so far, by the violation. `None`
    /// for one that could not be evaluated before any other was.
    fn reward(&mut self, scored: &Scored<'_>, row: usize) -> Option<f64> {
        let merit = scored.merits(row)[0];
        let violation = scored.violation(row);
        if violation == f64::INFINITY {
            return self.worst.is_finite().then(|| rewarded(self.worst, 1.0, self.worst));
        }
        if violation == 0.0 {
            self.worst = self.worst.min(merit);
        }
        Some(rewarded(merit, violation, self.worst))
    }
}

/// The reward of a merit with a violation, below the worst merit of rows that keep the limits.
fn rewarded(merit: f64, violation: f64, worst: f64) -> f64 {
    if violation == 0.0 {
        return merit;
    }
    let base = worst.min(merit);
    base - violation * base.abs().max(f64::MIN_POSITIVE)
}

impl Strategy for Reinforce<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        let Self { problem, rng, policy, batch, .. } = self;
        for _ in 0..*batch {
            rows.push(&kept(problem, rng, |rng| policy.draw(problem.genome(), rng)));
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        let genome = self.problem.genome();
        let mut sum: Vec<Vec<f64>> = self.policy.genes.iter().map(|logits| vec![0.0; logits.len()]).collect();
        for (at, row) in scored.rows.iter().enumerate() {
            let Some(reward) = self.reward(scored, at) else { continue };
            let advantage = reward - self.baseline.update(reward, self.momentum);
            let own = self.policy.gradient(genome, row, advantage, self.entropy);
            sum.iter_mut().flatten().zip(own.iter().flatten()).for_each(|(sum, own)| *sum += own);
        }
        self.policy.step(&sum, self.lr);
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use space::preset;

    /// The log-probability of a row, and the entropy of its genes.
    fn value(policy: &Policy, genome: &Genome, row: &[Index], advantage: f64, entropy: f64) -> f64 {
        let there = (0..genome.len()).filter(|gene| genome.exists(row, *gene));
        there
            .map(|gene| {
                let probabilities = policy.probabilities(gene);
                let at = genome.allowed(gene).iter().position(|value| *value == row[gene]);
                let own: f64 = probabilities.iter().map(|p| -p * p.ln()).sum();
                advantage * probabilities[at.expect("allowed")].ln() + entropy * own
            })
            .sum()
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let space = preset("tiny").expect("a preset");
        let genome = space.genome();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut policy = Policy::new(genome, &mut rng);
        policy.genes.iter_mut().flatten().for_each(|logit| logit.value = normal(&mut rng));
        for _ in 0..10 {
            let row = policy.draw(genome, &mut rng);
            let (advantage, entropy) = (normal(&mut rng), 0.3);
            let gradient = policy.gradient(genome, &row, advantage, entropy);
            for (gene, slopes) in gradient.iter().enumerate() {
                for (at, own) in slopes.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut policy = policy.clone();
                        policy.genes[gene][at].value += by;
                        value(&policy, genome, &row, advantage, entropy)
                    };
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((slope - own).abs() < 1e-8, "gene {gene}: {slope}");
                }
            }
        }
    }

    #[test]
    fn what_breaks_a_limit_is_rewarded_less_than_what_keeps_it() {
        assert_eq!(rewarded(0.5, 0.0, -0.8), 0.5);
        for (merit, worst) in [(0.5, -0.8), (0.9, 0.6), (-3.0, -2.0), (0.4, f64::INFINITY)] {
            let [little, much] = [0.1, 1.0].map(|violation| rewarded(merit, violation, worst));
            assert!(much < little && little < worst.min(merit), "{merit} {worst}: {little} {much}");
        }
    }

    #[test]
    fn the_policy_draws_by_its_probabilities() {
        let space = preset("tiny").expect("a preset");
        let genome = space.genome();
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let mut policy = Policy::new(genome, &mut rng);
        let kernel = genome.find("s1.b1.kernel").expect("a gene");
        policy.genes[kernel][0].value = 2.0;
        let drawn = (0..4000).filter(|_| policy.draw(genome, &mut rng)[kernel] == 0).count();
        let expected = policy.probabilities(kernel)[0];
        assert!((drawn as f64 / 4000.0 - expected).abs() < 0.03, "{drawn} {expected}");
    }
}
