//! The first layer: dense convolution on the image, batch norm, activation.

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{LayerSpec, Operator};

use super::super::conv::{ConvNorm, Dense};
use super::super::folding::FoldedDense;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::{Error, Result};

/// A dense convolution on the image, whose gradient nobody asks for.
pub(in super::super) struct Stem(ConvNorm<Dense>);

impl Stem {
    /// Asks for `conv.weight`, `[O, I, k, k]`, and `bn.*`, `[O]`.
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

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(FoldedDense::new(&self.0, backend)?))
    }
}
