//! A static network: layers that read one another, run forward and backward.

use candle_core::Tensor;
use kernels::Backend;
use space::{FeatureMap, LayerSpec};

use super::flow::Flow;
use super::graph::Graph;
use super::layers::{self, Layer};
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// A network with weights, and with gradients if its source has them.
pub struct Network {
    layers: Vec<Box<dyn Layer>>,
    graph: Graph,
    backend: Backend,
}

impl Network {
    /// Builds the layers with weights that `source` gives by full name and shape.
    ///
    /// # Errors
    /// If a weight is missing or has another shape, or the layers do not fit one another.
    pub fn new(layers: &[LayerSpec], source: &Source) -> Result<Self> {
        let graph = Graph::new(layers)?;
        let layers = layers.iter().map(|layer| layers::layer(layer, source)).collect::<Result<_>>()?;
        Ok(Self { layers, graph, backend: source.backend().for_layer("pool") })
    }

    /// The layers, their graph and the backend.
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

    /// Runs the layers on channel-major maps; a single layer is measured with it.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C', N, H', W']` of the network's input and its output.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn forward_maps(&self, maps: Tensor, pass: &mut Pass) -> Result<Tensor> {
        self.graph.forward(maps, |index, inputs| self.layers[index].forward(inputs, pass))
    }

    /// Synaptic flow (Tanaka et al. 2020), as its natural logarithm: the sum over all weights of `w dR/dw`, where R is the sum of
    /// the logits of an image of ones by weights without signs, without batch norms and biases, activations and
    /// squeeze-and-excite left out.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn synaptic_flow(&self, image: FeatureMap) -> Result<f64> {
        Ok(self.flow(image)?.total().ln())
    }

    /// The flow of paths from an image of ones to the logits.
    pub(super) fn flow(&self, image: FeatureMap) -> Result<Flow> {
        self.graph.forward(Flow::ones(image), |index, inputs| self.layers[index].flow(inputs))
    }

    /// Adds the gradient of every weight to the tensors of the network's source.
    ///
    /// # Shapes
    /// `dlogits` is `[N, classes]`: the loss's gradient at the logits of the training pass that made `tape`.
    ///
    /// # Errors
    /// If the tape does not fit, or the network was built without gradients.
    pub fn backward(&self, dlogits: &Tensor, tape: Tape) -> Result<()> {
        self.backward_to_images(dlogits, tape)?;
        Ok(())
    }

    /// As [`Network::backward`]; returns the gradient of the images, if the tape was made for it ([`Tape::reaching_images`]).
    ///
    /// # Shapes
    /// `[N, classes] -> [N, C, H, W]`.
    ///
    /// # Errors
    /// As [`Network::backward`].
    pub fn backward_to_images(&self, dlogits: &Tensor, mut tape: Tape) -> Result<Option<Tensor>> {
        let dlogits = self.backend.activations(&dlogits.t()?)?.unsqueeze(2)?.unsqueeze(3)?; // [classes, N, 1, 1]
        let dmaps = self.backward_maps(dlogits, &mut tape)?; // [C, N, H, W]
        Ok(dmaps.map(|dmaps| self.backend.numbers(&dmaps.transpose(0, 1)?)).transpose()?)
    }

    /// As [`Network::backward`], from the gradient of the last layer's maps, which may be overwritten; returns the gradient of
    /// the network's input, `None` after a stem.
    ///
    /// # Errors
    /// As [`Network::backward`].
    pub fn backward_maps(&self, dy: Tensor, tape: &mut Tape) -> Result<Option<Tensor>> {
        self.graph.backward(dy, &self.backend, |index, dy| self.layers[index].backward(dy, tape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::MapSource;
    use crate::nn::testing::{EPSILON, chain, noise, weights, zeros_like};

    /// A network of these layers, with gradients of zeros if requested.
    fn network(keys: &[&str], with_gradients: bool) -> Network {
        let layers = chain(keys);
        let weights = weights(&layers);
        let gradients = zeros_like(&weights);
        let mut source = Source::new(MapSource::builder(weights), &Backend::detect(), EPSILON);
        if with_gradients {
            source = source.with_gradients(gradients);
        }
        Network::new(&layers, &source).expect("all weights")
    }

    const SMALL: [&str; 3] = ["stem k3 s2 3-4 relu @6x4", "pool 4 @3x2", "linear 4-5 @1x1"];

    #[test]
    fn images_become_one_row_of_scores_each() {
        let network = network(&SMALL, false);
        let images = noise("images", &[2, 3, 6, 4], 1.0, 0.0);
        let logits = network.forward(&images, Pass::Inference).expect("fitting shapes");
        assert_eq!(logits.dims(), [2, 5]);
        let second = images.narrow(0, 1, 1).expect("an image");
        let alone = network.forward(&second, Pass::Inference).expect("fitting shapes");
        let row = logits.get(1).and_then(|row| row.to_vec1::<f32>()).expect("scores");
        let alone = alone.get(0).and_then(|row| row.to_vec1::<f32>()).expect("scores");
        for (together, alone) in row.iter().zip(&alone) {
            assert!((together - alone).abs() < 1e-6, "{row:?} {alone:?}");
        }
    }

    #[test]
    fn the_gradient_of_the_images_is_that_of_finite_differences() {
        let network = network(&SMALL, true);
        let images = noise("images", &[2, 3, 6, 4], 1.0, 0.0);
        let weights = noise("weights", &[2, 5], 1.0, 0.0);
        let score = |images: &Tensor| {
            let logits = network.forward(images, Pass::BatchStatistics).expect("fitting shapes");
            let products = (logits * &weights).and_then(|products| products.flatten_all()?.to_vec1::<f32>());
            products.expect("numbers").into_iter().map(f64::from).sum::<f64>()
        };
        let mut tape = Tape::new().reaching_images();
        network.forward(&images, Pass::Training(&mut tape)).expect("fitting shapes");
        let gradient = network.backward_to_images(&weights, tape).expect("a tape").expect("it reaches them");
        assert_eq!(gradient.dims(), images.dims());
        let gradient = crate::nn::testing::values(&gradient);
        let original = crate::nn::testing::values(&images);
        let step = 1e-2;
        for at in (0..original.len()).step_by(7) {
            let moved = |by: f32| {
                let mut values = original.clone();
                values[at] += by;
                score(&crate::nn::testing::tensor(&[2, 3, 6, 4], &values))
            };
            let numeric = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            assert!((numeric - f64::from(gradient[at])).abs() < 2e-2, "{at}: {numeric} {}", gradient[at]);
        }
    }

    #[test]
    fn the_gradient_of_the_input_comes_from_layers_on_maps_alone() {
        for (keys, input, expected) in
            [(&SMALL[..], [3, 2, 6, 4], None), (&SMALL[1..], [4, 2, 3, 2], Some(vec![4, 2, 3, 2]))]
        {
            let network = network(keys, true);
            let mut tape = Tape::new();
            let maps = noise("maps", &input, 1.0, 0.0);
            let y = network.forward_maps(maps, &mut Pass::Training(&mut tape)).expect("fitting shapes");
            let dx = network.backward_maps(y, &mut tape).expect("a tape");
            assert_eq!(dx.map(|dx| dx.dims().to_vec()), expected);
        }
    }

    #[test]
    fn backward_needs_gradients_and_a_tape() {
        let images = noise("images", &[2, 3, 6, 4], 1.0, 0.0);
        let dlogits = noise("gradient", &[2, 5], 1.0, 0.0);
        let mut tape = Tape::new();
        network(&SMALL, false).forward(&images, Pass::Training(&mut tape)).expect("fitting shapes");
        for (network, tape, expected) in [
            (network(&SMALL, false), tape, "expected a network with gradients"),
            (network(&SMALL, true), Tape::new(), "the tape is empty"),
        ] {
            let error = network.backward(&dlogits, tape).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_missing_weight_is_named() {
        let layers = chain(&SMALL);
        let mut tensors = weights(&layers);
        tensors.remove("first_conv.bn.bias");
        let source = Source::new(MapSource::builder(tensors), &Backend::detect(), EPSILON);
        let error = Network::new(&layers, &source).err().expect("refused").to_string();
        assert!(error.contains("weight first_conv.bn.bias: expected"), "{error}");
    }
}
