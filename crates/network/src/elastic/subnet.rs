//! The weights of one sub-network as views of the shared ones, and where their gradients go.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use candle_nn::VarBuilder;
use kernels::Kernels;
use space::{LayerSpec, SearchSpace};

use super::kernel_transform::{KernelTransform, depthwise_name};
use super::shared::{Gradients, SharedWeights};
use super::statistics::statistics_to_tensors;
use crate::error::Result;
use crate::nn::{MapSource, Source, Statistics, with_operands};

/// A sub-network's weights under the names of a static network: leading channels of the shared tensors, and
/// transformed depthwise kernels.
pub struct SubnetWeights<'a> {
    shared: &'a SharedWeights,
    layers: &'a [LayerSpec],
    transforms: BTreeMap<String, KernelTransform>,
    values: BTreeMap<String, Tensor>,
    kernels: Kernels,
    epsilon: f32,
}

/// The name in the supernet of a layer's weight.
fn shared_name(layer: &LayerSpec, name: &str) -> String {
    format!("{}{}", layer.shared_name(), &name[layer.name.len()..])
}

/// The leading `shape` of a tensor, as a view.
fn leading(tensor: &Tensor, shape: &[usize]) -> candle_core::Result<Tensor> {
    let mut view = tensor.clone();
    for (dimension, &length) in shape.iter().enumerate() {
        view = view.narrow(dimension, 0, length)?;
    }
    Ok(view)
}

impl<'a> SubnetWeights<'a> {
    /// The weights of the sub-network that `layers` is the lowering of.
    ///
    /// # Errors
    /// If the shared weights are another space's.
    pub fn new(
        space: &SearchSpace,
        shared: &'a SharedWeights,
        layers: &'a [LayerSpec],
        kernels: &Kernels,
    ) -> Result<Self> {
        let mut subnet = Self {
            shared,
            layers,
            transforms: BTreeMap::new(),
            values: BTreeMap::new(),
            kernels: kernels.clone(),
            epsilon: space.batch_norm_epsilon(),
        };
        for layer in layers {
            if let Some(transform) = KernelTransform::of(space, layer) {
                let name = format!("{}.weight", depthwise_name(&layer.name));
                subnet.values.insert(name.clone(), transform.forward(shared, kernels)?);
                subnet.transforms.insert(name, transform);
            }
        }
        subnet.take_views()?;
        Ok(subnet)
    }

    fn take_views(&mut self) -> Result<()> {
        for layer in self.layers {
            for weight in layer.weights() {
                if !self.transforms.contains_key(&weight.name) {
                    let tensor = self.shared.get(&shared_name(layer, &weight.name))?;
                    self.values.insert(weight.name, leading(tensor, &weight.shape)?);
                }
            }
        }
        Ok(())
    }

    /// A source that answers with compact copies of the weights and with the running statistics of every batch norm, for
    /// other kernels to compute with.
    ///
    /// # Errors
    /// If statistics are not `[2, C]`, or there is no room for the copies.
    pub fn calibrated_for(&self, statistics: &Statistics, kernels: &Kernels) -> Result<Source<'static>> {
        let mut tensors = statistics_to_tensors(statistics)?;
        for (name, weight) in &self.values {
            tensors.insert(name.clone(), weight.contiguous()?);
        }
        Ok(Source::new(MapSource::builder(tensors), kernels, self.epsilon))
    }

    /// The sub-network's layers.
    pub fn layers(&self) -> &'a [LayerSpec] {
        self.layers
    }

    /// The weights by name; transformed kernels are new tensors, everything else shares the supernet's memory.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.values
    }

    /// A source that answers with the weights; those that products read, as they read them.
    ///
    /// # Errors
    /// If there is no room for copies of them.
    pub fn values(&self) -> Result<Source<'static>> {
        let tensors = with_operands(self.values.clone(), self.layers, &self.kernels)?;
        Ok(self.source(MapSource::builder(tensors)))
    }

    /// A source that answers with the weights and with the running statistics of every batch norm.
    ///
    /// # Errors
    /// If statistics are not `[2, C]`.
    pub fn calibrated(&self, statistics: &Statistics) -> Result<Source<'static>> {
        let mut tensors = self.values.clone();
        tensors.extend(statistics_to_tensors(statistics)?);
        Ok(self.source(MapSource::builder(tensors)))
    }

    fn source(&self, builder: VarBuilder<'static>) -> Source<'static> {
        Source::new(builder, &self.kernels, self.epsilon)
    }

    /// Where backward adds: views of the shared gradients, and temporaries for transformed kernels.
    ///
    /// # Errors
    /// If the gradients are another space's.
    pub fn gradients<'g>(&'a self, gradients: &'g Gradients) -> Result<SubnetGradients<'g>>
    where
        'a: 'g,
    {
        let mut tensors = BTreeMap::new();
        for layer in self.layers {
            for weight in layer.weights() {
                let tensor = if self.transforms.contains_key(&weight.name) {
                    Tensor::zeros(weight.shape.as_slice(), DType::F32, &self.kernels.device())?
                } else {
                    leading(gradients.touch(&shared_name(layer, &weight.name))?, &weight.shape)?
                };
                tensors.insert(weight.name, tensor);
            }
        }
        Ok(SubnetGradients { subnet: self, gradients, tensors })
    }
}

/// The gradients of one sub-network's weights; [`SubnetGradients::finish`] must follow backward.
pub struct SubnetGradients<'a> {
    subnet: &'a SubnetWeights<'a>,
    gradients: &'a Gradients,
    tensors: BTreeMap<String, Tensor>,
}

impl SubnetGradients<'_> {
    /// A source that answers with the gradients.
    pub fn source(&self) -> Source<'static> {
        self.subnet.source(MapSource::builder(self.tensors.clone())).as_they_are()
    }

    /// Pulls the gradients of transformed kernels back to the shared kernels and the matrices.
    ///
    /// # Errors
    /// If a product fails.
    pub fn finish(self) -> Result<()> {
        let SubnetWeights { shared, transforms, kernels, .. } = self.subnet;
        for (name, transform) in transforms {
            transform.backward(&self.tensors[name], shared, self.gradients, kernels)?;
        }
        Ok(())
    }
}
