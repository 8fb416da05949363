//! 1x1 convolution without bias or batch norm, then the activation: on pooled features, or on maps.

use candle_core::{DType, Device, Tensor};
use kernels::Backend;
use space::{Activation, LayerSpec};

use super::super::conv::{Convolution, Pointwise};
use super::super::flow::Flow;
use super::super::folding::Product;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `act(W x)`.
pub(in super::super) struct FeatureMix {
    convolution: Pointwise,
    activation: Activation,
    backend: Backend,
}

impl FeatureMix {
    /// Reads `conv.weight`, `[O, I, 1, 1]`.
    pub fn new(activation: Activation, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let source = source.for_layer("linear");
        let convolution = Pointwise::new(spec.input.channels, spec.output.channels, &source.pp("conv"))?;
        Ok(Self { convolution, activation, backend: source.backend() })
    }
}

impl Layer for FeatureMix {
    /// `[C, N, H, W] -> [C', N, H, W]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let y = self.convolution.forward(only(inputs), pass)?;
        pass.save(&y);
        let y = self.backend.bias_activation(&y, None, self.activation)?;
        pass.see(&y, self.activation)?;
        Ok(y)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let y = tape.pop()?;
        let dy = self.backend.bias_activation_backward(&y, None, self.activation, &dy)?;
        Ok(InputGradients::One(self.convolution.backward(&dy, tape)?))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        self.convolution.flow(only(inputs))
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        let weight = self.convolution.weight();
        let shift = Tensor::zeros(weight.dim(0)?, DType::F32, &Device::Cpu)?;
        Ok(Box::new(Product::new(weight, shift, self.activation, backend)?))
    }
}

/// The memory of passes over the layer: the output before its activation is saved.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    Held {
        inner: output,
        keeps_input: true,
        forward: input + output,
        backward: 2 * (input + output),
        forgetting: input + 2 * output,
        ..Held::default()
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use crate::nn::testing::check;

    #[test]
    fn it_is_a_product_without_a_batch_norm() {
        check("mix 6-4 h_swish @1x1", |naive, x| naive.conv(&x[0], "conv", 1).activated(Activation::HSwish));
        check("mix 3-2 none @2x4", |naive, x| naive.conv(&x[0], "conv", 1));
    }
}
