//! Means over windows; places outside of the map are not counted.

use candle_core::Tensor;
use kernels::{Backend, Window};
use space::LayerSpec;

use super::super::flow::Flow;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// The mean of each window.
pub(in super::super) struct AveragePool {
    window: Window,
    /// Height and width of the input.
    extent: [usize; 2],
    backend: Backend,
}

impl AveragePool {
    pub fn new(window: Window, spec: &LayerSpec, source: &Source) -> Self {
        let extent = [spec.input.height, spec.input.width];
        Self { window, extent, backend: source.backend().for_layer("pool") }
    }
}

impl Layer for AveragePool {
    /// `[C, N, H, W] -> [C, N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], _: &mut Pass) -> Result<Tensor> {
        Ok(self.backend.average_pool(only(inputs), self.window)?)
    }

    fn backward(&self, dy: Tensor, _: &mut Tape) -> Result<InputGradients> {
        let [height, width] = self.extent;
        let dx = self.backend.average_pool_backward(&dy, self.window, height, width)?;
        Ok(InputGradients::One(Some(dx)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(only(inputs).average_pooled(self.window.kernel, self.window.stride))
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded(self.window)))
    }
}

struct Folded(Window);

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        Ok(backend.average_pool(only(inputs), self.0)?)
    }
}

/// The memory of passes over the pooling, which saves nothing.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let output = spec.output.len();
    Held { forward: output, backward: spec.input.len() + output, forgetting: output, ..Held::default() }
}

#[cfg(test)]
mod tests {
    use crate::nn::testing::check;

    #[test]
    fn it_is_the_mean_of_what_lies_in_the_map() {
        check("avgpool k3 3 @6x4", |_, x| x[0].average_pool(3, 1));
        check("avgpool k3 s2 2 @5x7", |_, x| x[0].average_pool(3, 2));
        check("avgpool k2 s2 2 @5x4", |_, x| x[0].average_pool(2, 2));
        check("avgpool k5 1 @3x6", |_, x| x[0].average_pool(5, 1));
    }
}
