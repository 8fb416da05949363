//! The inverted residual block (Sandler et al. 2018; Howard et al. 2019).

use candle_core::{Tensor, bail};
use kernels::Kernels;
use space::{Activation, LayerSpec};

use super::chain::Inner;
use super::conv::{ConvNorm, Convolution, Pointwise};
use super::pass::{Pass, Tape};
use super::source::Source;
use super::squeeze_excite::SqueezeExcite;
use crate::error::Result;

/// `x (+) projection(squeeze_excite(depthwise(expansion(x))))`.
pub struct MbConv {
    expansion: Option<Pointwise>,
    inner: Inner,
    squeeze_excite: Option<SqueezeExcite>,
    projection: ConvNorm<Pointwise>,
    residual: bool,
    kernels: Kernels,
}

impl MbConv {
    /// Asks for `conv.inverted_bottleneck.*`, `conv.depth_conv.*` and `conv.point_linear.*`.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(block: &space::MbConv, layer: &LayerSpec, source: &Source) -> Result<Self> {
        let source = source.pp("conv");
        let (input, output, mid) = (layer.input.channels, layer.output.channels, block.mid);
        let expansion = || Pointwise::new(input, mid, &source.pp("inverted_bottleneck").pp("conv"));
        let squeeze = |squeeze| SqueezeExcite::new(mid, squeeze, &source.pp("depth_conv").pp("se"));
        Ok(Self {
            expansion: block.expansion.then(expansion).transpose()?,
            inner: Inner::new(block, &source)?,
            squeeze_excite: block.squeeze.map(squeeze).transpose()?,
            projection: ConvNorm::pointwise(mid, output, Activation::None, &source.pp("point_linear"))?,
            residual: block.residual,
            kernels: source.kernels().for_layer("residual"),
        })
    }

    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let (mut inner, means) = match &self.expansion {
            Some(expansion) => self.inner.forward(&expansion.forward(x, pass)?, pass)?, // [mid, N, H/s, W/s]
            None => self.inner.forward(x, pass)?,
        };
        if let (Some(squeeze_excite), Some(means)) = (&self.squeeze_excite, means) {
            inner = squeeze_excite.forward(inner, &means, pass)?;
        }
        self.projection.forward(&inner, self.residual.then_some(x), pass) // [C', N, H/s, W/s]
    }

    /// Adds to `gradient`; returns the input's gradient. May write over `dy`.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: Tensor, tape: &mut Tape, gradient: &Self) -> Result<Tensor> {
        let d = given(self.projection.backward_keeping(&dy, tape, &gradient.projection)?)?;
        let excited = match (&self.squeeze_excite, &gradient.squeeze_excite) {
            (Some(squeeze_excite), Some(gradient)) => Some(squeeze_excite.backward(&d, tape, gradient)?),
            _ => None,
        };
        let d = self.inner.backward(&d, excited.as_ref(), tape, &gradient.inner)?;
        match (&self.expansion, &gradient.expansion) {
            (Some(expansion), Some(gradient)) if self.residual => {
                expansion.backward_adding(&d, tape, gradient, &dy)?;
                Ok(dy)
            }
            (Some(expansion), Some(gradient)) => Ok(given(expansion.backward(&d, tape, gradient)?)?),
            _ if self.residual => {
                self.kernels.add_assign(&dy, &d)?;
                Ok(dy)
            }
            _ => Ok(d),
        }
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            expansion: self.expansion.as_ref(),
            inner: &self.inner,
            squeeze_excite: self.squeeze_excite.as_ref(),
            projection: &self.projection,
            residual: self.residual,
        }
    }
}

/// The parts of a block, for whoever makes another block of them.
pub(super) struct Parts<'a> {
    pub expansion: Option<&'a Pointwise>,
    pub inner: &'a Inner,
    pub squeeze_excite: Option<&'a SqueezeExcite>,
    pub projection: &'a ConvNorm<Pointwise>,
    pub residual: bool,
}

/// The gradient of a convolution that is not the first layer.
pub(super) fn given(gradient: Option<Tensor>) -> candle_core::Result<Tensor> {
    match gradient {
        Some(gradient) => Ok(gradient),
        None => bail!("no input gradient from a layer that is not the first"),
    }
}
