//! Batch norms multiplied into the convolutions before them, and products that apply the activation as they write.

use candle_core::{Device, Tensor};
use kernels::{Backend, BatchNormAffine, PackedWeight, Window};
use space::Activation;

use super::batch_norm::BatchNorm;
use super::chain::ChainLayer;
use super::conv::{ConvNorm, Dense, Pointwise};
use super::linear::Linear;
use crate::error::Result;

/// The scale and the shift of a batch norm, `[C]` each. Folding happens on the CPU.
fn scale_and_shift(norm: &BatchNorm) -> Result<(Tensor, Tensor)> {
    let with = norm.normalization();
    let running = on_cpu(norm.running()?)?;
    let mean = running.get(0)?;
    let variance = running.get(1)?;
    let deviation = (variance + f64::from(with.epsilon))?.sqrt()?;
    let scale = (on_cpu(&with.gamma)? / deviation)?;
    let shift = (on_cpu(&with.beta)? - (&scale * mean)?)?;
    Ok((scale, shift))
}

fn on_cpu(tensor: &Tensor) -> candle_core::Result<Tensor> {
    tensor.to_device(&Device::Cpu)
}

/// `act(W x + shift)`.
pub(super) struct Product {
    weight: PackedWeight,
    shift: Tensor, // [O]
    activation: Activation,
}

impl Product {
    pub fn new(weight: &Tensor, shift: Tensor, activation: Activation, backend: &Backend) -> Result<Self> {
        let device = backend.device();
        let weight = backend.pack(&weight.to_device(&device)?)?;
        Ok(Self { weight, shift: shift.to_device(&device)?, activation })
    }

    /// A convolution's weight `[O, I]` with the batch norm after it.
    pub fn folded(weight: &Tensor, norm: &BatchNorm, backend: &Backend) -> Result<Self> {
        let (scale, shift) = scale_and_shift(norm)?;
        let weight = on_cpu(weight)?.broadcast_mul(&scale.unsqueeze(1)?)?;
        Self::new(&weight, shift, norm.normalization().activation, backend)
    }

    /// Two convolutions' weights `[O, I]` whose outputs lie side by side, `first` channels of the first, with the batch norm after
    /// both.
    pub fn folded_parts(
        weights: &[&Tensor],
        first: usize,
        norm: &BatchNorm,
        backend: &Backend,
    ) -> Result<[Self; 2]> {
        let (scale, shift) = scale_and_shift(norm)?;
        let activation = norm.normalization().activation;
        let part = |weight: &Tensor, begin: usize, count: usize| {
            let scale = scale.narrow(0, begin, count)?;
            let weight = on_cpu(weight)?.broadcast_mul(&scale.unsqueeze(1)?)?;
            Self::new(&weight, shift.narrow(0, begin, count)?.contiguous()?, activation, backend)
        };
        let second = scale.dim(0)? - first;
        Ok([part(weights[0], 0, first)?, part(weights[1], first, second)?])
    }

    /// A 1x1 convolution with its batch norm.
    pub fn pointwise(conv: &ConvNorm<Pointwise>, backend: &Backend) -> Result<Self> {
        let (convolution, norm) = conv.parts();
        Self::folded(convolution.weight(), norm, backend)
    }

    /// A linear layer.
    pub fn linear(linear: &Linear, backend: &Backend) -> Result<Self> {
        let (weight, bias, activation) = linear.parts();
        Self::new(weight, bias.clone(), activation, backend)
    }

    /// `[I, N] -> [O, N]`.
    pub fn features(&self, x: &Tensor, backend: &Backend) -> Result<Tensor> {
        Ok(backend.product_activated(&self.weight, x, &self.shift, self.activation)?)
    }

    /// `[I, N, H, W] -> [O, N, H, W]`.
    pub fn maps(&self, x: &Tensor, backend: &Backend) -> Result<Tensor> {
        let (_, images, height, width) = x.dims4()?;
        let y = self.features(&x.flatten_from(1)?, backend)?; // [O, N H W]
        Ok(y.reshape(((), images, height, width))?)
    }
}

/// A dense convolution with its batch norm.
pub(super) struct FoldedDense {
    filters: Product, // [O, I k k]
    window: Window,
}

impl FoldedDense {
    pub fn new(conv: &ConvNorm<Dense>, backend: &Backend) -> Result<Self> {
        let (convolution, norm) = conv.parts();
        let (weight, window) = convolution.parts();
        Ok(Self { filters: Product::folded(&on_cpu(weight)?.flatten_from(1)?, norm, backend)?, window })
    }

    /// `[I, N, H, W] -> [O, N, H/s, W/s]`.
    pub fn maps(&self, x: &Tensor, backend: &Backend) -> Result<Tensor> {
        let Product { weight, shift, activation } = &self.filters;
        Ok(backend.convolve_activated(weight, x, self.window, shift, *activation)?)
    }
}

/// A depthwise convolution with the batch norm and the activation after it.
pub(super) struct FoldedDepthwise {
    weight: Tensor, // [C, 1, k, k]
    stride: usize,
    shift: Tensor, // [C]
    activation: Activation,
}

impl FoldedDepthwise {
    pub fn new(inner: &ChainLayer, backend: &Backend) -> Result<Self> {
        let (_, chain, after) = inner.parts();
        let device = backend.device();
        let (scale, shift) = scale_and_shift(after)?;
        let weight = on_cpu(&chain.weight)?.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?;
        Ok(Self {
            weight: weight.to_device(&device)?,
            stride: chain.stride,
            shift: shift.to_device(&device)?,
            activation: chain.after.activation,
        })
    }

    /// `[C, N, H, W] -> [C, N, H/s, W/s]`.
    pub fn maps(&self, x: &Tensor, backend: &Backend) -> Result<Tensor> {
        Ok(backend.depthwise_activated(x, &self.weight, self.stride, &self.shift, self.activation)?)
    }
}

/// A batch norm by itself, with its running statistics.
pub(super) struct FoldedNorm {
    with: BatchNormAffine,
    running: Tensor, // [2, C]
}

impl FoldedNorm {
    pub fn new(norm: &BatchNorm) -> Result<Self> {
        Ok(Self { with: norm.normalization().clone(), running: norm.running()?.clone() })
    }

    /// `[C, N, H, W]` in and out.
    pub fn maps(&self, x: &Tensor, backend: &Backend) -> Result<Tensor> {
        let y = backend.duplicate(x)?;
        backend.normalize_with(&y, &self.running, &self.with, None)?;
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{assert_close, source, tensor, values};

    /// One channel: scale 3 over a deviation of 2, shift 1, mean 4.
    fn tensors() -> Vec<(&'static str, Tensor)> {
        let parts = [("bn.weight", 3.0), ("bn.bias", 1.0), ("bn.running_mean", 4.0), ("bn.running_var", 4.0)];
        parts.map(|(name, value)| (name, tensor(&[1], &[value]))).to_vec()
    }

    #[test]
    fn a_batch_norm_becomes_a_scale_and_a_shift() {
        let norm = BatchNorm::new(1, Activation::Relu, &source(&tensors()).pp("bn")).expect("its weights");
        let (scale, shift) = scale_and_shift(&norm).expect("running statistics");
        assert_eq!((values(&scale), values(&shift)), (vec![1.5], vec![-5.0]));
        let backend = Backend::detect();
        let product = Product::folded(&tensor(&[1, 2], &[2.0, 4.0]), &norm, &backend).expect("a product");
        // 1.5 (2 x + 4 y) - 5, then the ReLU
        let y = product.features(&tensor(&[2, 2], &[1.0, 1.0, 1.0, 0.0]), &backend).expect("features");
        assert_close("features", &values(&y), &[4.0, 0.0], 1e-6);
        let maps = product.maps(&tensor(&[2, 1, 1, 2], &[1.0, 1.0, 1.0, 0.0]), &backend).expect("maps");
        assert_eq!(maps.dims(), [1, 1, 1, 2]);
        assert_eq!(values(&maps), values(&y));
    }

    #[test]
    fn without_running_statistics_nothing_is_folded() {
        let mut tensors = tensors();
        tensors.truncate(2);
        let norm = BatchNorm::new(1, Activation::None, &source(&tensors).pp("bn")).expect("its weights");
        let error = scale_and_shift(&norm).expect_err("uncalibrated").to_string();
        assert!(error.starts_with("bn: no running statistics"), "{error}");
    }
}
