//! The greatest of 3 x 3, stride 2, padding 1.

use candle_core::Tensor;
use kernels::Backend;

use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// Max pooling; of equal values the first counts.
pub(in super::super) struct MaxPool(Backend);

impl MaxPool {
    pub fn new(source: &Source) -> Self {
        Self(source.backend().for_layer("pool"))
    }
}

impl Layer for MaxPool {
    /// `[C, N, H, W] -> [C, N, H/2, W/2]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        pass.save(only(inputs));
        Ok(self.0.max_pool(only(inputs))?)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        Ok(InputGradients::One(Some(self.0.max_pool_backward(&tape.pop()?, &dy)?)))
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded))
    }
}

struct Folded;

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        Ok(backend.max_pool(only(inputs))?)
    }
}
