//! Max pooling over 3 x 3, padding 1.

use candle_core::Tensor;
use kernels::Backend;

use super::super::flow::Flow;
use super::super::graph::InputGradients;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// Max pooling; of equal values the first counts.
pub(in super::super) struct MaxPool {
    stride: usize,
    backend: Backend,
}

impl MaxPool {
    pub fn new(stride: usize, source: &Source) -> Self {
        Self { stride, backend: source.backend().for_layer("pool") }
    }
}

impl Layer for MaxPool {
    /// `[C, N, H, W] -> [C, N, H/s, W/s]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        pass.save(only(inputs));
        Ok(self.backend.max_pool(only(inputs), self.stride)?)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let dx = self.backend.max_pool_backward(&tape.pop()?, self.stride, &dy)?;
        Ok(InputGradients::One(Some(dx)))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(only(inputs).max_pooled(self.stride))
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Folded { stride: self.stride }))
    }
}

struct Folded {
    stride: usize,
}

impl FoldedLayer for Folded {
    fn forward(&self, inputs: &[&Tensor], backend: &Backend) -> Result<Tensor> {
        Ok(backend.max_pool(only(inputs), self.stride)?)
    }
}

#[cfg(test)]
mod tests {
    use crate::nn::testing::{check, source, tensor, values};

    use super::*;

    #[test]
    fn it_is_the_greatest_of_each_window() {
        check("maxpool 3 @6x4", |_, x| x[0].max_pool(2));
        check("maxpool 2 @5x7", |_, x| x[0].max_pool(2));
        check("maxpool s1 2 @4x5", |_, x| x[0].max_pool(1));
    }

    #[test]
    fn of_equal_values_the_first_gets_the_gradient() {
        let pool = MaxPool::new(2, &source(&[]));
        let x = tensor(&[1, 1, 2, 2], &[5.0; 4]);
        let mut tape = Tape::new();
        pool.forward(&[&x], &mut Pass::Training(&mut tape)).expect("maps");
        let dx = match pool.backward(tensor(&[1, 1, 1, 1], &[3.0]), &mut tape).expect("a tape") {
            InputGradients::One(Some(dx)) => values(&dx),
            _ => panic!("it has one input"),
        };
        assert_eq!(dx, [3.0, 0.0, 0.0, 0.0]);
    }
}
