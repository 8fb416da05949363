//! Stochastic gradient descent with Nesterov's momentum, state kept by name.

use std::collections::BTreeMap;

use candle_core::Tensor;
use kernels::{Kernels, Moved};
use network::elastic::{Gradients, SharedWeights, is_classifier};

use crate::error::Result;

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
    pub fn new(weights: &SharedWeights, momentum: f32, weight_decay: f32, kernels: &Kernels) -> Result<Self> {
        Self::moving(weights.zeros_like()?, momentum, weight_decay, kernels)
    }

    /// An optimizer with these velocities, one for each weight, moved to where the kernels compute.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn moving(
        velocities: BTreeMap<String, Tensor>,
        momentum: f32,
        weight_decay: f32,
        kernels: &Kernels,
    ) -> Result<Self> {
        let device = kernels.device();
        let moved = velocities.into_iter().map(|(name, velocity)| Ok((name, velocity.to_device(&device)?)));
        let velocities = moved.collect::<Result<_>>()?;
        Ok(Self { velocities, momentum, weight_decay, kernels: kernels.for_layer("optimizer") })
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
        let touched = gradients.take_touched();
        let parts = touched.iter().map(|name| Ok((name.as_str(), weights.get(name)?, gradients.get(name)?)));
        self.move_weights(parts.collect::<Result<Vec<_>>>()?, lr)
    }

    /// The same on the classifier alone: all else rests, and its gradients are set back to zero.
    ///
    /// # Errors
    /// If the gradients are another space's.
    pub fn step_head(&self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        let (head, rest): (Vec<_>, Vec<_>) =
            gradients.take_touched().into_iter().partition(|name| is_classifier(name));
        rest.iter()
            .try_for_each(|name| Ok::<_, crate::Error>(self.kernels.fill_zero(gradients.get(name)?)?))?;
        let parts = head.iter().map(|name| Ok((name.as_str(), weights.get(name)?, gradients.get(name)?)));
        self.move_weights(parts.collect::<Result<Vec<_>>>()?, lr)
    }

    /// One step on weights by name, each with its gradient, which is zero after it.
    ///
    /// # Errors
    /// If the shapes differ.
    pub(super) fn move_weights<'a>(
        &'a self,
        weights: impl IntoIterator<Item = (&'a str, &'a Tensor, &'a Tensor)>,
        lr: f32,
    ) -> Result<()> {
        let moved = |(name, parameter, gradient): (&str, &'a Tensor, &'a Tensor)| {
            let weight_decay = if decays(name) { self.weight_decay } else { 0.0 };
            Moved { parameter, gradient, velocity: &self.velocities[name], weight_decay }
        };
        let moved: Vec<_> = weights.into_iter().map(moved).collect();
        Ok(self.kernels.nesterov(&moved, lr, self.momentum)?)
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
