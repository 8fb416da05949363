//! The inverted residual block (Sandler et al. 2018; Howard et al. 2019).

use candle_core::{Tensor, bail};

use super::conv::{ConvNorm, Depthwise, Pointwise};
use super::pass::{Pass, Tape};
use super::source::Source;
use super::squeeze_excite::SqueezeExcite;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::space::{self, Activation, LayerSpec};

/// `x (+) projection(squeeze_excite(depthwise(expansion(x))))`.
pub struct MbConv {
    expansion: Option<ConvNorm<Pointwise>>,
    depthwise: ConvNorm<Depthwise>,
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
        let (input, output) = (layer.input.channels, layer.output.channels);
        let (mid, act) = (block.mid, block.activation);
        let expansion =
            block.expansion.then(|| ConvNorm::pointwise(input, mid, act, &source.pp("inverted_bottleneck")));
        let inner = source.pp("depth_conv");
        let depthwise = Depthwise::new(mid, block.kernel, block.stride, &inner.pp("conv"))?;
        let squeeze_excite = block.squeeze.map(|squeeze| SqueezeExcite::new(mid, squeeze, &inner.pp("se")));
        Ok(Self {
            expansion: expansion.transpose()?,
            depthwise: ConvNorm::new(depthwise, mid, act, &inner)?,
            squeeze_excite: squeeze_excite.transpose()?,
            projection: ConvNorm::pointwise(mid, output, Activation::None, &source.pp("point_linear"))?,
            residual: block.residual,
            kernels: source.kernels(),
        })
    }

    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let expanded = match &self.expansion {
            Some(expansion) => &expansion.forward(x, pass)?, // [mid, N, H, W]
            None => x,
        };
        let mut inner = self.depthwise.forward(expanded, pass)?; // [mid, N, H/s, W/s]
        if let Some(squeeze_excite) = &self.squeeze_excite {
            inner = squeeze_excite.forward(inner, pass)?;
        }
        let y = self.projection.forward(&inner, pass)?; // [C', N, H/s, W/s]
        if self.residual {
            self.kernels.add_assign(&y, x)?;
        }
        Ok(y)
    }

    /// Adds to `gradient`; returns the input's gradient.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, tape: &mut Tape, gradient: &Self) -> Result<Tensor> {
        let mut d = given(self.projection.backward(dy, tape, &gradient.projection)?)?;
        if let (Some(squeeze_excite), Some(gradient)) = (&self.squeeze_excite, &gradient.squeeze_excite) {
            d = squeeze_excite.backward(&d, tape, gradient)?;
        }
        d = given(self.depthwise.backward(&d, tape, &gradient.depthwise)?)?;
        if let (Some(expansion), Some(gradient)) = (&self.expansion, &gradient.expansion) {
            d = given(expansion.backward(&d, tape, gradient)?)?;
        }
        if self.residual {
            self.kernels.add_assign(&d, dy)?;
        }
        Ok(d)
    }
}

/// The gradient of a convolution that is not the first layer.
pub(super) fn given(gradient: Option<Tensor>) -> candle_core::Result<Tensor> {
    match gradient {
        Some(gradient) => Ok(gradient),
        None => bail!("no input gradient from a layer that is not the first"),
    }
}
