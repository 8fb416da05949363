//! Stochastic gradient descent with Nesterov's momentum, state kept by name.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::elastic::{Gradients, SharedWeights};
use crate::error::Result;
use crate::kernels::{Kernels, NesterovStep};

/// The optimizer: a velocity for each weight.
pub struct Sgd {
    velocities: BTreeMap<String, Tensor>,
    momentum: f32,
    weight_decay: f32,
    kernels: Kernels,
}

impl Sgd {
    /// An optimizer at rest.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn new(weights: &SharedWeights, momentum: f32, weight_decay: f32, kernels: Kernels) -> Result<Self> {
        Ok(Self::moving(weights.zeros_like()?, momentum, weight_decay, kernels))
    }

    /// An optimizer with these velocities, one for each weight.
    pub(super) fn moving(
        velocities: BTreeMap<String, Tensor>,
        momentum: f32,
        weight_decay: f32,
        kernels: Kernels,
    ) -> Self {
        Self { velocities, momentum, weight_decay, kernels: kernels.for_layer("optimizer") }
    }

    /// The same with the velocities of a checkpoint.
    #[must_use]
    pub fn with_velocities(self, velocities: BTreeMap<String, Tensor>) -> Self {
        Self { velocities, ..self }
    }

    /// Velocity of each weight by name.
    pub fn velocities(&self) -> &BTreeMap<String, Tensor> {
        &self.velocities
    }

    /// One step on every weight that some sub-network used; one used in part moves as a whole, the others rest. The
    /// gradients are zero after it.
    ///
    /// # Errors
    /// If the gradients are another space's.
    pub fn step(&self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        for name in gradients.take_touched() {
            self.move_weight(&name, weights.get(&name)?, gradients.get(&name)?, lr)?;
        }
        Ok(())
    }

    /// One step on one weight, whose gradient is zero after it.
    ///
    /// # Errors
    /// If the shapes differ.
    pub(super) fn move_weight(&self, name: &str, weight: &Tensor, gradient: &Tensor, lr: f32) -> Result<()> {
        let weight_decay = if decays(name) { self.weight_decay } else { 0.0 };
        let step = NesterovStep { lr, momentum: self.momentum, weight_decay };
        Ok(self.kernels.nesterov(weight, gradient, &self.velocities[name], step)?)
    }
}

/// Batch norms and biases do not decay.
fn decays(name: &str) -> bool {
    !name.contains(".bn.") && !name.ends_with(".bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decays() {
        for (name, expected) in [
            ("first_conv.conv.weight", true),
            ("blocks.1.conv.depth_conv.conv.7to5_matrix", true),
            ("blocks.1.conv.depth_conv.bn.weight", false),
            ("classifier.linear.bias", false),
            ("classifier.linear.weight", true),
        ] {
            assert_eq!(decays(name), expected, "{name}");
        }
    }
}
