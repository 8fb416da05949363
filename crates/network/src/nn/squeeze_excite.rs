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
    /// Reads `fc.reduce.*` and `fc.expand.*`.
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

    /// `x` scaled by factors computed from the means of its maps, `[C, N]`.
    ///
    /// # Shapes
    /// `[C, N, H, W]` in and out; the input may be overwritten where the pass saves nothing.
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

    /// Adds the weights' gradients; returns the parts of the input's gradient.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_close, source, tensor, values};

    /// Two channels, squeezed to one: reduce adds them, expand gives 1 and -1 times the sum.
    fn layer() -> SqueezeExcite {
        let source = source(&[
            ("fc.reduce.weight", tensor(&[1, 2, 1, 1], &[1.0, 1.0])),
            ("fc.reduce.bias", tensor(&[1], &[0.0])),
            ("fc.expand.weight", tensor(&[2, 1, 1, 1], &[1.0, -1.0])),
            ("fc.expand.bias", tensor(&[2], &[0.0, 0.0])),
        ]);
        SqueezeExcite::new(2, 1, &source).expect("its weights")
    }

    #[test]
    fn maps_are_scaled_by_factors_of_their_means() {
        // means 0.5 and 1 of the first image: hidden 1.5, factors 4.5/6 and 1.5/6; of the second -3 and 1: relu gives 0, 3/6 each
        let x = tensor(&[2, 2, 1, 2], &[0.0, 1.0, -4.0, -2.0, 2.0, 0.0, 1.0, 1.0]);
        let means = tensor(&[2, 2], &[0.5, -3.0, 1.0, 1.0]);
        let expected = [0.0, 0.75, -2.0, -1.0, 0.5, 0.0, 0.5, 0.5];
        let mut tape = Tape::new();
        let y = layer().forward(x.clone(), &means, &mut Pass::Training(&mut tape)).expect("maps");
        assert_close("scaled", &values(&y), &expected, 1e-6);
        assert_eq!(values(&x)[1], 1.0, "training does not overwrite the input");
        let kept = tape.saved().last().expect("the factors");
        assert_close("factors", &values(kept), &[0.75, 0.5, 0.25, 0.5], 1e-6);
        let y = layer().forward(x.clone(), &means, &mut Pass::Inference).expect("maps");
        assert_close("scaled", &values(&y), &expected, 1e-6);
        assert_eq!(values(&x), values(&y), "inference overwrites it");
    }
}
