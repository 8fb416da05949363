//! Helpers for tests of layers: operators in plain loops on f64, and a comparison with them forward, folded and backward.

mod naive;

use std::collections::BTreeMap;

use base::random::rng_for;
use candle_core::{DType, Device, Tensor};
use kernels::Backend;
use rand::Rng;
use space::{LayerSpec, WeightRole};

use super::graph::InputGradients;
use super::layers::{Layer, layer};
use super::{MapSource, Pass, Source, Tape};
pub(super) use naive::{Maps, Naive};

pub(crate) const EPSILON: f32 = 1e-5;
const IMAGES: usize = 2;

/// A tensor from its values.
pub(crate) fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).expect("sizes agree")
}

/// Values of a tensor in row-major order.
pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
}

/// A source of named tensors, without epsilon in batch norms.
pub(crate) fn source(tensors: &[(&str, Tensor)]) -> Source<'static> {
    let tensors = tensors.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
    Source::new(MapSource::builder(tensors), &Backend::detect(), 0.0)
}

/// Values in [-1, 1) that depend on the name alone, scaled by `scale` and moved by `shift`.
pub(crate) fn noise(name: &str, shape: &[usize], scale: f32, shift: f32) -> Tensor {
    let mut rng = rng_for(name, 1, &[]);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| shift + scale * rng.random_range(-1.0..1.0)).collect();
    tensor(shape, &values)
}

/// A chain of layers, by their keys.
pub(crate) fn chain(keys: &[&str]) -> Vec<LayerSpec> {
    let layers = keys.iter().map(|key| key.parse().expect("a key")).collect();
    LayerSpec::chain(layers).expect("they fit one another")
}

/// Weights of layers, running statistics included, none of which is 0, 1 or equal to another.
pub(crate) fn weights(layers: &[LayerSpec]) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for spec in layers.iter().flat_map(LayerSpec::weights) {
        let fan_in: usize = spec.shape[1..].iter().product();
        let value = match spec.role {
            WeightRole::NormScale(_) => noise(&spec.name, &spec.shape, 0.3, 1.0),
            WeightRole::NormShift(_) | WeightRole::Bias => noise(&spec.name, &spec.shape, 0.3, 0.0),
            _ => noise(&spec.name, &spec.shape, (3.0 / fan_in as f32).sqrt(), 0.0),
        };
        if let Some(norm) = spec.batch_norm() {
            for (name, scale, shift) in [("running_mean", 0.2, 0.0), ("running_var", 0.5, 1.0)] {
                let name = format!("{norm}.{name}");
                tensors.insert(name.clone(), noise(&name, &spec.shape, scale, shift));
            }
        }
        tensors.insert(spec.name, value);
    }
    tensors
}

/// Zeros of the same names and shapes, where gradients are added.
pub(crate) fn zeros_like(tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let mut zeros = BTreeMap::new();
    for (name, tensor) in tensors {
        let zero = Tensor::zeros(tensor.dims(), DType::F32, &Device::Cpu).expect("a small tensor");
        zeros.insert(name.clone(), zero);
    }
    zeros
}

/// Compares relative to the largest expected value.
pub(crate) fn assert_close(what: &str, got: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(got) - expected).abs();
        assert!(
            off <= tolerance * largest + 1e-6,
            "{what}[{index}]: {got} not {expected} ({largest} at most)"
        );
    }
}

/// Compares the layer of a key with its definition: with running statistics and with the batch's, folded, and its gradients
/// with the definition's central differences.
pub(super) fn check(key: &str, definition: impl Fn(&Naive, &[Maps]) -> Maps) {
    for backend in [Backend::detect(), Backend::reference()] {
        let case = Case::new(key, backend);
        case.check_forward(&definition);
        case.check_backward(&definition);
    }
}

/// A layer, its weights and its inputs.
struct Case {
    spec: LayerSpec,
    weights: BTreeMap<String, Tensor>,
    inputs: Vec<Tensor>,
    backend: Backend,
}

impl Case {
    fn new(key: &str, backend: Backend) -> Self {
        let spec: LayerSpec = key.parse().expect("a key");
        let shape = [spec.input.channels, IMAGES, spec.input.height, spec.input.width];
        let inputs = (0..spec.inputs.len()).map(|index| noise(&format!("input {index}"), &shape, 1.5, 0.1));
        Self { weights: weights(std::slice::from_ref(&spec)), inputs: inputs.collect(), spec, backend }
    }

    fn source(&self) -> Source<'static> {
        Source::new(MapSource::builder(self.weights.clone()), &self.backend, EPSILON)
    }

    fn forward(&self, layer: &dyn Layer, pass: &mut Pass) -> Tensor {
        layer.forward(&self.inputs.iter().collect::<Vec<_>>(), pass).expect("fitting shapes")
    }

    fn naive(&self) -> Naive {
        Naive::new(&self.spec.name, &self.weights)
    }

    fn maps(&self) -> Vec<Maps> {
        self.inputs.iter().map(Maps::of).collect()
    }

    fn check_forward(&self, definition: &impl Fn(&Naive, &[Maps]) -> Maps) {
        let layer = layer(&self.spec, &self.source()).expect("all weights");
        let inputs = self.maps();
        let deployed = definition(&self.naive(), &inputs);
        let output = &self.spec.output;
        assert_eq!(deployed.shape, [output.channels, IMAGES, output.height, output.width], "{}", self.spec);
        let refs: Vec<&Tensor> = self.inputs.iter().collect();
        let folded = layer.fold(&self.backend).and_then(|folded| folded.forward(&refs, &self.backend));
        let in_training = definition(&self.naive().with_batch_statistics(), &inputs);
        for (what, got, expected) in [
            ("inference", self.forward(&*layer, &mut Pass::Inference), &deployed),
            ("folded", folded.expect("running statistics"), &deployed),
            ("of the batch", self.forward(&*layer, &mut Pass::BatchStatistics), &in_training),
            ("training", self.forward(&*layer, &mut Pass::Training(&mut Tape::new())), &in_training),
        ] {
            assert_eq!(got.dims(), expected.shape, "{}, {what}", self.spec);
            assert_close(&format!("{}, {what}", self.spec), &values(&got), &expected.values, 1e-5);
        }
        assert_eq!(self.maps(), inputs, "{}: inputs are not written over", self.spec);
    }

    /// Two passes in a row: gradients of weights are added.
    fn check_backward(&self, definition: &impl Fn(&Naive, &[Maps]) -> Maps) {
        let gradients = zeros_like(&self.weights);
        let layer = layer(&self.spec, &self.source().with_gradients(gradients.clone())).expect("all weights");
        let mut of_inputs = Vec::new();
        let mut upstream = Maps::default();
        for _ in 0..2 {
            let mut tape = Tape::new();
            let y = self.forward(&*layer, &mut Pass::Training(&mut tape));
            let dy = noise("gradient", y.dims(), 1.0, 0.0);
            upstream = Maps::of(&dy);
            of_inputs = match layer.backward(dy, &mut tape).expect("a tape of this pass") {
                InputGradients::One(None) => Vec::new(),
                InputGradients::One(Some(gradient)) => vec![values(&gradient)],
                InputGradients::Same(gradient) => vec![values(&gradient); self.inputs.len()],
                InputGradients::Each(gradients) => gradients.iter().map(values).collect(),
            };
            assert!(tape.saved().is_empty(), "{}: all that was kept is read", self.spec);
        }
        // only the image itself has no gradient
        let expected = if self.spec.to_string().starts_with("stem ") { 0 } else { self.inputs.len() };
        assert_eq!(of_inputs.len(), expected, "{}: a gradient for each input", self.spec);
        let naive = self.naive().with_batch_statistics();
        let inputs = self.maps();
        for (index, got) in of_inputs.iter().enumerate() {
            let expected = slopes(&inputs[index].values, |moved| {
                let mut inputs = inputs.clone();
                inputs[index].values = moved;
                definition(&naive, &inputs).dot(&upstream)
            });
            assert_close(&format!("{}, gradient of input {index}", self.spec), got, &expected, 2e-4);
        }
        for spec in self.spec.weights() {
            let part = &spec.name[self.spec.name.len() + 1..];
            let twice = slopes(&naive.get(part).1, |moved| {
                2.0 * definition(&naive.with(part, moved), &inputs).dot(&upstream)
            });
            let got = values(&gradients[&spec.name]);
            assert_close(&format!("{}, gradient of {part}", self.spec), &got, &twice, 2e-4);
        }
    }
}

/// The central difference along each coordinate.
pub(crate) fn slopes(at: &[f64], value: impl Fn(Vec<f64>) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let moved = |index: usize, step: f64| {
        let mut values = at.to_vec();
        values[index] += step;
        value(values)
    };
    (0..at.len()).map(|index| (moved(index, STEP) - moved(index, -STEP)) / (2.0 * STEP)).collect()
}
