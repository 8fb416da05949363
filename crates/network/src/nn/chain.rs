//! The channel-by-channel part of a block: its depthwise convolution and the batch norms around it.

use candle_core::Tensor;
use kernels::{Backend, ChainKept, ChainOutputGradient, DepthwiseChain, ExciteBackward, Window};
use space::Activation;

use super::batch_norm::BatchNorm;
use super::flow::Flow;
use super::parameter::there;
use super::pass::{Pass, Tape};
use super::source::Source;
use crate::error::Result;

/// Batch norm and activation of the expansion, depthwise convolution with padding k/2, batch norm and activation.
pub struct ChainLayer {
    before: Option<BatchNorm>,
    after: BatchNorm,
    chain: DepthwiseChain,
    /// The chain with gradients in place of weights.
    gradient: Option<DepthwiseChain>,
    backend: Backend,
}

/// Settings of a block's depthwise convolution.
pub struct Depthwise {
    /// Channels.
    pub channels: usize,
    /// Kernel and stride.
    pub window: Window,
    /// Activation after each batch norm.
    pub activation: Activation,
    /// Whether the means of the output's maps are computed.
    pub with_means: bool,
}

/// The gradient through squeeze-and-excite: its factors, and the gradient of the means that it read, `[C, N]` each.
pub struct Excited {
    /// The factor of each map.
    pub factor: Tensor,
    /// Gradient of each map's mean.
    pub dmean: Tensor,
}

impl ChainLayer {
    /// Reads `conv.weight`, `[C, 1, k, k]`, and `bn.*` from `source`, and from `before` the `bn.*` of the layer that makes the
    /// input, where its batch norm is computed here.
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
        if let (Pass::Codes(_), Some(before)) = (&*pass, &self.before) {
            before.forward(self.backend.duplicate(x)?, None, pass)?;
        }
        let (y, before, after) = self.backend.chain_forgetting(&self.chain, x, given)?;
        if let Pass::Calibration(seen) = pass {
            for (norm, statistics) in [(self.before.as_ref(), before), (Some(&self.after), Some(after))] {
                if let (Some(norm), Some(statistics)) = (norm, statistics) {
                    seen.insert(norm.name().to_string(), statistics);
                }
            }
        }
        pass.see(&y, self.chain.after.activation)?;
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

    /// Adds the weights' gradients; returns the input's. `dy` is the gradient of the output, or, where squeeze-and-excite
    /// follows, of its output.
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

    /// The flow of paths through the depthwise convolution.
    ///
    /// # Errors
    /// If the weight cannot be read.
    pub fn flow(&self, x: &Flow) -> Result<Flow> {
        x.convolved(&self.chain.weight, self.chain.stride)
    }

    /// The batch norm before, the chain, and the batch norm after.
    pub(super) fn parts(&self) -> (Option<&BatchNorm>, &DepthwiseChain, &BatchNorm) {
        (self.before.as_ref(), &self.chain, &self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::testing::{Maps, Naive, assert_close, noise, values};
    use crate::nn::{MapSource, Statistics};

    const CHANNELS: usize = 3;

    /// Weights of a chain below `x.a` (what makes the input) and `x.b`, without those whose name ends with `left_out`.
    fn tensors(left_out: &str) -> std::collections::BTreeMap<String, Tensor> {
        let mut tensors = std::collections::BTreeMap::new();
        for norm in ["x.a.bn", "x.b.bn"] {
            for part in ["weight", "bias", "running_mean", "running_var"] {
                let name = format!("{norm}.{part}");
                tensors.insert(name.clone(), noise(&name, &[CHANNELS], 0.3, 1.0));
            }
        }
        tensors.insert("x.b.conv.weight".to_string(), noise("filters", &[CHANNELS, 1, 3, 3], 1.0, 0.0));
        tensors.retain(|name, _| !name.ends_with(left_out));
        tensors
    }

    fn chain(left_out: &str, backend: &Backend) -> ChainLayer {
        let source = Source::new(MapSource::builder(tensors(left_out)), backend, crate::nn::testing::EPSILON);
        let source = source.pp("x");
        let window = Window { kernel: 3, stride: 2 };
        let depthwise =
            Depthwise { channels: CHANNELS, window, activation: Activation::HSwish, with_means: true };
        ChainLayer::new(&depthwise, Some(&source.pp("a")), &source.pp("b")).expect("its weights")
    }

    fn x() -> Tensor {
        noise("maps", &[CHANNELS, 2, 5, 4], 1.5, 0.2)
    }

    #[test]
    fn it_is_what_its_parts_compute_one_after_the_other() {
        let naive = Naive::new("x", &tensors("none"));
        for backend in [Backend::detect(), Backend::reference()] {
            let mut seen = Statistics::new();
            for (mut pass, naive) in [
                (Pass::Inference, naive.clone()),
                (Pass::BatchStatistics, naive.clone().with_batch_statistics()),
                (Pass::Calibration(&mut seen), naive.clone().with_batch_statistics()),
                (Pass::Training(&mut Tape::new()), naive.clone().with_batch_statistics()),
            ] {
                let (y, means) = chain("none", &backend).forward(&x(), &mut pass).expect("fitting shapes");
                let expanded = naive.norm(&Maps::of(&x()), "a.bn", Activation::HSwish);
                let expected = naive.conv_norm(&expanded, "b", 2, Activation::HSwish);
                assert_eq!(y.dims(), expected.shape);
                assert_close("output", &values(&y), &expected.values, 1e-5);
                let means = means.expect("they are requested");
                assert_close("means", &values(&means), &expected.mean().values, 1e-5);
            }
            // the first batch norm's are those of the input
            assert_eq!(seen.keys().collect::<Vec<_>>(), ["x.a.bn", "x.b.bn"]);
            let mean = values(&x().get(0).expect("a channel")).iter().sum::<f32>() / 40.0;
            assert!((values(&seen["x.a.bn"])[0] - mean).abs() < 1e-5);
        }
    }

    #[test]
    fn without_running_statistics_there_is_no_inference() {
        for norm in ["x.a.bn", "x.b.bn"] {
            let chain = chain(&format!("{norm}.running_var"), &Backend::detect());
            let error = chain.forward(&x(), &mut Pass::Inference).expect_err("uncalibrated").to_string();
            assert!(error.starts_with(&format!("{norm}: no running statistics")), "{error}");
        }
    }
}
