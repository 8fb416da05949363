//! Batch norms with their activations.

use std::cell::RefCell;

use candle_core::{Result, Shape, Tensor};

use super::{Backend, Op, View, on_gpu, run, same_shape};
use crate::cpu::batch_norm::{Affine, BatchNormSlices, NormalizedSlices};
use crate::tensors::{update, with_views};
use space::Activation;

/// The scale, shift and activation of a batch norm.
#[derive(Clone, Debug)]
pub struct BatchNormAffine {
    /// Scale, `[C]`.
    pub gamma: Tensor,
    /// Shift, `[C]`.
    pub beta: Tensor,
    /// Added to the variance.
    pub epsilon: f32,
    /// Applied last.
    pub activation: Activation,
}

impl BatchNormAffine {
    pub(super) fn affine<'a>(&self, gamma: &View<'a>, beta: &View<'a>) -> Result<Affine<'a>> {
        let gamma = gamma.contiguous()?;
        let beta = beta.contiguous()?;
        Ok(Affine { gamma, beta, epsilon: self.epsilon, activation: self.activation })
    }
}

/// The tensors that the gradient of a batch norm is computed from.
pub(crate) struct BatchNormBackward<'a> {
    /// The input.
    pub x: &'a Tensor,
    /// The gradient of the output.
    pub dy: &'a Tensor,
    /// Mean and biased variance of each row, `[2, C]`.
    pub statistics: &'a Tensor,
    /// The batch norm.
    pub with: &'a BatchNormAffine,
}

impl Backend {
    /// `act(gamma (x - mean) / sqrt(var + eps) + beta) + addend` with the batch's own mean and biased variance;
    /// returns the result, of the shape of `x`, and the statistics, `[2, C]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalize(
        &self,
        x: &Tensor,
        with: &BatchNormAffine,
        addend: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        same_shape("normalize", x, addend.unwrap_or(x))?;
        on_gpu!(self, Op::new("batch norm"), [x, x, x], gpu => {
            let y = gpu.alike(x)?;
            let statistics = gpu.normalize(x, with, addend, None, &y)?;
            Ok((y, statistics))
        });
        let shapes = [x.shape().clone(), Shape::from((2, x.dim(0)?))];
        let inputs = [x, &with.gamma, &with.beta, addend.unwrap_or(&with.beta)];
        let [y, statistics] =
            self.compute_many(Op::new("batch norm"), inputs, shapes, |[x, gamma, beta, more], outputs| {
                let [y, statistics] = outputs;
                let addend = addend.map(|_| more.contiguous()).transpose()?;
                let affine = with.affine(&gamma, &beta)?;
                let to = NormalizedSlices { stats: statistics, y };
                run!(self, batch_norm::forward(x.contiguous()?, affine, addend, to));
                Ok(())
            })?;
        Ok((y, statistics))
    }

    /// [`Backend::normalize`] in place; returns the statistics.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalize_in_place(
        &self,
        x: &Tensor,
        with: &BatchNormAffine,
        addend: Option<&Tensor>,
    ) -> Result<Tensor> {
        same_shape("normalize", x, addend.unwrap_or(x))?;
        let inputs = [&with.gamma, &with.beta, addend.unwrap_or(&with.beta)];
        let op = Op::new("batch norm in place");
        on_gpu!(self, op, [x, x, x], gpu => gpu.normalize(x, with, addend, None, x));
        self.compute(op, inputs, (2, x.dim(0)?), |[gamma, beta, more], statistics| {
            let statistics = RefCell::new(statistics);
            let addend = addend.map(|_| more.contiguous()).transpose()?;
            update("normalize_in_place", x, [], |mut x, _| {
                let affine = with.affine(&gamma, &beta)?;
                let mut statistics = statistics.borrow_mut();
                run!(self, batch_norm::forward_in_place(x.contiguous()?, affine, addend, &mut statistics));
                Ok(())
            })
        })
    }

    /// [`Backend::normalize_in_place`] with given statistics.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalize_with(
        &self,
        x: &Tensor,
        statistics: &Tensor,
        with: &BatchNormAffine,
        addend: Option<&Tensor>,
    ) -> Result<()> {
        same_shape("normalize", x, addend.unwrap_or(x))?;
        let inputs = [statistics, addend.unwrap_or(statistics)];
        on_gpu!(self, Op::new("batch norm in place"), [x, x], gpu => {
            gpu.normalize(x, with, addend, Some(statistics), x).map(drop)
        });
        self.update(Op::new("batch norm in place"), x, inputs, |mut x, views| {
            let statistics = views[0].contiguous()?;
            let addend = addend.map(|_| views[1].contiguous()).transpose()?;
            with_views([&with.gamma, &with.beta], |[gamma, beta]| {
                let affine = with.affine(&gamma, &beta)?;
                run!(self, batch_norm::apply_in_place(x.contiguous()?, statistics, affine, addend));
                Ok(())
            })
        })
    }

    /// The gradient of [`Backend::normalize`]'s input; adds the gradients of scale and shift to
    /// `gradient`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalize_backward(
        &self,
        x: &Tensor,
        dy: &Tensor,
        statistics: &Tensor,
        with: &BatchNormAffine,
        gradient: &BatchNormAffine,
    ) -> Result<Tensor> {
        same_shape("normalize backward", x, dy)?;
        let shapes = [x.shape().clone(), statistics.shape().clone()];
        let inputs = [x, dy, statistics, &with.gamma, &with.beta];
        let op = Op::new("batch norm backward");
        on_gpu!(self, op, [x, dy, x, dy, dy], gpu => {
            let dx = gpu.alike(x)?;
            gpu.normalize_backward(&BatchNormBackward { x, dy, statistics, with }, gradient, &dx)?;
            Ok(dx)
        });
        let [dx, sums] = self.compute_many(op, inputs, shapes, |[x, dy, statistics, gamma, beta], out| {
            let [dx, sums] = out;
            let forward = BatchNormSlices {
                x: x.contiguous()?,
                stats: statistics.contiguous()?,
                affine: with.affine(&gamma, &beta)?,
            };
            run!(self, batch_norm::backward(forward, dy.contiguous()?, sums, dx));
            Ok(())
        })?;
        self.add_sums(gradient, &sums)?;
        Ok(dx)
    }

    /// [`Backend::normalize_backward`] with the gradient in the place of `dy`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn normalize_backward_in_place(
        &self,
        x: &Tensor,
        dy: &Tensor,
        statistics: &Tensor,
        with: &BatchNormAffine,
        gradient: &BatchNormAffine,
    ) -> Result<()> {
        same_shape("normalize backward", x, dy)?;
        let inputs = [x, statistics, &with.gamma, &with.beta];
        let op = Op::new("batch norm backward");
        on_gpu!(self, op, [x, dy, x, dy, dy], gpu => {
            gpu.normalize_backward(&BatchNormBackward { x, dy, statistics, with }, gradient, dy)
        });
        let sums = self.compute(op, inputs, statistics.shape(), |[x, statistics, gamma, beta], sums| {
            let sums = RefCell::new(sums);
            update("normalize_backward_in_place", dy, [], |mut dy, _| {
                let forward = BatchNormSlices {
                    x: x.contiguous()?,
                    stats: statistics.contiguous()?,
                    affine: with.affine(&gamma, &beta)?,
                };
                let mut sums = sums.borrow_mut();
                run!(self, batch_norm::backward_in_place(forward, dy.contiguous()?, &mut sums));
                Ok(())
            })
        })?;
        self.add_sums(gradient, &sums)
    }

    /// Adds the gradients of scale and shift, `[2, C]`.
    pub(super) fn add_sums(&self, gradient: &BatchNormAffine, sums: &Tensor) -> Result<()> {
        self.add_assign(&gradient.gamma, &sums.get(0)?)?;
        self.add_assign(&gradient.beta, &sums.get(1)?)
    }
}
