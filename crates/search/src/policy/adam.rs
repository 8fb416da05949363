//! Adam (Kingma and Ba 2015), for what follows a gradient up.

/// Parameters with their moving averages.
#[derive(Clone, Debug)]
pub struct Adam {
    /// The values.
    pub values: Vec<f64>,
    moments: Vec<[f64; 2]>,
    settings: AdamSettings,
    steps: u32,
}

/// Decays of the averages of gradients and of their squares, and the addend of the divisor.
#[derive(Clone, Copy, Debug)]
pub struct AdamSettings {
    /// Decays of the averages.
    pub decays: [f64; 2],
    /// What is added to the divisor.
    pub addend: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self { decays: [0.9, 0.999], addend: 1e-8 }
    }
}

impl Adam {
    /// Parameters with these values, at rest.
    pub fn new(values: Vec<f64>, settings: AdamSettings) -> Self {
        Self { moments: vec![[0.0; 2]; values.len()], values, settings, steps: 0 }
    }

    /// Steps so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The averages of all parameters' gradients, and of the squares.
    pub fn moments(&self) -> [Vec<f64>; 2] {
        [0, 1].map(|which| self.moments.iter().map(|moments| moments[which]).collect())
    }

    /// Takes over a state, of as many parameters.
    pub fn restore(&mut self, values: Vec<f64>, [means, squares]: [Vec<f64>; 2], steps: u32) {
        self.moments = means.into_iter().zip(squares).map(|(mean, square)| [mean, square]).collect();
        self.values = values;
        self.steps = steps;
    }

    /// Rounds all numbers to what f32 holds.
    pub fn round(&mut self) {
        let moments = self.moments.iter_mut().flatten();
        self.values.iter_mut().chain(moments).for_each(|value| *value = super::rounded(*value));
    }

    /// A step up the gradient.
    pub fn step(&mut self, gradient: &[f64], lr: f64) {
        self.steps = self.steps.saturating_add(1);
        let AdamSettings { decays: [first, second], addend } = self.settings;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let [bias, of_square] = [first, second].map(|decay| 1.0 - decay.powi(steps));
        for ((value, [mean, square]), slope) in self.values.iter_mut().zip(&mut self.moments).zip(gradient) {
            *mean = first * *mean + (1.0 - first) * slope;
            *square = second * *square + (1.0 - second) * slope * slope;
            *value += lr * (*mean / bias) / ((*square / of_square).sqrt() + addend);
        }
    }
}

/// The softmax of logits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_the_paper() {
        let mut adam = Adam::new(vec![1.0], AdamSettings::default());
        adam.step(&[0.5], 0.1);
        // the first step has the size of the rate
        assert!((adam.values[0] - 1.1).abs() < 1e-7, "{}", adam.values[0]);
        adam.step(&[-1.0], 0.1);
        let (mean, square): (f64, f64) = (0.9 * 0.05 - 0.1, 0.999 * 0.000_25 + 0.001);
        let expected = 1.1 + 0.1 * (mean / 0.19) / (square / (1.0 - 0.999 * 0.999)).sqrt();
        assert!((adam.values[0] - expected).abs() < 1e-6, "{} {expected}", adam.values[0]);
    }

    #[test]
    fn a_softmax_is_a_distribution_whatever_the_size() {
        assert_eq!(softmax(&[1e9, 1e9]), [0.5, 0.5]);
        let shares = softmax(&[0.0, 3f64.ln()]);
        assert!((shares[0] - 0.25).abs() < 1e-12 && (shares[1] - 0.75).abs() < 1e-12);
    }
}
