//! Zeros in place of a map.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::super::flow::Flow;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// Zeros of the input's size, whatever it is.
pub(in super::super) struct Zero;

fn zeros_like(x: &Tensor) -> Result<Tensor> {
    Ok(Tensor::zeros(x.shape(), x.dtype(), x.device())?)
}

impl Layer for Zero {
    /// `[C, N, H, W]` in and out.
    fn forward(&self, inputs: &[&Tensor], _: &mut Pass) -> Result<Tensor> {
        zeros_like(only(inputs))
    }

    fn backward(&self, dy: Tensor, _: &mut Tape) -> Result<InputGradients> {
        Ok(InputGradients::One(Some(zeros_like(&dy)?)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(only(inputs).none())
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Self))
    }
}

impl FoldedLayer for Zero {
    fn forward(&self, inputs: &[&Tensor], _: &Backend) -> Result<Tensor> {
        zeros_like(only(inputs))
    }
}

/// The memory of passes over zeros.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let output = spec.output.len();
    Held { forward: output, backward: 2 * output, forgetting: output, ..Held::default() }
}

#[cfg(test)]
mod tests {
    use crate::nn::testing::check;

    #[test]
    fn it_is_zero_and_has_no_slope() {
        check("zero 3 @2x4", |_, x| x[0].plus(&x[0].times(-1.0)));
    }
}
