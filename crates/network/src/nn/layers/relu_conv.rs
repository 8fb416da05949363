//! ReLU, dense convolution on maps, batch norm.

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{Activation, LayerSpec};

use super::super::conv::{ConvNorm, Dense, Pointwise, given};
use super::super::flow::Flow;
use super::super::folding::{FoldedDense, Product};
use super::super::footprint::{Held, patches};
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `norm(W * relu(x))`.
pub(in super::super) struct ReluConv {
    convolution: Convolved,
    backend: Backend,
}

/// The convolution by its kernel: a product with the maps themselves where it is 1 and moves by 1.
enum Convolved {
    Dense(ConvNorm<Dense>),
    Pointwise(ConvNorm<Pointwise>),
}

/// Whether the convolution is a product with the maps themselves.
fn is_pointwise(window: Window) -> bool {
    window.kernel == 1 && window.stride == 1
}

impl ReluConv {
    /// Reads `conv.weight`, `[O, I, k, k]`, and `bn.*`, `[O]`.
    pub fn new(window: Window, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let input = spec.input.channels;
        let output = spec.output.channels;
        let convolution = if is_pointwise(window) {
            Convolved::Pointwise(ConvNorm::pointwise(input, output, Activation::None, source)?)
        } else {
            let convolution = Dense::new([output, input], window, &source.pp("conv"))?;
            Convolved::Dense(ConvNorm::new(convolution, output, Activation::None, source)?)
        };
        Ok(Self { convolution, backend: source.backend().for_layer("residual") })
    }
}

impl Layer for ReluConv {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let rectified = self.backend.bias_activation(only(inputs), None, Activation::Relu)?;
        pass.see(&rectified, Activation::Relu)?;
        // the convolution saves the same tensor: it stands for the input, whose sign decides the slope
        pass.save(&rectified);
        match &self.convolution {
            Convolved::Dense(convolution) => convolution.forward(&rectified, None, pass),
            Convolved::Pointwise(convolution) => convolution.forward(&rectified, None, pass),
        }
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let d = given(match &self.convolution {
            Convolved::Dense(convolution) => convolution.backward(dy, tape)?,
            Convolved::Pointwise(convolution) => convolution.backward(dy, tape)?,
        })?;
        let dx = self.backend.bias_activation_backward(&tape.pop()?, None, Activation::Relu, &d)?;
        Ok(InputGradients::One(Some(dx)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        match &self.convolution {
            Convolved::Dense(convolution) => convolution.flow(only(inputs)),
            Convolved::Pointwise(convolution) => convolution.flow(only(inputs)),
        }
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        let convolution: Box<dyn FoldedLayer> = match &self.convolution {
            Convolved::Dense(convolution) => Box::new(FoldedDense::new(convolution, backend)?),
            Convolved::Pointwise(convolution) => Box::new(Product::pointwise(convolution, backend)?),
        };
        Ok(Box::new(Folded(convolution)))
    }
}

struct Folded(Box<dyn FoldedLayer>);

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        let rectified = backend.bias_activation(only(inputs), None, Activation::Relu)?;
        self.0.forward(&[&rectified], backend)
    }
}

/// The memory of passes over the layer: of its input, only the rectified one is saved.
pub(super) fn held(window: Window, spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    let patches = patches(spec.input.channels, window.kernel, spec.output.plane());
    Held {
        inner: input + output,
        statistics: 2 * spec.output.channels,
        forward: output,
        // the batch norm's and the convolution's, then the ReLU's
        backward: (input + output + output.max(input)).max(3 * input),
        forgetting: input + output,
        patches: if is_pointwise(window) { 0 } else { patches },
        ..Held::default()
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use crate::nn::testing::check;

    #[test]
    fn it_is_a_relu_a_convolution_and_a_batch_norm() {
        for (key, stride) in [
            ("reluconv k3 3-4 @5x4", 1),
            ("reluconv k3 s2 2-3 @5x4", 2),
            ("reluconv k1 4-2 @3x4", 1),
            ("reluconv k1 s2 3-2 @3x4", 2),
        ] {
            check(key, |naive, x| {
                naive.conv_norm(&x[0].activated(Activation::Relu), "", stride, Activation::None)
            });
        }
    }
}
