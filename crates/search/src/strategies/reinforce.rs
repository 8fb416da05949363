//! REINFORCE (Williams 1992): a policy draws a row, the reward is its merit, and the policy's parameters follow reward minus
//! baseline times the gradient of the row's log-probability, with Adam. The best of all that was drawn is the result, not the
//! policy. The policy is a softmax for each gene, as NAS-Bench-201's authors have it, or an LSTM controller (Zoph and Le 2017).

mod independent;
mod lstm;

use base::random::rng_for;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::{GeneRow, Genome, Index};

use super::parameters::{Parameter, Parameters};
use super::random::kept;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};
use independent::Independent;
use lstm::{Lstm, LstmSettings};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "policy",
        default: "independent",
        what: "independent softmaxes, or an lstm that chooses one gene after the other",
    },
    Parameter { name: "lr", default: "0.01", what: "Adam's learning rate; ENAS has 0.001 for its lstm" },
    Parameter {
        name: "momentum",
        default: "0.9",
        what: "of the reward's moving average, which is the baseline; ENAS has 0.99",
    },
    Parameter {
        name: "entropy",
        default: "0",
        what: "weight of the policy's entropy, in units of the reward; ENAS has 0.0001",
    },
    Parameter { name: "batch", default: "1", what: "rows per step of the policy" },
    Parameter { name: "hidden", default: "64", what: "units of the lstm" },
    Parameter { name: "temperature", default: "1", what: "divides the lstm's logits; Zoph and Le have 5" },
    Parameter {
        name: "range",
        default: "1.5",
        what: "of the lstm's logits, squashed by a tanh; Zoph and Le have 2.5",
    },
];

/// Draws rows, and learns.
enum Policy {
    Independent(Independent),
    Lstm(Lstm),
}

impl Policy {
    fn from_parameters(genome: &Genome, parameters: &Parameters, rng: &mut ChaCha8Rng) -> Result<Self> {
        let settings = LstmSettings {
            hidden: parameters.count("hidden")?,
            temperature: parameters.positive("temperature")?,
            range: parameters.positive("range")?,
        };
        if settings.hidden > MOST_HIDDEN {
            let expected = format!("at most {MOST_HIDDEN}");
            return Err(parameters.refused("hidden", &expected, parameters.text("hidden")));
        }
        Ok(match parameters.word("policy", &["independent", "lstm"])? {
            "lstm" => Self::Lstm(Lstm::new(genome, settings, rng)),
            _ => Self::Independent(Independent::new(genome, rng)),
        })
    }

    fn draw(&self, genome: &Genome, rng: &mut ChaCha8Rng) -> Vec<Index> {
        match self {
            Self::Independent(policy) => policy.draw(genome, rng),
            Self::Lstm(policy) => policy.draw(genome, rng),
        }
    }

    /// The gradient of a row's log-probability times the advantage, and of the entropy of its genes times its weight.
    fn gradient(&self, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> Vec<f64> {
        match self {
            Self::Independent(policy) => policy.gradient(genome, row, advantage, entropy),
            Self::Lstm(policy) => policy.gradient(genome, row, advantage, entropy),
        }
    }

    fn step(&mut self, gradient: &[f64], lr: f64) {
        match self {
            Self::Independent(policy) => policy.logits.step(gradient, lr),
            Self::Lstm(policy) => policy.weights.step(gradient, lr),
        }
    }
}

/// Most units of an LSTM.
const MOST_HIDDEN: usize = 1024;

/// The place of a value that is drawn with these probabilities.
fn drawn_from(probabilities: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut left: f64 = rng.random();
    let drawn = probabilities.iter().position(|probability| {
        left -= probability;
        left < 0.0
    });
    drawn.unwrap_or(probabilities.len() - 1)
}

/// The derivatives of a softmax's entropy by its logits.
fn entropy_slopes(probabilities: &[f64]) -> Vec<f64> {
    let information = |p: &f64| p.max(f64::MIN_POSITIVE).ln();
    let own: f64 = probabilities.iter().map(|p| -p * information(p)).sum();
    probabilities.iter().map(|p| -p * (information(p) + own)).collect()
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
        let policy = Policy::from_parameters(problem.genome(), parameters, &mut rng)?;
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
        let mut sum: Vec<f64> = Vec::new();
        for (at, row) in scored.rows.iter().enumerate() {
            let Some(reward) = self.reward(scored, at) else { continue };
            let advantage = reward - self.baseline.update(reward, self.momentum);
            let own = self.policy.gradient(genome, row, advantage, self.entropy);
            sum.resize(own.len(), 0.0);
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
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
    fn value(policy: &Independent, genome: &Genome, row: &[Index], advantage: f64, entropy: f64) -> f64 {
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
        let mut policy = Independent::new(genome, &mut rng);
        policy.logits.values.iter_mut().for_each(|logit| *logit = normal(&mut rng));
        for _ in 0..10 {
            let row = policy.draw(genome, &mut rng);
            let (advantage, entropy) = (normal(&mut rng), 0.3);
            let gradient = policy.gradient(genome, &row, advantage, entropy);
            for (at, slope) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut policy = policy.clone();
                    policy.logits.values[at] += by;
                    value(&policy, genome, &row, advantage, entropy)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-8, "logit {at}: {slope} {expected}");
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
        let mut policy = Independent::new(genome, &mut rng);
        let kernel = genome.find("s1.b1.kernel").expect("a gene");
        let first: usize = (0..kernel).map(|gene| genome.allowed(gene).len()).sum();
        policy.logits.values[first] = 2.0;
        let drawn = (0..4000).filter(|_| policy.draw(genome, &mut rng)[kernel] == 0).count();
        let expected = policy.probabilities(kernel)[0];
        assert!(expected > 0.7 && (drawn as f64 / 4000.0 - expected).abs() < 0.03, "{drawn} {expected}");
    }
}
