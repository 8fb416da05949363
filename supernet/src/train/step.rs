//! The part of one sub-network in a step: forward, loss, backward into the shared gradients.

use base::random::rng_for;
use candle_core::{Device, Tensor};
use kernels::Backend;
use network::elastic::{Gradients, SharedWeights, SubnetWeights};
use network::nn::{Network, Pass, Tape};
use rand::Rng;
use space::{Arch, SearchSpace};

use super::loss::{Loss, Target, loss};
use crate::error::Result;

/// The shared weights of a space, and the backend that computes with them.
#[derive(Clone)]
pub struct Student<'a> {
    /// The search space.
    pub space: &'a SearchSpace,
    /// The weights.
    pub weights: &'a SharedWeights,
    /// The backend that computes.
    pub backend: Backend,
}

/// The outcome of one network's training pass.
#[derive(Clone, Debug)]
pub struct Learned {
    /// The loss.
    pub loss: Loss,
    /// The logits, `[N, classes]`.
    pub logits: Tensor,
}

impl Student<'_> {
    /// Adds a sub-network's gradients to `gradients`.
    ///
    /// # Errors
    /// If the images do not fit the space.
    pub fn learn(
        &self,
        arch: &Arch,
        images: &Tensor,
        target: &Target,
        dropout: Option<Tensor>,
        gradients: &Gradients,
    ) -> Result<Learned> {
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        let views = subnet.gradients(gradients)?;
        let network = Network::new(&layers, &views.source()?)?;
        let learned = learn(&network, &self.backend, images, target, dropout)?;
        views.finish()?;
        Ok(learned)
    }

    /// Logits of a sub-network as a teacher: not trained, with the batch's own statistics.
    ///
    /// # Errors
    /// If the images do not fit the space.
    pub fn teach(&self, arch: &Arch, images: &Tensor) -> Result<Tensor> {
        let layers = self.space.lower(arch)?;
        let subnet = SubnetWeights::new(self.space, self.weights, &layers, &self.backend)?;
        Ok(Network::new(&layers, &subnet.values()?)?.forward(images, Pass::BatchStatistics)?)
    }
}

/// Adds the gradients of a network where its source has them.
pub(super) fn learn(
    network: &Network,
    backend: &Backend,
    images: &Tensor,
    target: &Target,
    dropout: Option<Tensor>,
) -> Result<Learned> {
    let dropout = dropout.map(|mask| backend.mask(&mask)).transpose()?;
    let mut tape = dropout.map_or_else(Tape::new, Tape::with_dropout);
    let logits = network.forward(images, Pass::Training(&mut tape))?; // [N, classes]
    let (loss, dlogits) = loss(&logits, target, backend)?;
    network.backward(&dlogits, tape)?;
    Ok(Learned { loss, logits })
}

/// A loss above this counts as divergence: 30 times that of guessing, doubled because a teacher adds its own. This
/// toolkit's choice; healthy runs stay within a few times that of guessing.
pub(super) fn most_loss(classes: usize) -> f32 {
    60.0 * (classes.max(2) as f32).ln()
}

/// A mask `[features, images]` of zeros at the space's dropout rate, the rest scaled to keep the mean; as many
/// features as the sub-network's classifier reads.
///
/// # Errors
/// If the tensor cannot be made.
pub fn dropout_mask(
    space: &SearchSpace,
    arch: &Arch,
    images: usize,
    seed: u64,
    place: [u64; 2],
) -> Result<Option<Tensor>> {
    let rate = space.dropout();
    if rate == 0.0 {
        return Ok(None);
    }
    let mut rng = rng_for("dropout", seed, &place);
    let features = space.lower(arch)?.last().map_or(0, |classifier| classifier.input.channels);
    let kept = 1.0 / (1.0 - rate);
    let mask: Vec<f32> = std::iter::repeat_with(|| if rng.random::<f32>() < rate { 0.0 } else { kept })
        .take(features * images)
        .collect();
    Ok(Some(Tensor::from_vec(mask, (features, images), &Device::Cpu)?))
}
