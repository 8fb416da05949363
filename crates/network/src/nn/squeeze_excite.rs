//! Squeeze-and-excite (Hu et al. 2018) with a hard sigmoid, as MobileNetV3 has it.

use candle_core::Tensor;
use kernels::Backend;
use space::Activation;

use super::chain::Excited;
use super::linear::Linear;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// Scales each channel by `h_sigmoid(expand(relu(reduce(mean(x)))))`.
pub struct SqueezeExcite {
    reduce: Linear,
    expand: Linear,
    backend: Backend,
}

impl SqueezeExcite {
    /// Asks for `fc.reduce.*` and `fc.expand.*`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(channels: usize, squeeze: usize, source: &Source) -> Result<Self> {
        let source = source.pp("fc").for_layer("squeeze-excite");
        Ok(Self {
            reduce: Linear::pointwise(channels, squeeze, Activation::Relu, &source.pp("reduce"))?,
            expand: Linear::pointwise(squeeze, channels, Activation::HSigmoid, &source.pp("expand"))?,
            backend: source.backend().for_layer("squeeze-excite"),
        })
    }

    /// The two linear layers.
    pub(super) fn parts(&self) -> [&Linear; 2] {
        [&self.reduce, &self.expand]
    }

    /// `x` scaled by factors that come of the mean of each of its maps, `[C, N]`.
    ///
    /// # Shapes
    /// `[C, N, H, W]` in and out; the input may be written over where the pass keeps nothing.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: Tensor, means: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let hidden = self.reduce.forward(means, pass)?; // [squeeze, N]
        let factor = self.expand.forward(&hidden, pass)?; // [C, N]
        if pass.forgets() {
            self.backend.scale_in_place(&x, &factor)?;
            return Ok(x);
        }
        pass.save(&x);
        pass.save(&factor);
        Ok(self.backend.scale(&x, &factor)?)
    }

    /// Adds the weights' gradients; returns what the gradient of the input is made of.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape) -> Result<Excited> {
        let factor = tape.pop()?;
        let x = tape.pop()?;
        let dfactor = self.backend.scale_backward_factor(&x, dy)?; // [C, N]
        let dhidden = self.expand.backward(&dfactor, tape)?; // [squeeze, N]
        let dmean = self.reduce.backward(&dhidden, tape)?; // [C, N]
        Ok(Excited { factor, dmean })
    }
}
