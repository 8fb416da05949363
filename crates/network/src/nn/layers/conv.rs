//! Dense convolution on maps, batch norm, activation, and the input added to them where it is residual.

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{LayerSpec, Operator};

use super::super::conv::{ConvNorm, Dense, given};
use super::super::flow::Flow;
use super::super::folding::FoldedDense;
use super::super::footprint::{Held, patches};
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::{Error, Result};

/// `act(norm(W * x)) (+) x`.
pub(in super::super) struct Conv {
    convolution: ConvNorm<Dense>,
    residual: bool,
    backend: Backend,
}

impl Conv {
    /// Reads `conv.weight`, `[O, I, k, k]`, and `bn.*`, `[O]`, one level further down where it is residual.
    pub fn new(spec: &LayerSpec, source: &Source) -> Result<Self> {
        let Operator::Conv { kernel, stride, activation, residual } = spec.operator else {
            return Err(Error::invalid("layer", &spec.name, "a convolution", spec.key()));
        };
        let source = if residual { &source.pp("conv") } else { source };
        let channels = [spec.output.channels, spec.input.channels];
        let window = Window { kernel, stride };
        let convolution = Dense::new(channels, window, &source.pp("conv"))?;
        let convolution = ConvNorm::new(convolution, spec.output.channels, activation, source)?;
        Ok(Self { convolution, residual, backend: source.backend().for_layer("residual") })
    }
}

impl Layer for Conv {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let x = only(inputs);
        self.convolution.forward(x, self.residual.then_some(x), pass)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        if !self.residual {
            return Ok(InputGradients::One(self.convolution.backward(dy, tape)?));
        }
        let d = given(self.convolution.backward_keeping(&dy, tape)?)?;
        self.backend.add_assign(&d, &dy)?;
        Ok(InputGradients::One(Some(d)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        let y = self.convolution.flow(only(inputs))?;
        Ok(if self.residual { Flow::sum(&[&y, only(inputs)]) } else { y })
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        let convolution = FoldedDense::new(&self.convolution, backend)?;
        Ok(if self.residual { Box::new(Residual(convolution)) } else { Box::new(convolution) })
    }
}

struct Residual(FoldedDense);

impl FoldedLayer for Residual {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        let x = only(inputs);
        let y = self.0.maps(x, backend)?;
        backend.add_assign(&y, x)?;
        Ok(y)
    }
}

/// The memory of passes over a convolution; its patches are made whatever its kernel is.
pub(super) fn held(kernel: usize, residual: bool, spec: &LayerSpec) -> Held {
    let patches = patches(spec.input.channels, kernel, spec.output.plane());
    Held { patches, ..Held::conv_norm(spec, kernel, residual) }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use super::*;
    use crate::nn::testing::{check, source};

    #[test]
    fn it_is_a_convolution_a_batch_norm_and_an_activation() {
        check("conv k3 s2 3-4 relu @5x4", |naive, x| naive.conv_norm(&x[0], "", 2, Activation::Relu));
        check("conv k1 3-2 none @4x3", |naive, x| naive.conv_norm(&x[0], "", 1, Activation::None));
    }

    #[test]
    fn a_residual_one_adds_its_input_after_the_activation() {
        check("conv k3 3-3 h_swish skip @4x5", |naive, x| {
            naive.conv_norm(&x[0], "conv", 1, Activation::HSwish).plus(&x[0])
        });
    }

    #[test]
    fn another_operator_is_refused() {
        let spec: LayerSpec = "pool 4 @3x3".parse().expect("a key");
        let error = Conv::new(&spec, &source(&[])).err().expect("refused").to_string();
        assert!(error.contains("expected a convolution, got pool 4 @3x3"), "{error}");
    }
}
