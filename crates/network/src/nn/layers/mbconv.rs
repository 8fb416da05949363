//! The inverted residual block (Sandler et al. 2018; Howard et al. 2019).

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::{Activation, LayerSpec};

use super::super::chain::{ChainLayer, Depthwise};
use super::super::conv::{ConvNorm, Convolution, Pointwise, given};
use super::super::flow::Flow;
use super::super::folding::{FoldedDepthwise, Product};
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::super::squeeze_excite::SqueezeExcite;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `x (+) projection(squeeze_excite(depthwise(expansion(x))))`.
pub(in super::super) struct MbConv {
    expansion: Option<Pointwise>,
    inner: ChainLayer,
    squeeze_excite: Option<SqueezeExcite>,
    projection: ConvNorm<Pointwise>,
    residual: bool,
    backend: Backend,
}

impl MbConv {
    /// Reads `conv.inverted_bottleneck.*`, `conv.depth_conv.*` and `conv.point_linear.*`.
    pub fn new(block: &space::MbConv, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let source = source.pp("conv");
        let input = spec.input.channels;
        let output = spec.output.channels;
        let mid = block.mid;
        let depthwise = Depthwise {
            channels: mid,
            window: Window { kernel: block.kernel, stride: block.stride },
            activation: block.activation,
            with_means: block.squeeze.is_some(),
        };
        let before = block.expansion.then(|| source.pp("inverted_bottleneck"));
        Ok(Self {
            expansion: block
                .expansion
                .then(|| Pointwise::new(input, mid, &source.pp("inverted_bottleneck").pp("conv")))
                .transpose()?,
            inner: ChainLayer::new(&depthwise, before.as_ref(), &source.pp("depth_conv"))?,
            squeeze_excite: block
                .squeeze
                .map(|squeeze| SqueezeExcite::new(mid, squeeze, &source.pp("depth_conv").pp("se")))
                .transpose()?,
            projection: ConvNorm::pointwise(mid, output, Activation::None, &source.pp("point_linear"))?,
            residual: block.residual,
            backend: source.backend().for_layer("residual"),
        })
    }

    /// The gradient of the projection's input, taken back through squeeze-and-excite and the depthwise convolution.
    fn backward_inner(&self, d: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let excited = match &self.squeeze_excite {
            Some(squeeze_excite) => Some(squeeze_excite.backward(d, tape)?),
            None => None,
        };
        self.inner.backward(d, excited.as_ref(), tape)
    }
}

impl Layer for MbConv {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let x = only(inputs);
        let (mut inner, means) = match &self.expansion {
            Some(expansion) => self.inner.forward(&expansion.forward(x, pass)?, pass)?, // [mid, N, H/s, W/s]
            None => self.inner.forward(x, pass)?,
        };
        if let (Some(squeeze_excite), Some(means)) = (&self.squeeze_excite, means) {
            inner = squeeze_excite.forward(inner, &means, pass)?;
        }
        self.projection.forward(&inner, self.residual.then_some(x), pass) // [C', N, H/s, W/s]
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let d = given(self.projection.backward_keeping(&dy, tape)?)?;
        let d = self.backward_inner(&d, tape)?;
        let dx = match &self.expansion {
            Some(expansion) if self.residual => {
                expansion.backward_adding(&d, tape, &dy)?;
                dy
            }
            Some(expansion) => given(expansion.backward(&d, tape)?)?,
            None if self.residual => {
                self.backend.add_assign(&dy, &d)?;
                dy
            }
            None => d,
        };
        Ok(InputGradients::One(Some(dx)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        let x = only(inputs);
        let expanded = self.expansion.as_ref().map(|expansion| expansion.flow(x)).transpose()?;
        let y = self.projection.flow(&self.inner.flow(expanded.as_ref().unwrap_or(x))?)?;
        Ok(if self.residual { Flow::sum(&[&y, x]) } else { y })
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded::new(self, backend)?))
    }
}

/// A block for inference alone.
struct Folded {
    expansion: Option<Product>,
    depthwise: FoldedDepthwise,
    squeeze_excite: Option<[Product; 2]>,
    projection: Product,
    residual: bool,
}

impl Folded {
    fn new(block: &MbConv, backend: &Backend) -> Result<Self> {
        let (before, ..) = block.inner.parts();
        let expansion = match (&block.expansion, before) {
            (Some(convolution), Some(norm)) => Some(Product::folded(convolution.weight(), norm, backend)?),
            _ => None,
        };
        let squeeze_excite = match &block.squeeze_excite {
            Some(squeeze_excite) => {
                let [reduce, expand] = squeeze_excite.parts();
                Some([Product::linear(reduce, backend)?, Product::linear(expand, backend)?])
            }
            None => None,
        };
        Ok(Self {
            expansion,
            depthwise: FoldedDepthwise::new(&block.inner, backend)?,
            squeeze_excite,
            projection: Product::pointwise(&block.projection, backend)?,
            residual: block.residual,
        })
    }
}

impl FoldedLayer for Folded {
    /// `[C, N, H, W] -> [C', N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        let x = only(inputs);
        let expanded = match &self.expansion {
            Some(expansion) => &expansion.maps(x, backend)?, // [mid, N, H, W]
            None => x,
        };
        let inner = self.depthwise.maps(expanded, backend)?; // [mid, N, H/s, W/s]
        if let Some([reduce, expand]) = &self.squeeze_excite {
            let hidden = reduce.features(&backend.mean(&inner)?, backend)?; // [squeeze, N]
            backend.scale_in_place(&inner, &expand.features(&hidden, backend)?)?;
        }
        let y = self.projection.maps(&inner, backend)?; // [C', N, H/s, W/s]
        if self.residual {
            backend.add_assign(&y, x)?;
        }
        Ok(y)
    }
}

/// The memory of passes over a block.
pub(super) fn held(block: &space::MbConv, spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    let mid_in = block.mid * spec.input.plane();
    let mid_out = block.mid * spec.output.plane();
    let expanded = if block.expansion { mid_in } else { 0 };
    // means, both products, the factors, and the scaled maps
    let excited = block.squeeze.map_or(0, |squeeze| 3 * block.mid + 2 * squeeze + mid_out);
    let inner = expanded + 2 * mid_out + excited + output;
    let norms = if block.expansion { 2 } else { 1 };
    // the gradients of output and inner maps wait for the end
    let waiting = output + mid_out;
    let past = if block.residual { 0 } else { input };
    let chain_dx = if block.expansion { mid_in } else { input };
    Held {
        inner,
        keeps_input: true,
        statistics: 2 * (norms * block.mid + spec.output.channels),
        forward: output,
        backward: (input + inner + waiting)
            .max(input + expanded + mid_out + waiting + chain_dx)
            .max(input + waiting + chain_dx + past),
        forgetting: mid_out + expanded.max(output),
        patches: 0,
        scratch: spec.input.plane() + spec.output.plane(),
    }
}

#[cfg(test)]
mod tests {
    use space::Activation::{self, HSigmoid, HSwish, Relu};

    use crate::nn::testing::{Maps, Naive, check};

    /// Expansion, depthwise convolution, squeeze-and-excite and projection, those that the block has.
    fn block(naive: &Naive, x: &Maps, stride: usize, activation: Activation) -> Maps {
        let has = |part: &str| naive.has(&format!("conv.{part}.weight"));
        let mut y = x.clone();
        if has("inverted_bottleneck.conv") {
            y = naive.conv_norm(&y, "conv.inverted_bottleneck", 1, activation);
        }
        y = naive.conv_norm(&y, "conv.depth_conv", stride, activation);
        if has("depth_conv.se.fc.reduce") {
            let hidden = naive.linear(&y.mean(), "conv.depth_conv.se.fc.reduce").activated(Relu);
            let factor = naive.linear(&hidden, "conv.depth_conv.se.fc.expand").activated(HSigmoid);
            y = y.scaled(&factor);
        }
        naive.conv_norm(&y, "conv.point_linear", 1, Activation::None)
    }

    #[test]
    fn each_form_of_the_block_is_what_its_key_says() {
        check("mbconv k3 s1 3-6-4 relu @4x3", |naive, x| block(naive, &x[0], 1, Relu));
        check("mbconv k5 s2 3-6-4 h_swish se3 @5x4", |naive, x| block(naive, &x[0], 2, HSwish));
        check("mbconv k3 s1 4-4-3 relu e1 @3x4", |naive, x| block(naive, &x[0], 1, Relu));
    }

    #[test]
    fn a_residual_one_adds_its_input() {
        for key in [
            "mbconv k3 s1 3-6-3 h_swish skip @4x3",
            "mbconv k5 s1 3-6-3 h_swish se2 skip @3x4",
            "mbconv k3 s1 4-4-4 h_swish e1 skip @3x3",
            "mbconv k3 s1 4-4-4 h_swish e1 se2 skip @3x3",
        ] {
            check(key, |naive, x| block(naive, &x[0], 1, HSwish).plus(&x[0]));
        }
    }
}
