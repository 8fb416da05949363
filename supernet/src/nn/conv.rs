//! Convolutions without bias, and each with the batch norm after it.

use candle_core::Tensor;

use super::batch_norm::BatchNorm;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::space::Activation;

/// A convolution: what it computes forward, and what it gives back.
pub trait Convolution {
    /// `[C, N, H, W] -> [C', N, H', W']`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor>;

    /// Adds the weight's gradient to `gradient`; returns the input's, or `None` where nobody needs it.
    ///
    /// # Errors
    /// If the tape does not fit.
    fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Option<Tensor>>;
}

/// 1x1 convolution: one matrix product `W[O, I] x X[I, N H W]`.
pub struct Pointwise {
    weight: Tensor, // [O, I]
    kernels: Kernels,
}

impl Pointwise {
    /// Asks for `weight`, `[O, I, 1, 1]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new(input: usize, output: usize, source: &Source) -> Result<Self> {
        let weight = source.get((output, input, 1, 1), "weight")?.squeeze(3)?.squeeze(2)?;
        Ok(Self { weight, kernels: source.kernels() })
    }
}

impl Convolution for Pointwise {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.save(x);
        let (_, images, height, width) = x.dims4()?;
        let y = self.kernels.product(&self.weight, &x.flatten_from(1)?)?; // [O, N H W]
        Ok(y.reshape((y.dim(0)?, images, height, width))?)
    }

    fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Option<Tensor>> {
        let x = tape.pop()?;
        let (flat, dy) = (x.flatten_from(1)?, dy.flatten_from(1)?); // [I, N H W], [O, N H W]
        self.kernels.add_product(&gradient.weight, &dy, &flat.t()?)?;
        let dx = self.kernels.product(&self.weight.t()?, &dy)?;
        Ok(Some(dx.reshape(x.shape())?))
    }
}

/// Convolution of each channel with its own k x k kernel, padding k/2.
pub struct Depthwise {
    weight: Tensor, // [C, 1, k, k]
    stride: usize,
    kernels: Kernels,
}

impl Depthwise {
    /// Asks for `weight`, `[C, 1, k, k]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new(channels: usize, kernel: usize, stride: usize, source: &Source) -> Result<Self> {
        let weight = source.get((channels, 1, kernel, kernel), "weight")?;
        Ok(Self { weight, stride, kernels: source.kernels() })
    }
}

impl Convolution for Depthwise {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.save(x);
        Ok(self.kernels.depthwise(x, &self.weight, self.stride)?)
    }

    fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Option<Tensor>> {
        let x = tape.pop()?;
        let (_, _, height, width) = x.dims4()?;
        self.kernels.depthwise_backward_weight(&gradient.weight, &x, dy, self.stride)?;
        Ok(Some(self.kernels.depthwise_backward_input(dy, &self.weight, self.stride, (height, width))?))
    }
}

/// Dense k x k convolution on the image, padding k/2; nobody asks for its input's gradient.
pub struct Dense {
    weight: Tensor, // [O, C k k]
    kernel: usize,
    stride: usize,
    kernels: Kernels,
}

impl Dense {
    /// Asks for `weight`, `[O, C, k, k]`.
    ///
    /// # Errors
    /// If it is missing or has another shape.
    pub fn new([output, input, kernel]: [usize; 3], stride: usize, source: &Source) -> Result<Self> {
        let weight = source.get((output, input, kernel, kernel), "weight")?.flatten_from(1)?;
        Ok(Self { weight, kernel, stride, kernels: source.kernels() })
    }
}

impl Convolution for Dense {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        pass.save(x);
        let (patches, (height, width)) = self.kernels.patches(x, self.kernel, self.stride)?;
        let y = self.kernels.product(&self.weight, &patches)?; // [O, N H W]
        Ok(y.reshape((y.dim(0)?, x.dim(1)?, height, width))?)
    }

    fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Option<Tensor>> {
        let x = tape.pop()?;
        let (patches, _) = self.kernels.patches(&x, self.kernel, self.stride)?;
        self.kernels.add_product(&gradient.weight, &dy.flatten_from(1)?, &patches.t()?)?;
        Ok(None)
    }
}

/// A convolution, its batch norm and the activation.
pub struct ConvNorm<C> {
    convolution: C,
    norm: BatchNorm,
}

impl ConvNorm<Pointwise> {
    /// Asks for `conv.weight`, `[O, I, 1, 1]`, and `bn.*`, `[O]`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn pointwise(input: usize, output: usize, activation: Activation, source: &Source) -> Result<Self> {
        let convolution = Pointwise::new(input, output, &source.pp("conv"))?;
        Ok(Self { convolution, norm: BatchNorm::new(output, activation, &source.pp("bn"))? })
    }
}

impl<C: Convolution> ConvNorm<C> {
    /// `convolution`, then the batch norm under `bn`.
    ///
    /// # Errors
    /// If a weight of the batch norm is missing or has another shape.
    pub fn new(convolution: C, channels: usize, activation: Activation, source: &Source) -> Result<Self> {
        Ok(Self { convolution, norm: BatchNorm::new(channels, activation, &source.pp("bn"))? })
    }

    /// `[C, N, H, W] -> [C', N, H', W']`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let y = self.convolution.forward(x, pass)?;
        self.norm.forward(y, pass)
    }

    /// Adds to `gradient`; returns the input's gradient where the convolution gives one.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Option<Tensor>> {
        let dy = self.norm.backward(dy, tape, &gradient.norm)?;
        self.convolution.backward(&dy, tape, &gradient.convolution)
    }
}
