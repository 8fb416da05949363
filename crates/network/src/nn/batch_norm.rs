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
    /// Reads `weight`, `bias`, `[C]`, and, if present, `running_mean` and `running_var`.
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

    /// The normalization plus `addend`, if there is one.
    ///
    /// # Shapes
    /// `[C, N, H, W]` in and out; the input may be overwritten where the pass saves nothing.
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
            Pass::Codes(_) => {
                drop(self.backend.normalize_in_place(&x, &self.with, None)?);
                pass.see(&x, self.with.activation)?;
                if let Some(addend) = addend {
                    self.backend.add_assign(&x, addend)?;
                }
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

    /// Adds the gradients of scale and shift, and returns the input's, which overwrites `dy`.
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
    /// As [`BatchNorm::backward`].
    pub fn backward_keeping(&self, dy: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let statistics = tape.pop()?;
        let x = tape.pop()?;
        Ok(self.backend.normalize_backward(&x, dy, &statistics, &self.with, self.gradient()?)?)
    }

    /// Scale, shift and activation.
    pub(super) fn normalization(&self) -> &BatchNormAffine {
        &self.with
    }

    /// The gradients of scale and shift, to add to.
    fn gradient(&self) -> candle_core::Result<&BatchNormAffine> {
        there(self.gradient.as_ref())
    }

    /// The gradients of scale and shift, if there are any.
    pub(super) fn find_gradient(&self) -> Option<&BatchNormAffine> {
        self.gradient.as_ref()
    }

    /// The full name, such as `blocks.3.conv.depth_conv.bn`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The running statistics, `[2, C]`.
    pub(super) fn running(&self) -> Result<&Tensor> {
        self.running.as_ref().ok_or_else(|| Error::Uncalibrated { name: self.name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_close, source, tensor, values};

    /// One channel: scale 2, shift 0.5, running mean 1 and variance 4; `statistics` says whether those are there.
    fn norm(statistics: bool) -> BatchNorm {
        let number = |value: f32| tensor(&[1], &[value]);
        let mut tensors = vec![("bn.weight", number(2.0)), ("bn.bias", number(0.5))];
        if statistics {
            tensors.extend([("bn.running_mean", number(1.0)), ("bn.running_var", number(4.0))]);
        }
        BatchNorm::new(1, Activation::Relu, &source(&tensors).pp("bn")).expect("its weights")
    }

    fn x() -> Tensor {
        tensor(&[1, 2, 1, 2], &[1.0, 2.0, 3.0, 6.0])
    }

    #[test]
    fn each_pass_takes_its_statistics() {
        // the batch's mean is 3, its biased variance 3.5
        let of_batch = [1.0f64, 2.0, 3.0, 6.0].map(|x| (2.0 * (x - 3.0) / 3.5f64.sqrt() + 0.5).max(0.0));
        let mut seen = Statistics::new();
        for (mut pass, expected) in [
            (Pass::Inference, [0.5, 1.5, 2.5, 5.5]),
            (Pass::BatchStatistics, of_batch),
            (Pass::Calibration(&mut seen), of_batch),
            (Pass::Training(&mut Tape::new()), of_batch),
        ] {
            let y = norm(true).forward(x(), None, &mut pass).expect("running statistics");
            assert_close("normalized", &values(&y), &expected, 1e-6);
        }
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["bn"]);
        assert_eq!(seen["bn"].dims(), [2, 1]);
        assert_close("statistics", &values(&seen["bn"]), &[3.0, 3.5], 1e-6);
    }

    #[test]
    fn the_addend_is_added_after_the_activation() {
        let addend = tensor(&[1, 2, 1, 2], &[-10.0, 0.0, 1.0, 2.0]);
        let y = norm(true).forward(x(), Some(&addend), &mut Pass::Inference).expect("running statistics");
        assert_close("sum", &values(&y), &[-9.5, 1.5, 3.5, 7.5], 1e-6);
    }

    #[test]
    fn without_running_statistics_there_is_no_inference() {
        let error = norm(false).forward(x(), None, &mut Pass::Inference).expect_err("uncalibrated");
        let expected = "bn: no running statistics for this sub-network; calibrate it first";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn without_gradients_there_is_no_backward() {
        let mut tape = Tape::new();
        let y = norm(true).forward(x(), None, &mut Pass::Training(&mut tape)).expect("a batch");
        let error = norm(true).backward(y, &mut tape).expect_err("no gradients").to_string();
        assert!(error.contains("expected a network with gradients"), "{error}");
    }
}
