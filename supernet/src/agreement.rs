//! Differences between two backends: on layers, whole networks, a training step and an inference.
//!
//! A difference is the length of the difference vector over the length of the expected vector, so that a single
//! rounding at a corner of an activation counts little, and a wrong result is 1 or more.

use std::collections::BTreeMap;

use base::random::rng_for;
use candle_core::{Device, Tensor};
use kernels::Backend;
use network::elastic::{Gradients, SharedWeights, SubnetWeights};
use network::nn::{FoldedNetwork, MapSource, Network, Pass, Source, Statistics, Tape};
use rand::Rng;
use space::{Arch, FeatureMap, LayerSpec, SearchSpace, WeightRole, sampler};

use crate::error::Result;
use crate::train::{Nesterov, Optimizer, Student, Target, dropout_mask};

/// Relative differences, by the name of the compared value.
pub type Differences = Vec<(&'static str, f64)>;

/// Images per network.
const IMAGES: usize = 4;

/// Added to variances.
const EPSILON: f32 = 1e-3;

/// Length of the difference relative to the expected length; infinite if a value is not a number.
pub fn apart(got: &[f32], expected: &[f32]) -> f64 {
    let length = |values: &mut dyn Iterator<Item = f32>| {
        values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    };
    let difference = length(&mut got.iter().zip(expected).map(|(got, expected)| got - expected));
    let relative = difference / length(&mut expected.iter().copied()).max(1e-20);
    if got.len() == expected.len() && relative.is_finite() { relative } else { f64::INFINITY }
}

fn flat(tensor: &Tensor) -> Result<Vec<f32>> {
    // converted to f32 on the CPU: on a GPU that would be a kernel of candle, and only our kernels are compared
    let here = tensor.to_device(&Device::Cpu)?;
    Ok(here.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?)
}

fn random(name: &str, shape: &[usize], range: std::ops::Range<f32>) -> Result<Tensor> {
    let mut rng = rng_for(name, 0, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(range.clone())).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// A single layer with random weights: the differences of its output in training, of its input's gradient if it has
/// one, and of its weights' gradients together.
///
/// # Errors
/// If the kernels refuse such a layer.
pub fn of_layer(layer: &LayerSpec, backend: &Backend, expected: &Backend) -> Result<Differences> {
    of_layers(&[layer.alone()], backend, expected)
}

/// As [`of_layer`], for layers that read one another.
///
/// # Errors
/// If the kernels refuse such layers, or they do not fit one another.
pub fn of_layers(layers: &[LayerSpec], backend: &Backend, expected: &Backend) -> Result<Differences> {
    let got = outputs_of(layers, backend)?;
    let expected = outputs_of(layers, expected)?;
    let what = ["output", "input's gradient", "weights' gradients"];
    let pairs = what.into_iter().zip(got.iter().zip(&expected));
    Ok(pairs.map(|(what, (got, expected))| (what, apart(got, expected))).collect())
}

/// A diamond of layers, and paths past it: a dense convolution, a block and a bottleneck that read it, the sum of
/// both, a 1x1 convolution of the sum, and the sum of that, of the first, and of the diamond.
///
/// # Errors
/// Never: the keys are those of layers.
pub fn diamond() -> Result<Vec<LayerSpec>> {
    let layers: [(&str, &[Option<usize>]); 6] = [
        ("conv k3 4-8 relu @9x6", &[None]),
        ("mbconv k5 s1 8-24-8 h_swish se8 skip @9x6", &[Some(0)]),
        ("bottleneck k3 s1 8-8-8 relu @9x6", &[Some(0)]),
        ("sum2 8 @9x6", &[Some(1), Some(2)]),
        ("conv1x1 8-8 relu @9x6", &[Some(3)]),
        ("sum3 8 @9x6", &[Some(4), Some(0), Some(3)]),
    ];
    let mut diamond = Vec::new();
    for (number, (key, inputs)) in layers.into_iter().enumerate() {
        let name = format!("layers.{number}");
        let inputs = inputs.to_vec();
        diamond.push(LayerSpec { name, slot: Some(number), inputs, ..key.parse::<LayerSpec>()? });
    }
    Ok(diamond)
}

fn outputs_of(layers: &[LayerSpec], backend: &Backend) -> Result<[Vec<f32>; 3]> {
    let (first, last) = match layers {
        [first, .., last] => (first, last),
        [only] => (only, only),
        [] => return Ok(Default::default()),
    };
    let mut weights = BTreeMap::new();
    let mut gradients = BTreeMap::new();
    for spec in layers.iter().flat_map(LayerSpec::weights) {
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let range = match spec.role {
            WeightRole::NormScale(_) => 0.5..1.5,
            WeightRole::NormShift(_) | WeightRole::Bias => -0.5..0.5,
            _ => {
                let bound = (3.0 / fan_in as f32).sqrt();
                -bound..bound
            }
        };
        let zeros = Tensor::zeros(spec.shape.as_slice(), candle_core::DType::F32, &backend.device())?;
        gradients.insert(spec.name.clone(), zeros);
        weights.insert(spec.name.clone(), random(&spec.name, &spec.shape, range)?);
    }
    let source = Source::new(MapSource::builder(weights), backend, EPSILON).with_gradients(gradients.clone());
    let network = Network::new(layers, &source)?;
    let maps = |name, map: &FeatureMap| {
        let maps = random(name, &[map.channels, IMAGES, map.height, map.width], -1.0..1.0)?;
        Ok::<_, crate::Error>(backend.activations(&maps)?)
    };
    let mut tape = Tape::new();
    let y = network.forward_maps(maps("input", &first.input)?, &mut Pass::Training(&mut tape))?;
    let output = flat(&y)?;
    let dx = network.backward_maps(maps("gradient", &last.output)?, &mut tape)?;
    let dx = dx.map_or_else(|| Ok(Vec::new()), |dx| flat(&dx))?;
    let all = gradients.values().map(flat).collect::<Result<Vec<_>>>()?.concat();
    Ok([output, dx, all])
}

/// Results of a step and an inference of one sub-network.
struct Outputs {
    loss: f32,
    deployed: Vec<f32>,
    folded: Vec<f32>,
    statistics: Vec<f32>,
    gradients: Vec<f32>,
    moved: Vec<f32>,
}

/// A sub-network on seeded weights and images: the differences of a step (with a teacher and dropout), of the weights
/// after it, and of inference with statistics gathered after it.
///
/// # Errors
/// If the sub-network is not in the space, or the kernels refuse it.
pub fn of_network(
    space: &SearchSpace,
    arch: &Arch,
    backend: &Backend,
    expected: &Backend,
) -> Result<Differences> {
    let got = outputs(space, arch, backend)?;
    let expected = outputs(space, arch, expected)?;
    Ok(vec![
        ("loss", f64::from((got.loss - expected.loss).abs() / expected.loss)),
        ("logits", apart(&got.deployed, &expected.deployed)),
        ("folded logits", apart(&got.folded, &expected.folded)),
        ("statistics", apart(&got.statistics, &expected.statistics)),
        ("gradients", apart(&got.gradients, &expected.gradients)),
        ("weights", apart(&got.moved, &expected.moved)),
    ])
}

fn outputs(space: &SearchSpace, arch: &Arch, backend: &Backend) -> Result<Outputs> {
    let sides = [IMAGES, space.input_channels(), arch.resolution.height, arch.resolution.width];
    let images = random("images", &sides, -2.0..2.0)?;
    let weights = SharedWeights::new(space, &mut rng_for("weights", 0, &[]))?.on(backend)?;
    let gradients = Gradients::new(&weights)?;
    let student = Student { space, weights: &weights, backend: backend.clone() };

    let teacher = student.teach(&sampler::largest(space).at(arch.resolution), &images)?;
    let labels: Vec<u32> = (0..IMAGES).map(|image| (image % space.classes()) as u32).collect();
    let target = Target { labels: &labels, smoothing: 0.1, teacher: Some(&teacher), ..Default::default() };
    let dropout = dropout_mask(space, arch, IMAGES, 0, [0, 0])?;
    let loss = student.learn(arch, &images, &target, dropout, &gradients)?.loss.read()?;
    let touched = gradients.touched();
    let read = touched.iter().map(|name| flat(gradients.get(name)?));
    let all = read.collect::<Result<Vec<_>>>()?.concat();
    Nesterov::new(weights.arena(), 0.9, 3e-5, backend)?.step(&weights, &gradients, 0.01)?;
    let moved = weights.tensors().values().map(flat).collect::<Result<Vec<_>>>()?.concat();

    let layers = space.lower(arch)?;
    let subnet = SubnetWeights::new(space, &weights, &layers, backend)?;
    let mut statistics = Statistics::new();
    Network::new(&layers, &subnet.values()?)?.forward(&images, Pass::Calibration(&mut statistics))?;
    let network = Network::new(&layers, &subnet.calibrated(&statistics)?)?;
    let deployed = flat(&network.forward(&images, Pass::Inference)?)?;
    let folded = FoldedNetwork::from_source(&layers, subnet.calibrated(&statistics)?)?;
    let folded = flat(&folded.forward(&images)?)?;
    let statistics = statistics.values().map(flat).collect::<Result<Vec<_>>>()?.concat();
    Ok(Outputs { loss, deployed, folded, statistics, gradients: all, moved })
}
