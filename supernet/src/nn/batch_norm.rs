//! Batch normalisation (Ioffe and Szegedy 2015) with the activation that follows it.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::{Error, Result};
use crate::kernels::{Kernels, Normalisation};
use crate::space::Activation;

/// Mean and biased variance, `[2, C]`, of each batch norm by its name, such as `blocks.3.conv.depth_conv.bn`.
pub type Statistics = BTreeMap<String, Tensor>;

/// `act(gamma (x - mean) / sqrt(var + eps) + beta)` for each channel.
pub struct BatchNorm {
    name: String,
    with: Normalisation,
    running: Option<Tensor>,
    kernels: Kernels,
}

impl BatchNorm {
    /// Asks for `weight`, `bias`, `[C]`, and takes `running_mean` and `running_var` where they are.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(channels: usize, activation: Activation, source: &Source) -> Result<Self> {
        let with = source.normalisation(channels, activation)?;
        let mean = source.find(channels, "running_mean")?;
        let variance = source.find(channels, "running_var")?;
        let running = match (mean, variance) {
            (Some(mean), Some(variance)) => Some(Tensor::stack(&[mean, variance], 0)?),
            _ => None,
        };
        Ok(Self { name: source.prefix(), with, running, kernels: source.kernels() })
    }

    /// # Shapes
    /// `[C, N, H, W]` in and out; the input may be written over where the pass keeps nothing.
    ///
    /// # Errors
    /// [`Error::Uncalibrated`] at inference without running statistics.
    pub fn forward(&self, x: Tensor, pass: &mut Pass) -> Result<Tensor> {
        let statistics = match pass {
            Pass::Inference => {
                self.running.clone().ok_or_else(|| Error::Uncalibrated { name: self.name.clone() })?
            }
            _ => self.kernels.statistics(&x)?,
        };
        if let Pass::Calibration(seen) = pass {
            seen.insert(self.name.clone(), statistics.clone());
        }
        if pass.forgets() {
            self.kernels.normalise_in_place(&x, &statistics, &self.with)?;
            return Ok(x);
        }
        pass.save(&x);
        pass.save(&statistics);
        Ok(self.kernels.normalise(&x, &statistics, &self.with)?)
    }

    /// Adds the gradients of scale and shift to `gradient`, and returns the input's.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Tensor> {
        let (statistics, x) = (tape.pop()?, tape.pop()?);
        let kernels = self.kernels;
        let sums = kernels.normalise_backward_sums(&x, dy, &statistics, &self.with)?;
        kernels.add_assign(&gradient.with.gamma, &sums.get(0)?)?;
        kernels.add_assign(&gradient.with.beta, &sums.get(1)?)?;
        Ok(kernels.normalise_backward_input(&x, dy, &statistics, &sums, &self.with)?)
    }
}
