//! Batch norm and activation by themselves.

use candle_core::Tensor;
use kernels::Backend;
use space::{Activation, LayerSpec};

use super::super::batch_norm::BatchNorm;
use super::super::flow::Flow;
use super::super::folding::FoldedNorm;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `act(norm(x))`.
pub(in super::super) struct Norm {
    norm: BatchNorm,
    backend: Backend,
}

impl Norm {
    /// Reads `bn.*`, `[C]`.
    pub fn new(activation: Activation, spec: &LayerSpec, source: &Source) -> Result<Self> {
        let norm = BatchNorm::new(spec.input.channels, activation, &source.pp("bn"))?;
        Ok(Self { norm, backend: source.backend().for_layer("batch norm") })
    }
}

impl Layer for Norm {
    /// `[C, N, H, W]` in and out.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let x = only(inputs);
        // a pass that saves nothing writes over its input, which others may read
        let x = if pass.forgets() { self.backend.duplicate(x)? } else { x.clone() };
        self.norm.forward(x, None, pass)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        Ok(InputGradients::One(Some(self.norm.backward(dy, tape)?)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(only(inputs).clone())
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(FoldedNorm::new(&self.norm)?))
    }
}

impl FoldedLayer for FoldedNorm {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        self.maps(only(inputs), backend)
    }
}

/// The memory of passes over the batch norm.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let output = spec.output.len();
    Held {
        keeps_input: true,
        statistics: 2 * spec.output.channels,
        forward: output,
        backward: 2 * output,
        forgetting: output,
        ..Held::default()
    }
}

#[cfg(test)]
mod tests {
    use space::Activation;

    use crate::nn::testing::check;

    #[test]
    fn it_is_a_batch_norm_and_an_activation() {
        check("norm 3 relu @4x3", |naive, x| naive.norm(&x[0], "bn", Activation::Relu));
        check("norm 2 none @3x3", |naive, x| naive.norm(&x[0], "bn", Activation::None));
    }
}
