//! The depthwise-separable block (Howard et al. 2017).

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::LayerSpec;

use super::super::chain::{ChainLayer, Depthwise};
use super::super::conv::{ConvNorm, Pointwise, given};
use super::super::flow::Flow;
use super::super::folding::{FoldedDepthwise, Product};
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `pointwise(depthwise(x))`, each with its batch norm and the activation.
pub(in super::super) struct Separable {
    depthwise: ChainLayer,
    pointwise: ConvNorm<Pointwise>,
}

impl Separable {
    /// Reads `depthwise.*` and `pointwise.*`: `conv.weight` and `bn.*` each.
    pub fn new(block: &space::Separable, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let &space::Separable { kernel, stride, activation } = block;
        let input = spec.input.channels;
        let output = spec.output.channels;
        let window = Window { kernel, stride };
        let depthwise = Depthwise { channels: input, window, activation, with_means: false };
        Ok(Self {
            depthwise: ChainLayer::new(&depthwise, None, &source.pp("depthwise"))?,
            pointwise: ConvNorm::pointwise(input, output, activation, &source.pp("pointwise"))?,
        })
    }
}

impl Layer for Separable {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let (inner, _) = self.depthwise.forward(only(inputs), pass)?; // [C, N, H/s, W/s]
        self.pointwise.forward(&inner, None, pass) // [C', N, H/s, W/s]
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let d = given(self.pointwise.backward(dy, tape)?)?;
        Ok(InputGradients::One(Some(self.depthwise.backward(&d, None, tape)?)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        self.pointwise.flow(&self.depthwise.flow(only(inputs))?)
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded {
            depthwise: FoldedDepthwise::new(&self.depthwise, backend)?,
            pointwise: Product::pointwise(&self.pointwise, backend)?,
        }))
    }
}

/// A block for inference alone.
struct Folded {
    depthwise: FoldedDepthwise,
    pointwise: Product,
}

impl FoldedLayer for Folded {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        self.pointwise.maps(&self.depthwise.maps(only(inputs), backend)?, backend)
    }
}

/// The memory of passes over a block: the depthwise convolution's output is saved before its batch norm and after its
/// activation, the 1x1 convolution's output before its batch norm.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    let between = spec.input.channels * spec.output.plane();
    Held {
        inner: 2 * between + output,
        keeps_input: true,
        statistics: 2 * (spec.input.channels + spec.output.channels),
        forward: output,
        // backward through the 1x1 convolution first, which frees its input, then through the depthwise one
        backward: (input + 2 * between + output + output.max(between)).max(2 * input + 2 * between),
        forgetting: between + output,
        patches: 0,
        scratch: spec.input.plane() + spec.output.plane(),
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use crate::nn::testing::check;

    #[test]
    fn it_is_a_depthwise_and_a_pointwise_convolution() {
        for (key, stride) in [("sepconv k3 s1 3-4 relu @4x5", 1), ("sepconv k5 s2 3-2 relu @5x4", 2)] {
            check(key, |naive, x| {
                let inner = naive.conv_norm(&x[0], "depthwise", stride, Activation::Relu);
                naive.conv_norm(&inner, "pointwise", 1, Activation::Relu)
            });
        }
    }
}
