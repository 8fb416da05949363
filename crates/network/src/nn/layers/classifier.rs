//! The linear layer with bias, after dropout in training.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::super::folding::Product;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::linear::Linear;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer, only};
use crate::error::Result;

/// `W (mask x) + b`.
pub(in super::super) struct Classifier {
    linear: Linear,
    backend: Backend,
}

impl Classifier {
    /// Asks for `linear.weight`, `[O, I]`, and `linear.bias`, `[O]`.
    pub fn new(spec: &LayerSpec, source: &Source) -> Result<Self> {
        let within = source.pp("linear").for_layer("linear");
        let linear = Linear::new(spec.input.channels, spec.output.channels, &within)?;
        Ok(Self { linear, backend: source.backend().for_layer("pool") })
    }
}

impl Layer for Classifier {
    /// `[C, N, 1, 1] -> [classes, N, 1, 1]`.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let mask = if let Pass::Training(tape) = &*pass { tape.dropout() } else { None };
        let features = match mask {
            Some(mask) => self.backend.scale(only(inputs), mask)?,
            None => only(inputs).clone(),
        };
        Ok(self.linear.forward(&features.flatten_from(1)?, pass)?.unsqueeze(2)?.unsqueeze(3)?)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let d = self.linear.backward(&dy.flatten_from(1)?, tape)?; // [C, N]
        let d = d.unsqueeze(2)?.unsqueeze(3)?;
        Ok(InputGradients::One(Some(match tape.dropout() {
            Some(mask) => self.backend.scale(&d, mask)?,
            None => d,
        })))
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Product::linear(&self.linear, backend)?))
    }
}

/// What passes over it hold: the product before the bias, dropout's mask, and what dropout leaves of the input, are kept.
pub(super) fn held(spec: &LayerSpec) -> Held {
    let input = spec.input.len();
    let output = spec.output.len();
    Held {
        inner: input + output,
        forward: output,
        backward: 2 * (input + output),
        forgetting: input + 2 * output,
        ..Held::default()
    }
}
