//! The weighted sum of several layers' outputs: a mixture of operators, as gradient search trains it.

use candle_core::{DType, Tensor};
use kernels::Backend;
use space::LayerSpec;

use super::super::flow::Flow;
use super::super::footprint::Held;
use super::super::graph::InputGradients;
use super::super::parameter::Parameter;
use super::super::pass::{Pass, Tape};
use super::super::source::Source;
use super::{FoldedLayer, Layer};
use crate::error::{Error, Result};

/// `w0 * x0 + w1 * x1 + … + w`. The last weight is that of a map of ones: 0 in every mixture, but its slope, the sum of all
/// slopes, is what an operator that was not run counts as where its output is taken for 1 (Dong and Yang 2019, GDAS).
pub(in super::super) struct WeightedSum {
    weights: Parameter,
    values: Vec<f32>,
    backend: Backend,
}

impl WeightedSum {
    /// Reads `weight`, `[inputs + 1]`.
    pub fn new(of: usize, source: &Source) -> Result<Self> {
        let weights = source.get(of + 1, "weight")?;
        let values = weights.value().to_vec1()?;
        Ok(Self { weights, values, backend: source.backend().for_layer("mixture") })
    }

    /// A map, each of whose values is multiplied by a weight.
    fn scaled(&self, map: &Tensor, weight: f32) -> Result<Tensor> {
        if weight == 1.0 {
            return Ok(self.backend.duplicate(map)?);
        }
        let factor = Tensor::full(weight, &map.dims()[..2], map.device())?;
        Ok(self.backend.scale(map, &self.backend.activations(&factor)?)?)
    }
}

/// The sum of all values of a tensor.
fn total(tensor: &Tensor) -> Result<f64> {
    let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(values.into_iter().map(f64::from).sum())
}

impl Layer for WeightedSum {
    /// `[C, N, H, W]` in and out.
    fn forward(&self, inputs: &[&Tensor], pass: &mut Pass) -> Result<Tensor> {
        let mut terms = Vec::with_capacity(inputs.len());
        for (x, weight) in inputs.iter().zip(&self.values) {
            pass.save(x);
            terms.push(self.scaled(x, *weight)?);
        }
        if terms.len() == 1 {
            return Ok(terms.remove(0));
        }
        Ok(self.backend.sum(&terms.iter().collect::<Vec<_>>())?)
    }

    fn backward(&self, dy: Tensor, tape: &mut Tape) -> Result<InputGradients> {
        let inputs = self.values.len() - 1;
        let mut slopes = vec![0.0; inputs + 1];
        let mut gradients = Vec::with_capacity(inputs);
        for (at, weight) in self.values[..inputs].iter().enumerate().rev() {
            slopes[at] = total(&self.backend.scale_backward_factor(&tape.pop()?, &dy)?)? as f32;
            gradients.push(self.scaled(&dy, *weight)?);
        }
        gradients.reverse();
        slopes[inputs] = total(&dy)? as f32;
        let gradient = self.weights.gradient()?;
        let slopes =
            Tensor::from_vec(slopes, inputs + 1, &candle_core::Device::Cpu)?.to_device(gradient.device())?;
        self.backend.add_assign(gradient, &slopes)?;
        Ok(InputGradients::Each(gradients))
    }

    fn flow(&self, inputs: &[&Flow]) -> Result<Flow> {
        Ok(Flow::sum(inputs))
    }

    fn fold(&self, _: &Backend) -> Result<Box<dyn FoldedLayer>> {
        Err(Error::invalid("layer of a mixture", "inference", "a sub-network", "a mixture of them"))
    }
}

/// The memory of passes over a mixture: all its inputs are saved, and each has a gradient.
pub(super) fn held(of: usize, spec: &LayerSpec) -> Held {
    let output = spec.output.len();
    Held {
        inner: of * output,
        keeps_input: true,
        forward: (of + 1) * output,
        backward: (of + 1) * output,
        forgetting: (of + 1) * output,
        ..Held::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::nn::testing::{tensor, values};
    use crate::nn::{MapSource, Network};

    /// By its definition in plain loops; its slopes by central differences of a sum with given slopes.
    #[test]
    fn it_is_a_weighted_sum_with_its_slopes() {
        let backend = Backend::detect();
        let shape = [2, 3, 2, 2];
        let map =
            |from: usize| -> Vec<f32> { (0..24).map(|i| ((i * 7 + from) % 11) as f32 / 5.0 - 1.0).collect() };
        let maps = [map(1), map(4), map(8)];
        let slopes = map(3);
        let weights = [0.5f32, 0.0, 1.0, 0.0];
        let tensors = BTreeMap::from([("mix.0.weight".to_string(), tensor(&[4], &weights))]);
        let gradient = tensor(&[4], &[0.0; 4]);
        let source = Source::new(MapSource::builder(tensors), &backend, 1e-5)
            .with_gradients(BTreeMap::from([("mix.0.weight".to_string(), gradient.clone())]));
        let layer = WeightedSum::new(3, &source.pp("mix.0")).expect("its weights");
        let inputs: Vec<Tensor> = maps.iter().map(|map| tensor(&shape, map)).collect();
        let mut tape = Tape::new();
        let y =
            layer.forward(&inputs.iter().collect::<Vec<_>>(), &mut Pass::Training(&mut tape)).expect("a sum");
        let expected = |place: usize| -> f32 { (0..3).map(|k| weights[k] * maps[k][place]).sum() };
        for (place, value) in values(&y).into_iter().enumerate() {
            assert!((value - expected(place)).abs() < 1e-6, "{place}: {value}");
        }
        let InputGradients::Each(dx) = layer.backward(tensor(&shape, &slopes), &mut tape).expect("slopes")
        else {
            panic!("one for each input")
        };
        for (k, dx) in dx.iter().enumerate() {
            let expected: Vec<f32> = slopes.iter().map(|slope| weights[k] * slope).collect();
            assert_eq!(values(dx), expected, "input {k}");
        }
        // the sum is linear in its weights
        let of_weight = |k: usize| -> f32 { (0..24).map(|place| slopes[place] * maps[k][place]).sum() };
        let ones: f32 = slopes.iter().sum();
        let found = values(&gradient);
        for (k, expected) in [of_weight(0), of_weight(1), of_weight(2), ones].into_iter().enumerate() {
            assert!((found[k] - expected).abs() < 1e-4, "weight {k}: {} {expected}", found[k]);
        }
        let spec = "mix3 2 @2x2".parse::<LayerSpec>().expect("a key");
        assert_eq!(spec.key(), "mix3 2 @2x2");
        assert!(Network::new(&[spec], &source).is_ok());
    }
}
