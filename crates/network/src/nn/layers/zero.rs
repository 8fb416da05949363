//! Zeros in place of a map.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::super::flow::Flow;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// Zeros of the input's size, whatever it is.
pub(in super::super) struct Zero(Backend);

impl Zero {
    pub fn new(source: &Source) -> Self {
        Self(source.backend().for_layer("sum"))
    }
}

fn zeros_like(x: &Tensor, backend: &Backend) -> Result<Tensor> {
    let zeros = backend.duplicate(x)?;
    backend.fill_zero(&zeros)?;
    Ok(zeros)
}

impl Layer for Zero {
    /// `[C, N, H, W]` in and out.
    fn forward(&self, inputs: &[&Tensor], _: &mut Pass) -> Result<Tensor> {
        zeros_like(only(inputs), &self.0)
    }

    fn backward(&self, dy: Tensor, _: &mut Tape) -> Result<InputGradients> {
        self.0.fill_zero(&dy)?;
        Ok(InputGradients::One(Some(dy)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(only(inputs).none())
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded))
    }
}

struct Folded;

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        zeros_like(only(inputs), backend)
    }
}

/// The memory of passes over zeros.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let output = spec.output.len();
    Held { forward: output, backward: output, forgetting: output, ..Held::default() }
}

#[cfg(test)]
mod tests {
    use crate::nn::testing::check;

    #[test]
    fn it_is_zero_and_has_no_slope() {
        check("zero 3 @2x4", |_, x| x[0].plus(&x[0].times(-1.0)));
    }
}
