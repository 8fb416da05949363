//! Policies that draw rows of genes, and learn from the rewards of what they drew by REINFORCE (Williams 1992): their
//! parameters follow reward minus baseline times the gradient of a row's log-probability, with Adam. A policy is a softmax
//! for each gene, as NAS-Bench-201's authors have it, or an LSTM controller (Zoph and Le 2017, ENAS).

mod adam;
mod independent;
mod lstm;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use space::{GeneRow, Genome, Index};

pub use adam::{Adam, AdamSettings, softmax};
pub use lstm::LstmSettings;

use independent::Independent;
use lstm::Lstm;

/// Most units of an LSTM.
pub const MOST_HIDDEN: usize = 1024;

/// The form of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKind {
    /// A softmax for each gene.
    Independent,
    /// An LSTM that chooses one gene after the other.
    Lstm,
}

/// Settings of a controller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControllerSettings {
    /// The form of its policy.
    pub policy: PolicyKind,
    /// Adam's learning rate.
    pub lr: f64,
    /// Momentum of the reward's moving average, which is the baseline; below 1.
    pub momentum: f64,
    /// Weight of the policy's entropy, in units of the reward.
    pub entropy: f64,
    /// Settings of an LSTM.
    pub lstm: LstmSettings,
}

/// A policy with what it learns by.
#[derive(Clone, Debug)]
pub struct Controller {
    settings: ControllerSettings,
    policy: Policy,
    baseline: Average,
}

/// Everything in which a controller differs from a fresh one of its settings. Computed in f64, its numbers are rounded to f32
/// after each step, so that a file of f32 values holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct ControllerState {
    /// The policy's parameters.
    pub values: Vec<f32>,
    /// Adam's averages of each parameter's gradient.
    pub means: Vec<f32>,
    /// Adam's averages of each parameter's squared gradient.
    pub squares: Vec<f32>,
    /// Steps of Adam.
    pub steps: u32,
    /// Sum and weight of the rewards' moving average.
    pub baseline: [f32; 2],
}

/// How sure a policy is of the choices of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowOdds {
    /// The row's log-probability.
    pub log_probability: f64,
    /// The sum of the entropies of its choices, given those before each.
    pub entropy: f64,
}

impl Controller {
    /// A fresh controller of rows of a genome.
    pub fn new(genome: &Genome, settings: ControllerSettings, rng: &mut ChaCha8Rng) -> Self {
        let mut policy = match settings.policy {
            PolicyKind::Independent => Policy::Independent(Independent::new(genome, rng)),
            PolicyKind::Lstm => Policy::Lstm(Lstm::new(genome, settings.lstm, rng)),
        };
        policy.adam_mut().round();
        Self { settings, policy, baseline: Average::default() }
    }

    /// Draws a row.
    pub fn draw(&self, genome: &Genome, rng: &mut ChaCha8Rng) -> Vec<Index> {
        match &self.policy {
            Policy::Independent(policy) => policy.draw(genome, rng),
            Policy::Lstm(policy) => policy.draw(genome, rng),
        }
    }

    /// How sure the policy is of a row of the genome.
    pub fn odds(&self, genome: &Genome, row: &GeneRow) -> RowOdds {
        match &self.policy {
            Policy::Independent(policy) => policy.odds(genome, row),
            Policy::Lstm(policy) => policy.odds(genome, row),
        }
    }

    /// A step of the policy up the mean gradient of these rows with their rewards. The baseline takes a reward into account
    /// before that is compared with it.
    pub fn learn<'a>(&mut self, genome: &Genome, rewarded: impl IntoIterator<Item = (&'a GeneRow, f64)>) {
        let mut sum: Vec<f64> = Vec::new();
        let mut count = 0;
        for (row, reward) in rewarded {
            let advantage = reward - self.baseline.update(reward, self.settings.momentum);
            let own = self.policy.gradient(genome, row, advantage, self.settings.entropy);
            sum.resize(own.len(), 0.0);
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            count += 1;
        }
        if count == 0 {
            return;
        }
        sum.iter_mut().for_each(|slope| *slope /= f64::from(count));
        self.policy.adam_mut().step(&sum, self.settings.lr);
        self.policy.adam_mut().round();
        let Average { sum, weight } = self.baseline;
        self.baseline = Average { sum: rounded(sum), weight: rounded(weight) };
    }

    /// The rewards' moving average, once there is a reward.
    pub fn baseline(&self) -> Option<f64> {
        let Average { sum, weight } = self.baseline;
        (weight > 0.0).then(|| sum / weight)
    }

    /// Its state.
    pub fn state(&self) -> ControllerState {
        let adam = self.policy.adam();
        let [means, squares] = adam.moments();
        let single = |list: &[f64]| list.iter().map(|value| *value as f32).collect();
        let Average { sum, weight } = self.baseline;
        ControllerState {
            values: single(&adam.values),
            means: single(&means),
            squares: single(&squares),
            steps: adam.steps(),
            baseline: [sum as f32, weight as f32],
        }
    }

    /// The controller with a state that one of the same settings and genome had; `place` names the state in messages.
    ///
    /// # Errors
    /// If the state is another's: it has other numbers of parameters, or values that no training leaves.
    pub fn restored(mut self, state: ControllerState, place: &str) -> base::error::Result<Self> {
        let ControllerState { values, means, squares, steps, baseline: [sum, weight] } = state;
        let expected = self.policy.adam().values.len();
        let refused = |field: &str, expected: String, got: String| {
            base::Error::invalid(place, format!("controller.{field}"), expected, got)
                .and_then_do("resume with the recipe that the run was started with")
        };
        for (field, list) in [("values", &values), ("means", &means), ("squares", &squares)] {
            if list.len() != expected {
                return Err(refused(field, format!("{expected} numbers"), list.len().to_string()));
            }
            let least = if field == "squares" { 0.0 } else { f32::NEG_INFINITY };
            if let Some(value) = list.iter().find(|value| !value.is_finite() || **value < least) {
                let form = if least == 0.0 { "finite numbers of at least 0" } else { "finite numbers" };
                return Err(refused(field, form.to_string(), value.to_string()));
            }
        }
        if !sum.is_finite() || !(0.0..=1.0).contains(&weight) {
            let form = "a finite sum, and a weight of 0 to 1".to_string();
            return Err(refused("baseline", form, format!("{sum}, {weight}")));
        }
        let double = |list: Vec<f32>| list.into_iter().map(f64::from).collect();
        self.policy.adam_mut().restore(double(values), [double(means), double(squares)], steps);
        self.baseline = Average { sum: f64::from(sum), weight: f64::from(weight) };
        Ok(self)
    }
}

/// Draws rows, and learns.
#[derive(Clone, Debug)]
enum Policy {
    Independent(Independent),
    Lstm(Lstm),
}

impl Policy {
    /// The gradient of a row's log-probability times the advantage, of the entropy of its genes times its weight, and of what
    /// else the policy is drawn to.
    fn gradient(&self, genome: &Genome, row: &GeneRow, advantage: f64, entropy: f64) -> Vec<f64> {
        match self {
            Self::Independent(policy) => policy.gradient(genome, row, advantage, entropy),
            Self::Lstm(policy) => policy.gradient(genome, row, advantage, entropy),
        }
    }

    fn adam(&self) -> &Adam {
        match self {
            Self::Independent(policy) => &policy.logits,
            Self::Lstm(policy) => &policy.weights,
        }
    }

    fn adam_mut(&mut self) -> &mut Adam {
        match self {
            Self::Independent(policy) => &mut policy.logits,
            Self::Lstm(policy) => &mut policy.weights,
        }
    }
}

/// The place of a value that is drawn with these probabilities.
pub fn drawn_from(probabilities: &[f64], rng: &mut ChaCha8Rng) -> usize {
    let mut left: f64 = rng.random();
    let drawn = probabilities.iter().position(|probability| {
        left -= probability;
        left < 0.0
    });
    // rounding may leave a rest, which is no value's that cannot be drawn
    let last = || probabilities.iter().rposition(|probability| *probability > 0.0);
    drawn.or_else(last).unwrap_or_default()
}

/// The derivatives of a softmax's entropy by its logits.
fn entropy_slopes(probabilities: &[f64]) -> Vec<f64> {
    let information = |p: &f64| p.max(f64::MIN_POSITIVE).ln();
    let own: f64 = probabilities.iter().map(|p| -p * information(p)).sum();
    probabilities.iter().map(|p| -p * (information(p) + own)).collect()
}

/// The odds of choosing one of several values with these probabilities.
fn odds_of(probabilities: &[f64], chosen: usize) -> RowOdds {
    let information = |p: f64| p.max(f64::MIN_POSITIVE).ln();
    RowOdds {
        log_probability: information(probabilities[chosen]),
        entropy: probabilities.iter().map(|p| -p * information(*p)).sum(),
    }
}

impl std::iter::Sum for RowOdds {
    fn sum<I: Iterator<Item = Self>>(odds: I) -> Self {
        odds.fold(Self::default(), |sum, one| Self {
            log_probability: sum.log_probability + one.log_probability,
            entropy: sum.entropy + one.entropy,
        })
    }
}

/// A normal random number (Box and Muller 1958).
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A number as f32 holds it.
fn rounded(value: f64) -> f64 {
    f64::from(value as f32)
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

#[cfg(test)]
mod tests;
