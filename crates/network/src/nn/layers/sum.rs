//! The sum of several layers' outputs: where paths meet.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::super::flow::Flow;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer};
use crate::error::Result;

/// `x + y + …`, added in the order of the inputs.
pub(in super::super) struct Sum(Backend);

impl Sum {
    pub fn new(source: &Source) -> Self {
        Self(source.backend().for_layer("sum"))
    }
}

impl Layer for Sum {
    /// `[C, N, H, W]` in and out.
    fn forward(&self, inputs: &[&Tensor], _: &mut Pass) -> Result<Tensor> {
        Ok(self.0.sum(inputs)?)
    }

    fn backward(&self, dy: Tensor, _: &mut Tape) -> Result<InputGradients> {
        Ok(InputGradients::Same(dy))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(Flow::sum(inputs))
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded))
    }
}

struct Folded;

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        Ok(backend.sum(inputs)?)
    }
}

/// The memory of passes over a sum: its output, and a gradient for each of its inputs.
pub(super) fn held(of: usize, spec: &LayerSpec) -> Held {
    let output = spec.output.len();
    Held { forward: output, backward: of * output, forgetting: output, ..Held::default() }
}

#[cfg(test)]
mod tests {
    use crate::nn::testing::check;

    #[test]
    fn it_adds_all_its_inputs() {
        check("sum2 3 @2x3", |_, x| x[0].plus(&x[1]));
        check("sum4 2 @3x3", |_, x| x[0].plus(&x[1]).plus(&x[2]).plus(&x[3]));
    }
}
