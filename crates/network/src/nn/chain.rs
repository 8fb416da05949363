//! The inside of a block with a depthwise convolution: what happens to each channel by itself.

use candle_core::Tensor;
use kernels::{Backend, ChainKept, ChainOutputGradient, DepthwiseChain, ExciteBackward, Window};
use space::Activation;

use super::batch_norm::BatchNorm;
use super::parameter::there;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// Batch norm and activation of the expansion, depthwise convolution with padding k/2, batch norm and activation.
pub struct ChainLayer {
    before: Option<BatchNorm>,
    after: BatchNorm,
    chain: DepthwiseChain,
    /// The chain with gradients in the place of weights.
    gradient: Option<DepthwiseChain>,
    backend: Backend,
}

/// The depthwise convolution of a block, and what follows it.
pub struct Depthwise {
    /// Channels.
    pub channels: usize,
    /// Kernel and stride.
    pub window: Window,
    /// Activation after each batch norm.
    pub activation: Activation,
    /// Whether the means of its maps are asked for.
    pub with_means: bool,
}

/// Gradients that reach the inside through squeeze-and-excite: the factors, and the gradient of the means it read,
/// `[C, N]` each.
pub struct Excited {
    /// What each map was scaled by.
    pub factor: Tensor,
    /// Gradient of each map's mean.
    pub dmean: Tensor,
}

impl ChainLayer {
    /// Asks `source` for `conv.weight`, `[C, 1, k, k]`, and `bn.*`; `before` for the `bn.*` of what makes the input, where
    /// that has no batch norm yet.
    ///
    /// # Errors
    /// If a weight is missing or has another shape.
    pub fn new(depthwise: &Depthwise, before: Option<&Source>, source: &Source) -> Result<Self> {
        let &Depthwise { channels, window, activation, with_means } = depthwise;
        let norm = |of: &Source| BatchNorm::new(channels, activation, &of.pp("bn"));
        let before = before.map(norm).transpose()?;
        let after = norm(source)?;
        let shape = (channels, 1, window.kernel, window.kernel);
        let weight = source.pp("conv").get(shape, "weight")?;
        let chain = DepthwiseChain {
            before: before.as_ref().map(|norm| norm.normalization().clone()),
            weight: weight.value().clone(),
            stride: window.stride,
            after: after.normalization().clone(),
            with_means,
        };
        let gradient = match (weight.find_gradient(), after.find_gradient()) {
            (Some(weight), Some(gradient_after)) => Some(DepthwiseChain {
                before: before.as_ref().and_then(BatchNorm::find_gradient).cloned(),
                weight: weight.clone(),
                after: gradient_after.clone(),
                ..chain
            }),
            _ => None,
        };
        Ok(Self { before, after, chain, gradient, backend: source.backend().for_layer("depthwise") })
    }

    /// The output, and the mean of each of its maps, `[C, N]`, where squeeze-and-excite follows.
    ///
    /// # Shapes
    /// `[C, N, H, W] -> [C, N, H/s, W/s]`.
    ///
    /// # Errors
    /// If the shapes do not fit, or at inference without running statistics.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<(Tensor, Option<Tensor>)> {
        let given = match pass {
            Pass::Training(tape) => {
                let (y, means, kept) = self.backend.chain(&self.chain, x)?;
                self.push(x, &kept, tape);
                return Ok((y, means));
            }
            Pass::Inference => {
                let before = self.before.as_ref().map(BatchNorm::running).transpose()?;
                Some((before, self.after.running()?))
            }
            _ => None,
        };
        let (y, before, after) = self.backend.chain_forgetting(&self.chain, x, given)?;
        if let Pass::Calibration(seen) = pass {
            for (norm, statistics) in [(self.before.as_ref(), before), (Some(&self.after), Some(after))] {
                if let (Some(norm), Some(statistics)) = (norm, statistics) {
                    seen.insert(norm.name().to_string(), statistics);
                }
            }
        }
        let means = self.chain.with_means.then(|| self.backend.mean(&y)).transpose()?;
        Ok((y, means))
    }

    fn push(&self, x: &Tensor, kept: &ChainKept, tape: &mut Tape) {
        let ChainKept { before, convolved, after } = kept;
        for tensor in [Some(x), before.as_ref(), Some(convolved), Some(after)].into_iter().flatten() {
            tape.push(tensor);
        }
    }

    fn pop(&self, tape: &mut Tape) -> Result<(Tensor, ChainKept)> {
        let after = tape.pop()?;
        let convolved = tape.pop()?;
        let before = self.before.is_some().then(|| tape.pop()).transpose()?;
        Ok((tape.pop()?, ChainKept { before, convolved, after }))
    }

    /// Adds the weights' gradients; returns the input's. `dy` is that of the output, or, where squeeze-and-excite
    /// follows, that of what came out of it.
    ///
    /// # Errors
    /// If the tape does not fit.
    pub fn backward(&self, dy: &Tensor, excited: Option<&Excited>, tape: &mut Tape) -> Result<Tensor> {
        let (x, kept) = self.pop(tape)?;
        let gradient = there(self.gradient.as_ref())?;
        let excite = excited.map(|Excited { factor, dmean }| ExciteBackward { factor, dmean });
        let output = ChainOutputGradient { dy, excite };
        Ok(self.backend.chain_backward(&self.chain, &x, &kept, &output, gradient)?)
    }

    /// The batch norms before and after, and what lies between them.
    pub(super) fn parts(&self) -> (Option<&BatchNorm>, &DepthwiseChain, &BatchNorm) {
        (self.before.as_ref(), &self.chain, &self.after)
    }
}
