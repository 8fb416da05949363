//! Layers on pooled features `[C, N]`: products with bias and activation, the classifier among them.

use candle_core::Tensor;
use kernels::Kernels;
use space::Activation;

use super::conv::{Convolution, Pointwise};
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// `act(W x + b)` for each image: `[I, N] -> [O, N]`.
pub struct Linear {
    weight: Tensor, // [O, I]
    bias: Tensor,   // [O]
    activation: Activation,
    kernels: Kernels,
}

impl Linear {
    /// Asks for `weight`, `[O, I]`, and `bias`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(input: usize, output: usize, source: &Source) -> Result<Self> {
        let (weight, bias) = (source.operand((output, input), "weight")?, source.get(output, "bias")?);
        Ok(Self { weight, bias, activation: Activation::None, kernels: source.kernels() })
    }

    /// Asks for the weight as a 1x1 convolution's, `[O, I, 1, 1]`, and `bias`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn pointwise(input: usize, output: usize, activation: Activation, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input, 1, 1), "weight")?.squeeze(3)?.squeeze(2)?;
        Ok(Self { weight, bias: source.get(output, "bias")?, activation, kernels: source.kernels() })
    }

    /// Weight, bias and activation.
    pub(super) fn parts(&self) -> (&Tensor, &Tensor, Activation) {
        (&self.weight, &self.bias, self.activation)
    }

    /// `[I, N] -> [O, N]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let y = self.kernels.product(&self.weight, x)?; // [O, N]
        pass.save(x);
        pass.save(&y);
        Ok(self.kernels.bias_activation(&y, Some(&self.bias), self.activation)?)
    }

    /// Adds to `gradient`; returns the input's gradient `[I, N]`.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Tensor> {
        let (y, x) = (tape.pop()?, tape.pop()?);
        let kernels = &self.kernels;
        let dy = kernels.bias_activation_backward(&y, Some(&self.bias), self.activation, dy)?;
        kernels.add_row_sums(&gradient.bias, &dy)?;
        kernels.add_product(&gradient.weight, &dy, &x.t()?)?;
        Ok(kernels.product(&self.weight.t()?, &dy)?)
    }
}

/// 1x1 convolution on pooled features without bias or batch norm, then the activation.
pub struct FeatureMix {
    convolution: Pointwise,
    activation: Activation,
    kernels: Kernels,
}

impl FeatureMix {
    /// Asks for `conv.weight`, `[O, I, 1, 1]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new(input: usize, output: usize, activation: Activation, source: &Source) -> Result<Self> {
        let convolution = Pointwise::new(input, output, &source.pp("conv"))?;
        Ok(Self { convolution, activation, kernels: source.kernels() })
    }

    /// The convolution and the activation.
    pub(super) fn parts(&self) -> (&Pointwise, Activation) {
        (&self.convolution, self.activation)
    }

    /// `[I, N, 1, 1] -> [O, N, 1, 1]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let y = self.convolution.forward(x, pass)?;
        pass.save(&y);
        Ok(self.kernels.bias_activation(&y, None, self.activation)?)
    }

    /// Adds to `gradient`; returns the input's gradient.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Option<Tensor>> {
        let y = tape.pop()?;
        let dy = self.kernels.bias_activation_backward(&y, None, self.activation, dy)?;
        self.convolution.backward(&dy, tape, &gradient.convolution)
    }
}
