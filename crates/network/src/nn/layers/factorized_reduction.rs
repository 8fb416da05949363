//! Two 1x1 convolutions of stride 2, the second of them one place further, side by side, and a batch norm.

use candle_core::Tensor;
use kernels::Backend;
use space::{Activation, LayerSpec, reduced_parts};

use super::super::batch_norm::BatchNorm;
use super::super::conv::{Convolution, Pointwise, given};
use super::super::flow::Flow;
use super::super::folding::Product;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `norm([W0 * x at even places; W1 * x at odd places])`.
pub(in super::super) struct FactorizedReduction {
    convolutions: [Pointwise; 2],
    norm: BatchNorm,
    /// Height and width of the input.
    extent: [usize; 2],
    backend: Backend,
}

impl FactorizedReduction {
    /// Reads `even.weight`, `odd.weight`, `[O / 2, I, 1, 1]`, and `bn.*`, `[O]`.
    pub fn new(spec: &LayerSpec, source: &Source) -> Result<Self> {
        let [even, odd] = reduced_parts(spec.output.channels);
        let input = spec.input.channels;
        let convolutions = [
            Pointwise::new(input, even, &source.pp("even"))?,
            Pointwise::new(input, odd, &source.pp("odd"))?,
        ];
        let norm = BatchNorm::new(spec.output.channels, Activation::None, &source.pp("bn"))?;
        let extent = [spec.input.height, spec.input.width];
        Ok(Self { convolutions, norm, extent, backend: source.backend().for_layer("reduction") })
    }
}

impl Layer for FactorizedReduction {
    /// `[C, N, H, W] -> [C', N, H/2, W/2]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let x = only(inputs);
        let [even, odd] = &self.convolutions;
        let even = even.forward(&self.backend.sample(x, 0)?, pass)?;
        let odd = odd.forward(&self.backend.sample(x, 1)?, pass)?;
        self.norm.forward(self.backend.join(&even, &odd)?, None, pass)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let dy = self.norm.backward(dy, tape)?;
        let even = reduced_parts(dy.dim(0)?)[0];
        let parts = [dy.narrow(0, 0, even)?, dy.narrow(0, even, dy.dim(0)? - even)?];
        let mut sum: Option<Tensor> = None;
        for (first, convolution) in self.convolutions.iter().enumerate().rev() {
            let d = given(convolution.backward(&parts[first], tape)?)?;
            let d = self.backend.sample_backward(&d, first, self.extent)?;
            match &sum {
                Some(sum) => self.backend.add_assign(sum, &d)?,
                None => sum = Some(d),
            }
        }
        Ok(InputGradients::One(sum))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        let mut parts = Vec::with_capacity(2);
        for (first, convolution) in self.convolutions.iter().enumerate() {
            parts.push(convolution.flow(&only(inputs).sampled(first))?);
        }
        Ok(Flow::stacked(&parts))
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        let weights: Vec<&Tensor> = self.convolutions.iter().map(Pointwise::weight).collect();
        let even = weights[0].dim(0)?;
        Ok(Box::new(Folded(Product::folded_parts(&weights, even, &self.norm, backend)?)))
    }
}

/// The two products, each with its part of the batch norm.
struct Folded([Product; 2]);

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        let [even, odd] = &self.0;
        let even = even.maps(&backend.sample(only(inputs), 0)?, backend)?;
        let odd = odd.maps(&backend.sample(only(inputs), 1)?, backend)?;
        Ok(backend.join(&even, &odd)?)
    }
}

/// The memory of passes over a reduction: the sampled places are saved, not the input.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    let sampled = 2 * spec.input.channels * spec.output.plane();
    Held {
        inner: sampled + output,
        statistics: 2 * spec.output.channels,
        forward: 2 * output,
        // the batch norm's; then a half's gradient, spread, and the sum of both
        backward: sampled + 2 * output + 3 * input,
        forgetting: sampled + 2 * output,
        ..Held::default()
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use crate::nn::testing::check;

    #[test]
    fn it_is_two_convolutions_side_by_side_and_a_batch_norm() {
        for key in ["fredux 3-4 @4x6", "fredux 2-5 @5x7", "fredux 2-2 @1x3"] {
            check(key, |naive, x| {
                let even = naive.conv(&x[0].sampled(0), "even", 1);
                let both = even.beside(&naive.conv(&x[0].sampled(1), "odd", 1));
                naive.norm(&both, "bn", Activation::None)
            });
        }
    }
}
