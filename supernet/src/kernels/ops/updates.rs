//! What writes into tensors that live on: sums, zeros, the optimizer's step.

use std::cell::RefCell;

use candle_core::{Result, Tensor};

use super::{Kernels, Op, run, same_shape};
use crate::kernels::cpu::sgd::SgdStep;
use crate::kernels::tensors::update;

/// One step of stochastic gradient descent with Nesterov's momentum, as PyTorch takes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NesterovStep {
    /// Learning rate.
    pub lr: f32,
    /// Momentum.
    pub momentum: f32,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
}

impl Kernels {
    /// `destination += x`, both contiguous and of one shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_assign(self, destination: &Tensor, x: &Tensor) -> Result<()> {
        same_shape("add_assign", destination, x)?;
        self.update(Op::new("add assign"), destination, [x], |mut destination, views| {
            run!(self, planes::add_assign(destination.contiguous()?, views[0].contiguous()?));
            Ok(())
        })
    }

    /// `destination += x` where `destination` is any narrowed view of the same shape: for small weights.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_to_view(self, destination: &Tensor, x: &Tensor) -> Result<()> {
        same_shape("add_to_view", destination, x)?;
        self.update(Op::new("add to view"), destination, [x], |destination, views| {
            let (dims, strides) = (destination.layout.dims(), destination.layout.stride());
            for (index, value) in views[0].contiguous()?.iter().enumerate() {
                destination.values[place(index, dims, strides)] += value;
            }
            Ok(())
        })
    }

    /// Sets every value of a contiguous tensor to zero.
    ///
    /// # Errors
    /// If it is not contiguous.
    pub fn fill_zero(self, destination: &Tensor) -> Result<()> {
        self.update(Op::new("fill zero"), destination, [], |mut destination, _| {
            destination.contiguous()?.fill(0.0);
            Ok(())
        })
    }

    /// One step on a parameter and its velocity, in place; the gradient is 0 after it.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn nesterov(
        self,
        parameter: &Tensor,
        gradient: &Tensor,
        velocity: &Tensor,
        step: NesterovStep,
    ) -> Result<()> {
        same_shape("nesterov", parameter, gradient)?;
        same_shape("nesterov", parameter, velocity)?;
        let NesterovStep { lr, momentum, weight_decay } = step;
        let step = SgdStep { lr, momentum, weight_decay };
        self.record(Op::new("nesterov"), 6 * parameter.elem_count(), || {
            update("nesterov", velocity, [], |mut velocity, _| {
                let velocity = RefCell::new(velocity.contiguous()?);
                update("nesterov", gradient, [], |mut gradient, _| {
                    let gradient = RefCell::new(gradient.contiguous()?);
                    update("nesterov", parameter, [], |mut parameter, _| {
                        let (mut velocity, mut gradient) = (velocity.borrow_mut(), gradient.borrow_mut());
                        run!(
                            self,
                            sgd::nesterov(parameter.contiguous()?, &mut gradient, &mut velocity, step)
                        );
                        Ok(())
                    })
                })
            })
        })
    }
}

/// Where the element of this row-major index lies in a strided tensor.
fn place(mut index: usize, dims: &[usize], strides: &[usize]) -> usize {
    let mut place = 0;
    for (&length, &stride) in dims.iter().zip(strides).rev() {
        place += index % length * stride;
        index /= length;
    }
    place
}
