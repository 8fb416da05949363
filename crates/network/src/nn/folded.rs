//! A network for inference alone: batch norms multiplied into the convolutions before them, activations computed as
//! products are written.
//!
//! Its output differs from the unfolded network's by rounding. Files hold unfolded weights; folding happens after
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
    /// The network of these layers with its running statistics folded into its weights, which `source` gives by full name
    /// and shape.
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

    /// Runs the layers on channel-major maps; a single layer is measured with it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{EPSILON, assert_close, noise, values, weights};
    use crate::nn::{MapSource, Pass};

    /// A block, a second path past it, and a classifier.
    fn layers() -> Vec<LayerSpec> {
        let keys: [(&str, &[Option<usize>]); 6] = [
            ("conv k3 s2 3-4 relu @6x6", &[None]),
            ("mbconv k3 s1 4-8-4 h_swish se2 skip @3x3", &[Some(0)]),
            ("conv k3 4-4 relu @3x3", &[Some(0)]),
            ("sum3 4 @3x3", &[Some(1), Some(2), Some(0)]),
            ("pool 4 @3x3", &[Some(3)]),
            ("linear 4-5 @1x1", &[Some(4)]),
        ];
        let layers =
            keys.map(|(key, inputs)| LayerSpec { inputs: inputs.to_vec(), ..key.parse().expect("a key") });
        LayerSpec::graph(layers.to_vec()).expect("they fit one another")
    }

    fn source(layers: &[LayerSpec], left_out: &str) -> Source<'static> {
        let mut tensors = weights(layers);
        tensors.retain(|name, _| name != left_out);
        Source::new(MapSource::builder(tensors), &Backend::detect(), EPSILON)
    }

    #[test]
    fn it_differs_from_the_network_by_rounding() {
        let layers = layers();
        let images = noise("images", &[2, 3, 6, 6], 1.0, 0.0);
        let network = Network::new(&layers, &source(&layers, "")).expect("all weights");
        let expected = network.forward(&images, Pass::Inference).expect("fitting shapes");
        assert_eq!(expected.dims(), [2, 5]);
        let expected: Vec<f64> = values(&expected).into_iter().map(f64::from).collect();
        for folded in [FoldedNetwork::new(&network), FoldedNetwork::from_source(&layers, source(&layers, ""))]
        {
            let got = folded.and_then(|folded| folded.forward(&images)).expect("running statistics");
            assert_close("scores", &values(&got), &expected, 1e-5);
        }
    }

    #[test]
    fn each_layer_is_reported_when_it_is_done() {
        let layers = layers();
        let images = noise("images", &[3, 1, 6, 6], 1.0, 0.0);
        for count in [layers.len(), 1, 0] {
            let layers = &layers[..count];
            let folded = FoldedNetwork::from_source(layers, source(layers, "")).expect("all weights");
            let mut done = 0;
            folded.forward_layers(images.clone(), &mut || done += 1).expect("fitting shapes");
            assert_eq!(done, count);
        }
    }

    #[test]
    fn without_running_statistics_nothing_is_folded() {
        let layers = layers();
        let norm = format!("{}.bn", layers[0].name);
        let source = source(&layers, &format!("{norm}.running_mean"));
        let error = FoldedNetwork::from_source(&layers, source).err().expect("uncalibrated").to_string();
        assert!(error.starts_with(&format!("{norm}: no running statistics")), "{error}");
    }
}
