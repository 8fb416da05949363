//! Operations that write into long-lived tensors: sums, zeros, the optimizer's step; and copies.

use std::cell::RefCell;

use candle_core::{Result, Tensor, bail};

use super::{Backend, Op, on_gpu, run, same_shape};
use super::{Implementation, cuda};
use crate::cpu::updates::{AdamWConstants, AdamWStep, SgdStep};
use crate::tensors::update;

/// A parameter of Nesterov's step, its gradient and its velocity: contiguous tensors of one shape.
#[derive(Clone, Copy, Debug)]
pub struct NesterovParameter<'a> {
    /// The parameter.
    pub parameter: &'a Tensor,
    /// The parameter's gradient, set to zero by the step.
    pub gradient: &'a Tensor,
    /// The parameter's velocity.
    pub velocity: &'a Tensor,
    /// Weight decay, added to the gradient.
    pub weight_decay: f32,
}

/// A parameter of AdamW's step, its gradient and its moments: contiguous tensors of one shape.
#[derive(Clone, Copy, Debug)]
pub struct AdamWParameter<'a> {
    /// The parameter.
    pub parameter: &'a Tensor,
    /// The parameter's gradient, set to zero by the step.
    pub gradient: &'a Tensor,
    /// The first and the second moment.
    pub moments: [&'a Tensor; 2],
    /// Weight decay, subtracted from the parameter.
    pub weight_decay: f32,
    /// The number of this step, from 1 on, for the bias correction of the moments.
    pub count: u64,
}

/// Labels to learn from.
#[derive(Clone, Copy, Debug)]
pub struct HardLabels<'a> {
    /// The class of each image.
    pub classes: &'a [u32],
    /// Share of the probability that label smoothing spreads over all classes.
    pub smoothing: f32,
    /// Weight of their cross-entropy, beside 1 of a teacher's.
    pub weight: f32,
}

/// Each image's loss, on the device that computed it, and the gradient of the mean loss at the logits.
pub struct CrossEntropy {
    /// `[N]`.
    pub losses: Tensor,
    /// `[N, classes]`.
    pub gradient: Tensor,
}

impl Backend {
    /// `destination += x`, both contiguous and of one shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_assign(&self, destination: &Tensor, x: &Tensor) -> Result<()> {
        same_shape("add_assign", destination, x)?;
        on_gpu!(self, Op::new("add assign"), [destination, x, x], gpu => gpu.add_assign(destination, x));
        self.update(Op::new("add assign"), destination, [x], |mut destination, views| {
            run!(self, planes::add_assign(destination.contiguous()?, views[0].contiguous()?));
            Ok(())
        })
    }

    /// `destination += x` where `destination` is any narrowed view of the same shape: for small weights.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn add_to_view(&self, destination: &Tensor, x: &Tensor) -> Result<()> {
        same_shape("add_to_view", destination, x)?;
        on_gpu!(self, Op::new("add to view"), [x, x, x], gpu => gpu.add_to_view(destination, x));
        self.update(Op::new("add to view"), destination, [x], |destination, views| {
            let dims = destination.layout.dims();
            let strides = destination.layout.stride();
            for (index, value) in views[0].contiguous()?.iter().enumerate() {
                destination.values[place(index, dims, strides)] += value;
            }
            Ok(())
        })
    }

    /// A contiguous copy of a tensor in memory of its own, in the same storage.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn duplicate(&self, x: &Tensor) -> Result<Tensor> {
        on_gpu!(self, Op::new("duplicate"), [x, x], gpu => gpu.duplicate(x));
        self.compute(Op::new("duplicate"), [x], x.shape(), |[x], copy| {
            copy.copy_from_slice(x.contiguous()?);
            Ok(())
        })
    }

    /// The rows of two contiguous tensors, one after the other: `[R, …]`, `[R', …] -> [R + R', …]`.
    ///
    /// # Errors
    /// If their rows differ in shape.
    pub fn join(&self, first: &Tensor, second: &Tensor) -> Result<Tensor> {
        if first.dims().get(1..) != second.dims().get(1..) || first.rank() == 0 {
            bail!("join: rows of {:?} and {:?}", first.dims(), second.dims());
        }
        let mut shape = first.dims().to_vec();
        shape[0] += second.dim(0)?;
        on_gpu!(self, Op::new("join"), [first, second], gpu => gpu.join(first, second, &shape));
        self.compute(Op::new("join"), [first, second], shape, |[first, second], joined| {
            let first = first.contiguous()?;
            let (head, tail) = joined.split_at_mut(first.len());
            head.copy_from_slice(first);
            tail.copy_from_slice(second.contiguous()?);
            Ok(())
        })
    }

    /// The sum of at least one tensor, all contiguous and of one shape; they are added in their order.
    ///
    /// # Errors
    /// If there is none, or the shapes differ.
    pub fn sum(&self, terms: &[&Tensor]) -> Result<Tensor> {
        let [first, others @ ..] = terms else { bail!("sum: expected at least one tensor, got none") };
        let sum = self.duplicate(first)?;
        others.iter().try_for_each(|term| self.add_assign(&sum, term))?;
        Ok(sum)
    }

    /// Sets every value of a contiguous tensor to zero.
    ///
    /// # Errors
    /// If it is not contiguous.
    pub fn fill_zero(&self, destination: &Tensor) -> Result<()> {
        on_gpu!(self, Op::new("fill zero"), [destination], gpu => gpu.clear(destination));
        self.update(Op::new("fill zero"), destination, [], |mut destination, _| {
            destination.contiguous()?.fill(0.0);
            Ok(())
        })
    }

    /// Clamps every value of a contiguous tensor to at most `most` in size; what is not a number stays so.
    ///
    /// # Errors
    /// If it is not contiguous, or `most` is not a positive number.
    pub fn clamp(&self, destination: &Tensor, most: f32) -> Result<()> {
        if most.is_nan() || most <= 0.0 {
            bail!("clamp: expected a bound above 0, got {most}");
        }
        on_gpu!(self, Op::new("clamp"), [destination, destination], gpu => gpu.clamp(destination, most));
        self.update(Op::new("clamp"), destination, [], |mut destination, _| {
            destination.contiguous()?.iter_mut().for_each(|value| *value = value.clamp(-most, most));
            Ok(())
        })
    }

    /// Moves every value of `destination` toward that of `x` by this share of the way, both contiguous and of one shape.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn move_toward(&self, destination: &Tensor, x: &Tensor, share: f32) -> Result<()> {
        same_shape("move_toward", destination, x)?;
        on_gpu!(self, Op::new("move toward"), [destination, destination, x], gpu => gpu.move_toward(destination, x, share));
        self.update(Op::new("move toward"), destination, [x], |mut destination, views| {
            let values = destination.contiguous()?.iter_mut().zip(views[0].contiguous()?);
            values.for_each(|(value, to)| *value += share * (to - *value));
            Ok(())
        })
    }

    /// One step of stochastic gradient descent with Nesterov's momentum, as PyTorch takes it, on each parameter and its
    /// velocity, in place; the gradients are 0 after it.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn nesterov(&self, moved: &[NesterovParameter], lr: f32, momentum: f32) -> Result<()> {
        let mut bytes = 0;
        for &NesterovParameter { parameter, gradient, velocity, .. } in moved {
            same_shape("nesterov", parameter, gradient)?;
            same_shape("nesterov", parameter, velocity)?;
            // each of the three is read and written
            bytes += 2 * super::bytes([parameter, gradient, velocity]);
        }
        self.record(Op::new("nesterov"), bytes, || {
            if let Implementation::Cuda(gpu) = &self.implementation {
                return gpu.nesterov(moved, lr, momentum);
            }
            moved.iter().try_for_each(|moved| {
                self.move_one(moved, SgdStep { lr, momentum, weight_decay: moved.weight_decay })
            })
        })
    }

    fn move_one(&self, moved: &NesterovParameter, step: SgdStep) -> Result<()> {
        update("nesterov", moved.velocity, [], |mut velocity, _| {
            let velocity = RefCell::new(velocity.contiguous()?);
            update("nesterov", moved.gradient, [], |mut gradient, _| {
                let gradient = RefCell::new(gradient.contiguous()?);
                update("nesterov", moved.parameter, [], |mut parameter, _| {
                    let mut velocity = velocity.borrow_mut();
                    let mut gradient = gradient.borrow_mut();
                    run!(
                        self,
                        updates::nesterov(parameter.contiguous()?, &mut gradient, &mut velocity, step)
                    );
                    Ok(())
                })
            })
        })
    }

    /// One step of AdamW, as PyTorch takes it, on each parameter and its moments, in place; the gradients are 0 after it.
    ///
    /// # Errors
    /// If shapes differ.
    pub fn adamw(&self, adapted: &[AdamWParameter], lr: f32, constants: AdamWConstants) -> Result<()> {
        let mut bytes = 0;
        for &AdamWParameter { parameter, gradient, moments: [first, second], .. } in adapted {
            for other in [gradient, first, second] {
                same_shape("adamw", parameter, other)?;
            }
            // each of the four is read and written
            bytes += 2 * super::bytes([parameter, gradient, first, second]);
        }
        let steps = adapted.iter().map(|one| AdamWStep::new(constants, lr, one.weight_decay, one.count));
        let steps: Vec<AdamWStep> = steps.collect();
        self.record(Op::new("adamw"), bytes, || {
            if let Implementation::Cuda(gpu) = &self.implementation {
                return gpu.adamw(adapted, &steps);
            }
            adapted.iter().zip(&steps).try_for_each(|(adapted, step)| self.adapt_one(adapted, *step))
        })
    }

    fn adapt_one(&self, adapted: &AdamWParameter, step: AdamWStep) -> Result<()> {
        let [first, second] = adapted.moments;
        update("adamw", first, [], |mut first, _| {
            let first = RefCell::new(first.contiguous()?);
            update("adamw", second, [], |mut second, _| {
                let second = RefCell::new(second.contiguous()?);
                update("adamw", adapted.gradient, [], |mut gradient, _| {
                    let gradient = RefCell::new(gradient.contiguous()?);
                    update("adamw", adapted.parameter, [], |mut parameter, _| {
                        let mut first = first.borrow_mut();
                        let mut second = second.borrow_mut();
                        let mut gradient = gradient.borrow_mut();
                        let moments = [&mut **first, &mut **second];
                        run!(self, updates::adamw(parameter.contiguous()?, &mut gradient, moments, step));
                        Ok(())
                    })
                })
            })
        })
    }

    /// Cross-entropy of logits `[N, classes]` with labels, smoothed, plus the cross-entropy with a teacher's logits, as a
    /// GPU computes it in f32; `None` on a CPU, where the caller sums losses in double precision. Labels must be below
    /// the number of classes. Each image's loss and gradient are multiplied by its scale, where there are scales.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn cross_entropy(
        &self,
        logits: &Tensor,
        labels: HardLabels<'_>,
        teacher: Option<&Tensor>,
        scales: Option<&[f32]>,
    ) -> Result<Option<CrossEntropy>> {
        same_shape("cross_entropy", logits, teacher.unwrap_or(logits))?;
        let count = labels.classes.len();
        let scaled = scales.map_or(count, <[f32]>::len);
        if [count, scaled] != [logits.dim(0)?; 2] {
            bail!("cross_entropy: {count} labels and {scaled} scales for {:?}", logits.dims());
        }
        on_gpu!(self, Op::new("cross entropy"), [logits, logits], gpu => {
            let (losses, gradient) = gpu.cross_entropy(logits, labels, teacher, scales)?;
            Ok(Some(CrossEntropy { losses, gradient }))
        });
        Ok(None)
    }

    /// A contiguous copy of a view in the storage of activations, or the view itself if there is nothing to change. Views
    /// on the CPU are copied to the kernels' device.
    ///
    /// # Errors
    /// If the values are neither f32 nor activations.
    pub fn activations(&self, view: &Tensor) -> Result<Tensor> {
        on_gpu!(self, Op::new("activations"), [view, view], gpu => {
            let view = &view.to_device(gpu.device())?;
            gpu.kept(view, gpu.activations())
        });
        view.contiguous()
    }

    /// A mask made on the CPU, of zeros and one other number, as activations on the kernels' device.
    ///
    /// # Errors
    /// If the mask holds other numbers.
    pub fn mask(&self, mask: &Tensor) -> Result<Tensor> {
        on_gpu!(self, Op::new("mask"), [mask, mask], gpu => gpu.mask(mask));
        mask.contiguous()
    }

    /// The operands of products for these weights: views, if products read the weights unchanged. The weights are f32 and
    /// rows of contiguous values, or were returned by this method.
    ///
    /// # Errors
    /// If the weights are anything else, or not on the kernels' device.
    pub fn operands(&self, weights: &[&Tensor]) -> Result<Vec<Tensor>> {
        on_gpu!(self, Op::new("operands"), weights, gpu => gpu.operands(weights));
        Ok(weights.iter().map(|weight| (*weight).clone()).collect())
    }

    /// [`Backend::operands`] of one weight.
    ///
    /// # Errors
    /// As [`Backend::operands`].
    pub fn operand(&self, weight: &Tensor) -> Result<Tensor> {
        if let Implementation::Cuda(gpu) = &self.implementation
            && gpu.is_operand(weight)?
        {
            return Ok(weight.clone());
        }
        let mut operands = self.operands(&[weight])?;
        Ok(operands.swap_remove(0))
    }

    /// A contiguous copy of a view as f32, or the view itself if there is nothing to change.
    ///
    /// # Errors
    /// If the values are neither f32 nor activations.
    pub fn numbers(&self, view: &Tensor) -> Result<Tensor> {
        on_gpu!(self, Op::new("numbers"), [view, view], gpu => gpu.kept(view, cuda::ActivationStorage::F32));
        view.contiguous()
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
