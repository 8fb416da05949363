//! The mean over each map.

use candle_core::Tensor;
use kernels::Backend;

use super::super::flow::Flow;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// Global average pooling.
pub(in super::super) struct Pool(Backend);

impl Pool {
    pub fn new(source: &Source) -> Self {
        Self(source.backend().for_layer("pool"))
    }
}

impl Layer for Pool {
    /// `[C, N, H, W] -> [C, N, 1, 1]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        pass.save(only(inputs));
        mean(only(inputs), &self.0)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let (_, _, height, width) = tape.pop()?.dims4()?;
        Ok(InputGradients::One(Some(self.0.mean_backward(&dy.flatten_from(1)?, height, width)?)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(only(inputs).mean())
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded))
    }
}

fn mean(x: &Tensor, backend: &Backend) -> Result<Tensor> {
    Ok(backend.mean(x)?.unsqueeze(2)?.unsqueeze(3)?)
}

struct Folded;

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        mean(only(inputs), backend)
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::testing::check;

    #[test]
    fn it_is_the_mean_of_each_map() {
        check("pool 3 @4x5", |_, x| x[0].mean());
    }
}
