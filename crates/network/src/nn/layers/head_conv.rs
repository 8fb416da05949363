//! 1x1 convolution, batch norm, activation, before the pooling.

use candle_core::Tensor;
use kernels::Backend;
use space::{Activation, LayerSpec};

use super::super::conv::{ConvNorm, Pointwise};
use super::super::flow::Flow;
use super::super::folding::Product;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `act(norm(W x))`.
pub(in super::super) struct HeadConv(ConvNorm<Pointwise>);

impl HeadConv {
    /// Reads `conv.weight`, `[O, I, 1, 1]`, and `bn.*`, `[O]`.
    pub fn new(activation: Activation, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let input = spec.input.channels;
        let output = spec.output.channels;
        Ok(Self(ConvNorm::pointwise(input, output, activation, source)?))
    }
}

impl Layer for HeadConv {
    /// `[C, N, H, W] -> [C', N, H, W]`.
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
        Ok(Box::new(Product::pointwise(&self.0, backend)?))
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use crate::nn::testing::check;

    #[test]
    fn it_is_a_product_a_batch_norm_and_an_activation() {
        check("conv1x1 5-3 h_swish @3x4", |naive, x| naive.conv_norm(&x[0], "", 1, Activation::HSwish));
    }
}
