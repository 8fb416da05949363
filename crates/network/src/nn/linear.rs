//! A product with bias and activation on features `[C, N]`.

use candle_core::Tensor;
use kernels::Backend;
use space::Activation;

use super::flow::Flow;
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
    /// Reads `weight`, `[O, I]`, and `bias`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(input: usize, output: usize, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input), "weight")?;
        let bias = source.get(output, "bias")?;
        Ok(Self { weight, bias, activation: Activation::None, backend: source.backend() })
    }

    /// Reads the weight of a 1x1 convolution, `[O, I, 1, 1]`, and `bias`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn pointwise(input: usize, output: usize, activation: Activation, source: &Source) -> Result<Self> {
        let weight = source.operand((output, input, 1, 1), "weight")?;
        let weight = weight.seen(|weight| weight.squeeze(3)?.squeeze(2))?;
        Ok(Self { weight, bias: source.get(output, "bias")?, activation, backend: source.backend() })
    }

    /// The flow of paths through it.
    ///
    /// # Errors
    /// If the weight cannot be read.
    pub fn flow(&self, x: &Flow) -> Result<Flow> {
        x.convolved(self.weight.value(), 1)
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
        let y = self.backend.bias_activation(&y, Some(self.bias.value()), self.activation)?;
        pass.see(&y, self.activation)?;
        Ok(y)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{source, tensor, values};

    #[test]
    fn outputs_and_gradients_are_those_of_a_product_with_bias() {
        for shape in [&[2, 2][..], &[2, 2, 1, 1]] {
            let zero = |shape: &[usize]| tensor(shape, &vec![0.0; shape.iter().product()]);
            let gradients = [("x.weight".to_string(), zero(shape)), ("x.bias".to_string(), zero(&[2]))];
            let gradients = std::collections::BTreeMap::from(gradients);
            let weight = tensor(shape, &[1.0, 2.0, 3.0, 4.0]);
            let source = source(&[("x.weight", weight), ("x.bias", tensor(&[2], &[0.5, -20.0]))]);
            let source = source.with_gradients(gradients.clone()).pp("x");
            let linear = match shape.len() {
                2 => Linear::new(2, 2, &source),
                _ => Linear::pointwise(2, 2, Activation::Relu, &source),
            };
            let linear = linear.expect("its weights");
            let mut tape = Tape::new();
            let x = tensor(&[2, 2], &[1.0, -1.0, 3.0, 5.0]);
            let y = linear.forward(&x, &mut Pass::Training(&mut tape)).expect("features");
            let dx = linear.backward(&tensor(&[2, 2], &[1.0; 4]), &mut tape).expect("a tape");
            // the second output is negative for both images: nothing passes a ReLU
            let (expected_y, expected_dx, expected_dw) = match shape.len() {
                2 => ([7.5, 9.5, -5.0, -3.0], [4.0, 4.0, 6.0, 6.0], [0.0, 8.0, 0.0, 8.0]),
                _ => ([7.5, 9.5, 0.0, 0.0], [1.0, 1.0, 2.0, 2.0], [0.0, 8.0, 0.0, 0.0]),
            };
            assert_eq!(values(&y), expected_y);
            assert_eq!(values(&dx), expected_dx);
            assert_eq!(values(&gradients["x.weight"]), expected_dw);
            assert_eq!(values(&gradients["x.bias"]), [2.0, if shape.len() == 2 { 2.0 } else { 0.0 }]);
        }
    }
}
