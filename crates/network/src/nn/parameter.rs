//! A weight as a layer holds it: its values, its operand, and where its gradient is added.

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

    /// Its values, f32.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// What matrix products read: the values, or a copy of them in the number type of activations.
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

    /// The weight seen in another shape: its values, its operand and its gradient alike.
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
