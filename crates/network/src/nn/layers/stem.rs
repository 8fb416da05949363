//! The first layer: dense convolution on the image, batch norm, activation.

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{LayerSpec, Operator};

use super::super::conv::{ConvNorm, Dense};
use super::super::flow::Flow;
use super::super::folding::FoldedDense;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::{Error, Result};

/// A dense convolution on the image, whose gradient is not needed.
pub(in super::super) struct Stem(ConvNorm<Dense>);

impl Stem {
    /// Reads `conv.weight`, `[O, I, k, k]`, and `bn.*`, `[O]`.
    pub fn new(spec: &LayerSpec, source: &Source) -> Result<Self> {
        let Operator::Stem { kernel, stride, activation } = spec.operator else {
            return Err(Error::invalid("layer", &spec.name, "a stem", spec.key()));
        };
        let channels = [spec.output.channels, spec.input.channels];
        let window = Window { kernel, stride };
        let convolution = Dense::on_image(channels, window, &source.pp("conv"))?;
        Ok(Self(ConvNorm::new(convolution, spec.output.channels, activation, source)?))
    }
}

impl Layer for Stem {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        self.0.forward(only(inputs), None, pass)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        Ok(InputGradients::One(self.0.backward(dy, tape)?))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        self.0.flow(only(inputs))
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(FoldedDense::new(&self.0, backend)?))
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use super::*;
    use crate::nn::testing::{check, source};

    #[test]
    fn it_is_a_convolution_a_batch_norm_and_an_activation() {
        for (key, stride) in [("stem k3 s2 3-4 relu @5x7", 2), ("stem k5 s1 1-2 h_swish @4x4", 1)] {
            let activation = if stride == 2 { Activation::Relu } else { Activation::HSwish };
            check(key, |naive, x| naive.conv_norm(&x[0], "", stride, activation));
        }
    }

    #[test]
    fn another_operator_is_refused() {
        let spec: LayerSpec = "pool 4 @3x3".parse().expect("a key");
        let error = Stem::new(&spec, &source(&[])).err().expect("refused").to_string();
        assert!(error.contains("expected a stem, got pool 4 @3x3"), "{error}");
    }
}
