//! A product with bias and activation on features `[C, N]`.

use candle_core::Tensor;
use kernels::Backend;
use space::Activation;

use super::parameter::Parameter;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// `act(W x + b)` for each image: `[I, N] -> [O, N]`.
pub struct Linear {
    weight: Parameter, // [O, I]
    bias: Parameter,   // [O]
    activation: Activation,
    backend: Backend,
}

impl Linear {
    /// Asks for `weight`, `[O, I]`, and `bias`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(input: usize, output: usize, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input), "weight")?;
        let bias = source.get(output, "bias")?;
        Ok(Self { weight, bias, activation: Activation::None, backend: source.backend() })
    }

    /// Asks for the weight as a 1x1 convolution's, `[O, I, 1, 1]`, and `bias`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn pointwise(input: usize, output: usize, activation: Activation, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input, 1, 1), "weight")?;
        let weight = weight.seen(|weight| weight.squeeze(3)?.squeeze(2))?;
        Ok(Self { weight, bias: source.get(output, "bias")?, activation, backend: source.backend() })
    }

    /// Weight, bias and activation.
    pub(super) fn parts(&self) -> (&Tensor, &Tensor, Activation) {
        (self.weight.value(), self.bias.value(), self.activation)
    }

    /// `[I, N] -> [O, N]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let y = self.backend.product(self.weight.operand(), x)?; // [O, N]
        pass.save(x);
        pass.save(&y);
        Ok(self.backend.bias_activation(&y, Some(self.bias.value()), self.activation)?)
    }

    /// Adds the weights' gradients; returns the input's, `[I, N]`.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let y = tape.pop()?;
        let x = tape.pop()?;
        let backend = &self.backend;
        let dy = backend.bias_activation_backward(&y, Some(self.bias.value()), self.activation, dy)?;
        backend.add_row_sums(self.bias.gradient()?, &dy)?;
        backend.add_product(self.weight.gradient()?, &dy, &x.t()?)?;
        Ok(backend.product(&self.weight.operand().t()?, &dy)?)
    }
}
