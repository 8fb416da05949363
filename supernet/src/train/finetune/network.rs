//! One static network in training: its own weights by name, and gradients of the same names.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::model_folder::ModelFolder;
use crate::nn::{MapSource, Network, Source};
use crate::space::{Arch, LayerSpec, SearchSpace};
use crate::train::Sgd;
use crate::train::loss::Target;
use crate::train::step::learn;

/// A network whose weights are nobody else's.
pub struct StaticNetwork {
    layers: Vec<LayerSpec>,
    epsilon: f32,
    weights: BTreeMap<String, Tensor>,
    gradients: BTreeMap<String, Tensor>,
    kernels: Kernels,
}

/// Those of `tensors` that are trained in the network; all must be there in their shapes.
pub(super) fn trained(
    layers: &[LayerSpec],
    mut tensors: BTreeMap<String, Tensor>,
    place: &str,
) -> Result<BTreeMap<String, Tensor>> {
    let mut trained = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let expected = || format!("a tensor {:?}", weight.shape);
        let tensor = tensors
            .remove(&weight.name)
            .ok_or_else(|| Error::invalid(place, &weight.name, expected(), "none"))?;
        if tensor.dims() != weight.shape.as_slice() {
            return Err(Error::invalid(place, &weight.name, expected(), format!("{:?}", tensor.dims())));
        }
        trained.insert(weight.name, tensor);
    }
    Ok(trained)
}

impl StaticNetwork {
    /// A sub-network over weights of its own, which training changes in place.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(
        (space, arch): (&SearchSpace, &Arch),
        weights: BTreeMap<String, Tensor>,
        kernels: Kernels,
    ) -> Result<Self> {
        let layers = space.lower(arch)?;
        let weights = trained(&layers, weights, "network")?;
        let gradients = zeros_like(&weights)?;
        Ok(Self { layers, epsilon: space.batch_norm_epsilon(), weights, gradients, kernels })
    }

    /// A model's network over copies of its weights.
    ///
    /// # Errors
    /// If a tensor cannot be copied.
    pub fn of_model(model: &ModelFolder, kernels: Kernels) -> Result<Self> {
        let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.copy()?));
        let copies = model.tensors.iter().map(copy).collect::<Result<_>>()?;
        Self::new((&model.config.space, &model.config.arch), copies, kernels)
    }

    /// The weights by name, without statistics.
    pub fn weights(&self) -> &BTreeMap<String, Tensor> {
        &self.weights
    }

    /// Its layers.
    pub fn layers(&self) -> &[LayerSpec] {
        &self.layers
    }

    /// Zeros of the weights' names and shapes.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn zeros_like(&self) -> Result<BTreeMap<String, Tensor>> {
        zeros_like(&self.weights)
    }

    /// Adds the gradients of a batch and returns its loss.
    ///
    /// # Errors
    /// If the images do not fit.
    pub fn learn(&self, images: &Tensor, target: &Target, dropout: Option<Tensor>) -> Result<f32> {
        let sources = [&self.source(&self.weights), &self.source(&self.gradients)];
        learn(&self.layers, sources, images, target, dropout)
    }

    /// One step on every weight; the gradients are zero after it.
    ///
    /// # Errors
    /// If the optimizer is another network's.
    pub fn step(&self, optimizer: &Sgd, lr: f32) -> Result<()> {
        for (name, weight) in &self.weights {
            optimizer.move_weight(name, weight, &self.gradients[name], lr)?;
        }
        Ok(())
    }

    /// Sets the gradients back to zero.
    ///
    /// # Errors
    /// If a tensor cannot be written.
    pub fn clear(&self) -> Result<()> {
        self.gradients.values().try_for_each(|gradient| Ok(self.kernels.fill_zero(gradient)?))
    }

    /// The network without statistics, for passes that use the batch's own.
    ///
    /// # Errors
    /// Never: the weights were checked.
    pub fn network(&self) -> Result<Network> {
        Network::new(&self.layers, &self.source(&self.weights))
    }

    fn source(&self, tensors: &BTreeMap<String, Tensor>) -> Source<'static> {
        Source::new(MapSource::builder(tensors.clone()), self.kernels, self.epsilon)
    }
}

fn zeros_like(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let zeros = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), tensor.zeros_like()?));
    tensors.iter().map(zeros).collect()
}
