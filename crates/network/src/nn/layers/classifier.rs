//! The linear layer with bias, after dropout in training.

use candle_core::Tensor;
use kernels::Backend;
use space::LayerSpec;

use super::super::flow::Flow;
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
    /// Reads `linear.weight`, `[O, I]`, and `linear.bias`, `[O]`.
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

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        self.linear.flow(only(inputs))
    }

    fn fold(&self, backend: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Ok(Box::new(Product::linear(&self.linear, backend)?))
    }
}

/// The memory of passes over a classifier: the product before the bias and the input after dropout are saved.
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

#[cfg(test)]
mod tests {
    use crate::nn::testing::{check, source, tensor, values};

    use super::*;

    #[test]
    fn it_is_a_product_with_bias() {
        check("linear 5-3 @1x1", |naive, x| naive.linear(&x[0], "linear"));
    }

    #[test]
    fn dropout_scales_features_and_gradients_in_training_alone() {
        let weight = ("linear.weight", tensor(&[1, 2], &[3.0, 5.0]));
        let bias = ("linear.bias", tensor(&[1], &[0.5]));
        let gradients = [&weight, &bias].map(|(name, _)| (name.to_string(), tensor(&[1], &[0.0])));
        let mut gradients = std::collections::BTreeMap::from(gradients);
        gradients.insert("linear.weight".to_string(), tensor(&[1, 2], &[0.0; 2]));
        let source = source(&[weight, bias]).with_gradients(gradients.clone());
        let spec = "linear 2-1 @1x1".parse().expect("a key");
        let classifier = Classifier::new(&spec, &source).expect("its weights");
        let x = tensor(&[2, 1, 1, 1], &[7.0, 11.0]);
        let mut tape = Tape::with_dropout(tensor(&[2, 1], &[2.0, 0.0]));
        let y = classifier.forward(&[&x], &mut Pass::Training(&mut tape)).expect("features");
        assert_eq!(values(&y), [3.0 * 14.0 + 0.5]);
        let dx = match classifier.backward(tensor(&[1, 1, 1, 1], &[1.0]), &mut tape).expect("a tape") {
            InputGradients::One(Some(dx)) => values(&dx),
            _ => panic!("it has one input"),
        };
        assert_eq!(dx, [6.0, 0.0]);
        assert_eq!(values(&gradients["linear.weight"]), [14.0, 0.0]);
        let y = classifier.forward(&[&x], &mut Pass::Inference).expect("features");
        assert_eq!(values(&y), [21.0 + 55.0 + 0.5]);
    }
}
