//! A layer's weight: its values, its operand, and the tensor that its gradient is added to.

use candle_core::{Result, Tensor, bail};

/// One weight of a layer.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    value: Tensor,
    operand: Option<Tensor>,
    gradient: Option<Tensor>,
}

impl Parameter {
    /// A weight without a gradient that is its own operand.
    pub(super) fn new(value: Tensor) -> Self {
        Self { value, operand: None, gradient: None }
    }

    /// The weight with a copy in the number type of activations as its operand.
    pub(super) fn with_operand(self, operand: Option<Tensor>) -> Self {
        Self { operand, ..self }
    }

    /// The weight whose gradient is added to this tensor.
    pub(super) fn with_gradient(self, gradient: Option<Tensor>) -> Self {
        Self { gradient, ..self }
    }

    /// The values, f32.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The operand of matrix products: the values, or a copy of them in the number type of activations.
    pub fn operand(&self) -> &Tensor {
        self.operand.as_ref().unwrap_or(&self.value)
    }

    /// The tensor that its gradient is added to.
    ///
    /// # Errors
    /// If the network was built without gradients.
    pub fn gradient(&self) -> Result<&Tensor> {
        there(self.gradient.as_ref())
    }

    /// The gradient, if the network was built with gradients.
    pub(super) fn find_gradient(&self) -> Option<&Tensor> {
        self.gradient.as_ref()
    }

    /// The weight in another shape: its values, its operand and its gradient alike.
    pub(super) fn seen(self, change: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            value: change(&self.value)?,
            operand: self.operand.as_ref().map(&change).transpose()?,
            gradient: self.gradient.as_ref().map(&change).transpose()?,
        })
    }
}

/// A gradient that backward needs.
pub(super) fn there<T>(gradient: Option<&T>) -> Result<&T> {
    match gradient {
        Some(gradient) => Ok(gradient),
        None => bail!("backward: expected a network with gradients, got one that was built without"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{tensor, values};

    #[test]
    fn values_are_the_operand_where_there_is_no_other() {
        let weight = Parameter::new(tensor(&[2], &[1.0, 2.0]));
        assert_eq!(values(weight.operand()), [1.0, 2.0]);
        let weight = weight.with_operand(Some(tensor(&[2], &[3.0, 4.0])));
        assert_eq!((values(weight.value()), values(weight.operand())), (vec![1.0, 2.0], vec![3.0, 4.0]));
    }

    #[test]
    fn another_shape_is_seen_of_all_its_parts() {
        let part = |from: f32| tensor(&[1, 2], &[from, from + 1.0]);
        let weight = Parameter::new(part(1.0)).with_operand(Some(part(3.0))).with_gradient(Some(part(5.0)));
        let weight = weight.seen(|weight| weight.squeeze(0)).expect("two values");
        for seen in [weight.value(), weight.operand(), weight.gradient().expect("there")] {
            assert_eq!(seen.dims(), [2]);
        }
        assert_eq!(values(weight.find_gradient().expect("there")), [5.0, 6.0]);
    }

    #[test]
    fn a_missing_gradient_is_an_error() {
        let error = Parameter::new(tensor(&[1], &[1.0])).gradient().expect_err("none").to_string();
        assert!(error.contains("backward: expected a network with gradients"), "{error}");
    }
}
