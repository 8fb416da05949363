//! A network for inference alone: batch norms multiplied into the convolutions before them, activations computed as
//! products are written.
//!
//! What it computes differs from the unfolded network by rounding. Files hold unfolded weights; folding is done after
//! loading.
//!
//! So evaluation, calibration, and the comparison of bits in `extract verify` use the unfolded network; `predict` and the latency
//! engine use this one.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::graph::Graph;
use super::layers::FoldedLayer;
use super::network::Network;
use super::source::Source;
use crate::error::Result;

/// A network with its batch norms folded into its weights.
pub struct FoldedNetwork {
    layers: Vec<Box<dyn FoldedLayer>>,
    graph: Graph,
    backend: Backend,
}

impl FoldedNetwork {
    /// The network of these layers with its running statistics folded into its weights; `source` is asked for each by its
    /// full name and shape.
    ///
    /// # Errors
    /// If a weight is missing or has another shape, or [`crate::Error::Uncalibrated`] where a batch norm has no statistics.
    pub fn from_source(layers: &[LayerSpec], source: Source) -> Result<Self> {
        Self::new(&Network::new(layers, &source.without_operands())?)
    }

    /// Folds the running statistics of a network's batch norms into its weights.
    ///
    /// # Errors
    /// [`crate::Error::Uncalibrated`] where a batch norm has none.
    pub fn new(network: &Network) -> Result<Self> {
        let (layers, graph, backend) = network.parts();
        let layers = layers.iter().map(|layer| layer.fold(backend)).collect::<Result<_>>()?;
        Ok(Self { layers, graph: graph.clone(), backend: backend.clone() })
    }

    /// Class scores of images.
    ///
    /// # Shapes
    /// `[N, C, H, W] -> [N, classes]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let x = self.backend.activations(&images.transpose(0, 1)?)?; // [C, N, H, W]
        let logits = self.forward_maps(x)?; // [classes, N, 1, 1]
        Ok(self.backend.numbers(&logits.flatten_from(1)?.t()?)?) // [N, classes]
    }

    /// Runs the layers on channel-major maps: what a layer by itself is measured with.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C', N, H', W']` of the network's input and its output.
    ///
    /// # Errors
    /// As [`FoldedNetwork::forward`].
    pub fn forward_maps(&self, maps: Tensor) -> Result<Tensor> {
        self.forward_layers(maps, &mut || ())
    }

    /// As [`FoldedNetwork::forward_maps`]; calls `done` after each layer, so that layers can be timed in place.
    ///
    /// # Errors
    /// As [`FoldedNetwork::forward`].
    pub fn forward_layers(&self, maps: Tensor, done: &mut dyn FnMut()) -> Result<Tensor> {
        let output = self.graph.forward(maps, |index, inputs| {
            // what a layer was the last to read is dropped before its time is over
            if index > 0 {
                done();
            }
            self.layers[index].forward(inputs, &self.backend)
        })?;
        if !self.layers.is_empty() {
            done();
        }
        Ok(output)
    }
}
