//! A static network: layers that read one another, run forward, and in reverse.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::graph::Graph;
use super::layers::{self, Layer};
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// A network with weights and, from a source that has them, where their gradients are added.
pub struct Network {
    layers: Vec<Box<dyn Layer>>,
    graph: Graph,
    backend: Backend,
}

impl Network {
    /// Builds the layers; `source` is asked for each weight by its full name and shape.
    ///
    /// # Errors
    /// If a weight is missing or has another shape, or the layers do not fit one another.
    pub fn new(layers: &[LayerSpec], source: &Source) -> Result<Self> {
        let graph = Graph::new(layers)?;
        let layers = layers.iter().map(|layer| layers::layer(layer, source)).collect::<Result<_>>()?;
        Ok(Self { layers, graph, backend: source.backend().for_layer("pool") })
    }

    /// Its layers, which of them read which, and what computes.
    pub(super) fn parts(&self) -> (&[Box<dyn Layer>], &Graph, &Backend) {
        (&self.layers, &self.graph, &self.backend)
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend.clone()
    }

    /// Class scores of images.
    ///
    /// # Shapes
    /// `[N, C, H, W] -> [N, classes]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, images: &Tensor, mut pass: Pass) -> Result<Tensor> {
        let x = self.backend.activations(&images.transpose(0, 1)?)?; // [C, N, H, W]
        let logits = self.forward_maps(x, &mut pass)?; // [classes, N, 1, 1]
        Ok(self.backend.numbers(&logits.flatten_from(1)?.t()?)?) // [N, classes]
    }

    /// Runs the layers on channel-major maps: what a layer by itself is measured with.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C', N, H', W']` of the network's input and its output.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn forward_maps(&self, maps: Tensor, pass: &mut Pass) -> Result<Tensor> {
        self.graph.forward(maps, |index, inputs| self.layers[index].forward(inputs, pass))
    }

    /// Adds the gradients of every weight where the network's source has them.
    ///
    /// # Shapes
    /// `dlogits` is `[N, classes]`: the loss's gradient at the logits of the training pass that made `tape`.
    ///
    /// # Errors
    /// If the tape does not fit, or the network was built without gradients.
    pub fn backward(&self, dlogits: &Tensor, mut tape: Tape) -> Result<()> {
        let dlogits = self.backend.activations(&dlogits.t()?)?.unsqueeze(2)?.unsqueeze(3)?; // [classes, N, 1, 1]
        self.backward_maps(dlogits, &mut tape)?;
        Ok(())
    }

    /// As [`Network::backward`], from the gradient of the last layer's maps, which may be written over; returns that of the
    /// network's input, which a stem does not give.
    ///
    /// # Errors
    /// As [`Network::backward`].
    pub fn backward_maps(&self, dy: Tensor, tape: &mut Tape) -> Result<Option<Tensor>> {
        self.graph.backward(dy, &self.backend, |index, dy| self.layers[index].backward(dy, tape))
    }
}
