//! The residual bottleneck (He et al. 2016), its shortcut averaged where it shrinks (variant D of He et al. 2019).

use candle_core::Tensor;
use kernels::{Kernels, Window};
use space::{Activation, LayerSpec};

use super::conv::{ConvNorm, Dense, Pointwise};
use super::mbconv::given;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// `act(expansion(dense(reduction(x))) + shortcut(x))`, each convolution with its batch norm.
pub struct Bottleneck {
    reduction: ConvNorm<Pointwise>,
    dense: ConvNorm<Dense>,
    expansion: ConvNorm<Pointwise>,
    downsample: Option<Downsample>,
    activation: Activation,
    kernels: Kernels,
}

/// A shortcut that changes sizes: mean over `stride x stride`, 1x1 convolution, batch norm.
struct Downsample {
    stride: usize,
    convolution: ConvNorm<Pointwise>,
    kernels: Kernels,
}

impl Bottleneck {
    /// Asks for `conv1.*`, `conv2.*`, `conv3.*` and, where the shortcut changes sizes, `downsample.*`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(block: &space::Bottleneck, layer: &LayerSpec, source: &Source) -> Result<Self> {
        let &space::Bottleneck { kernel, stride, mid, activation, downsample } = block;
        let (input, output) = (layer.input.channels, layer.output.channels);
        let shortcut = || Downsample::new([input, output], stride, &source.pp("downsample"));
        let within = source.pp("conv2");
        let dense = Dense::new([mid, mid], Window { kernel, stride }, &within.pp("conv"))?;
        Ok(Self {
            reduction: ConvNorm::pointwise(input, mid, activation, &source.pp("conv1"))?,
            dense: ConvNorm::new(dense, mid, activation, &within)?,
            expansion: ConvNorm::pointwise(mid, output, Activation::None, &source.pp("conv3"))?,
            downsample: downsample.then(shortcut).transpose()?,
            activation,
            kernels: source.kernels().for_layer("residual"),
        })
    }

    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let shortcut = self.downsample.as_ref().map(|downsample| downsample.forward(x, pass)).transpose()?;
        let inner = self.reduction.forward(x, None, pass)?; // [mid, N, H, W]
        let inner = self.dense.forward(&inner, None, pass)?; // [mid, N, H/s, W/s]
        let sum = self.expansion.forward(&inner, Some(shortcut.as_ref().unwrap_or(x)), pass)?;
        pass.save(&sum);
        Ok(self.kernels.bias_activation(&sum, None, self.activation)?) // [C', N, H/s, W/s]
    }

    /// Adds to `gradient`; returns the input's gradient.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: Tensor, tape: &mut Tape, gradient: &Self) -> Result<Tensor> {
        let sum = tape.pop()?;
        let dy = self.kernels.bias_activation_backward(&sum, None, self.activation, &dy)?;
        let d = given(self.expansion.backward_keeping(&dy, tape, &gradient.expansion)?)?;
        let d = given(self.dense.backward(d, tape, &gradient.dense)?)?;
        let d = given(self.reduction.backward(d, tape, &gradient.reduction)?)?;
        let past = match (&self.downsample, &gradient.downsample) {
            (Some(downsample), Some(gradient)) => downsample.backward(dy, tape, gradient, &d)?,
            _ => dy,
        };
        self.kernels.add_assign(&d, &past)?;
        Ok(d)
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        let downsample =
            self.downsample.as_ref().map(|downsample| (&downsample.convolution, downsample.stride));
        Parts {
            reduction: &self.reduction,
            dense: &self.dense,
            expansion: &self.expansion,
            downsample,
            activation: self.activation,
        }
    }
}

/// The parts of a block, for whoever makes another block of them.
pub(super) struct Parts<'a> {
    pub reduction: &'a ConvNorm<Pointwise>,
    pub dense: &'a ConvNorm<Dense>,
    pub expansion: &'a ConvNorm<Pointwise>,
    /// The shortcut's convolution, and its stride.
    pub downsample: Option<(&'a ConvNorm<Pointwise>, usize)>,
    pub activation: Activation,
}

impl Downsample {
    fn new([input, output]: [usize; 2], stride: usize, source: &Source) -> Result<Self> {
        let convolution = ConvNorm::pointwise(input, output, Activation::None, source)?;
        Ok(Self { stride, convolution, kernels: source.kernels().for_layer("pool") })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if self.stride == 1 {
            return self.convolution.forward(x, None, pass);
        }
        self.convolution.forward(&self.kernels.average_pool(x, self.stride)?, None, pass)
    }

    /// `like` has the input's shape.
    fn backward(&self, dy: Tensor, tape: &mut Tape, gradient: &Self, like: &Tensor) -> Result<Tensor> {
        let d = given(self.convolution.backward(dy, tape, &gradient.convolution)?)?;
        let (_, _, height, width) = like.dims4()?;
        if self.stride == 1 {
            return Ok(d);
        }
        Ok(self.kernels.average_pool_backward(&d, self.stride, (height, width))?)
    }
}
