//! Batch normalization (Ioffe and Szegedy 2015) with the activation that follows it.

use std::collections::BTreeMap;

use candle_core::Tensor;
use kernels::{Backend, BatchNormAffine};
use space::Activation;

use super::parameter::there;
use super::pass::{Pass, Tape};
use super::source::{Affine, Source};
use crate::error::{Error, Result};

/// Mean and biased variance, `[2, C]`, of each batch norm by its name, such as `blocks.3.conv.depth_conv.bn`.
pub type Statistics = BTreeMap<String, Tensor>;

/// `act(gamma (x - mean) / sqrt(var + eps) + beta)` for each channel.
pub struct BatchNorm {
    name: String,
    with: BatchNormAffine,
    gradient: Option<BatchNormAffine>,
    running: Option<Tensor>,
    backend: Backend,
}

impl BatchNorm {
    /// Asks for `weight`, `bias`, `[C]`, and takes `running_mean` and `running_var` where they are.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(channels: usize, activation: Activation, source: &Source) -> Result<Self> {
        let Affine { with, gradient } = source.affine(channels, activation)?;
        let mean = source.find(channels, "running_mean")?;
        let variance = source.find(channels, "running_var")?;
        let running = match (mean, variance) {
            (Some(mean), Some(variance)) => {
                // as they come, from the CPU as a rule, then where the kernels compute
                Some(Tensor::stack(&[mean, variance], 0)?.to_device(&source.backend().device())?)
            }
            _ => None,
        };
        let backend = source.backend().for_layer("batch norm");
        Ok(Self { name: source.prefix(), with, gradient, running, backend })
    }

    /// The normalization plus `addend`, where there is one.
    ///
    /// # Shapes
    /// `[C, N, H, W]` in and out; the input may be written over where the pass keeps nothing.
    ///
    /// # Errors
    /// [`Error::Uncalibrated`] at inference without running statistics.
    pub fn forward(&self, x: Tensor, addend: Option<&Tensor>, pass: &mut Pass) -> Result<Tensor> {
        match pass {
            Pass::Inference => self.backend.normalize_with(&x, self.running()?, &self.with, addend)?,
            Pass::BatchStatistics => drop(self.backend.normalize_in_place(&x, &self.with, addend)?),
            Pass::Calibration(seen) => {
                let statistics = self.backend.normalize_in_place(&x, &self.with, addend)?;
                seen.insert(self.name.clone(), statistics);
            }
            Pass::Training(tape) => {
                let (y, statistics) = self.backend.normalize(&x, &self.with, addend)?;
                tape.push(&x);
                tape.push(&statistics);
                return Ok(y);
            }
        }
        Ok(x)
    }

    /// Adds the gradients of scale and shift, and returns the input's, in the place of `dy`.
    ///
    /// # Errors
    /// If the tape does not fit, or there are no gradients.
    pub fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<Tensor> {
        let statistics = tape.pop()?;
        let x = tape.pop()?;
        self.backend.normalize_backward_in_place(&x, &dy, &statistics, &self.with, self.gradient()?)?;
        Ok(dy)
    }

    /// [`BatchNorm::backward`] that leaves `dy` as it is.
    ///
    /// # Errors
    /// As that.
    pub fn backward_keeping(&self, dy: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let statistics = tape.pop()?;
        let x = tape.pop()?;
        Ok(self.backend.normalize_backward(&x, dy, &statistics, &self.with, self.gradient()?)?)
    }

    /// Scale, shift and activation.
    pub(super) fn normalization(&self) -> &BatchNormAffine {
        &self.with
    }

    /// Where the gradients of scale and shift are added.
    fn gradient(&self) -> candle_core::Result<&BatchNormAffine> {
        there(self.gradient.as_ref())
    }

    /// The same, if there are gradients.
    pub(super) fn find_gradient(&self) -> Option<&BatchNormAffine> {
        self.gradient.as_ref()
    }

    /// Its name, such as `blocks.3.conv.depth_conv.bn`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The running statistics, `[2, C]`.
    pub(super) fn running(&self) -> Result<&Tensor> {
        self.running.as_ref().ok_or_else(|| Error::Uncalibrated { name: self.name.clone() })
    }
}
