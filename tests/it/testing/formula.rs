//! Weights by a formula that Python computes too, and comparisons of tensors.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use kernels::Backend;
use network::nn::{MapSource, Network, Source};
use space::LayerSpec;

/// A value in [-1, 1) that depends on the name and the index alone, as in `tests/golden/make_golden.py`.
pub(crate) fn unit(name: &str, index: usize) -> f64 {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut z = (u64::from(hash) << 32 | index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f64 / 8_388_608.0 - 1.0
}

/// A tensor of [`unit`] values, scaled according to its name.
pub(crate) fn formula(name: &str, shape: &[usize]) -> Tensor {
    let fan_in: usize = shape.iter().skip(1).product();
    let length = shape.iter().product();
    let values: Vec<f32> = (0..length).map(|index| scaled(name, unit(name, index), fan_in) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("sizes agree")
}

/// The scale of a tensor of this name, applied to a value in [-1, 1).
fn scaled(name: &str, value: f64, fan_in: usize) -> f64 {
    match name {
        "images" | "gradient" => value,
        "teacher" => 2.0 * value,
        _ if name.ends_with(".bn.weight") => 1.0 + 0.2 * value,
        _ if name.ends_with("bias") || name.ends_with("running_mean") => 0.1 * value,
        _ if name.ends_with("running_var") => 1.0 + 0.5 * value,
        _ => value * (3.0 / fan_in as f64).sqrt(),
    }
}

/// The weights of layers by formula, running statistics included.
pub(crate) fn formula_weights(layers: &[LayerSpec]) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        if let Some(norm) = weight.name.strip_suffix(".bn.bias") {
            for statistic in ["running_mean", "running_var"] {
                let name = format!("{norm}.bn.{statistic}");
                tensors.insert(name.clone(), formula(&name, &weight.shape));
            }
        }
        tensors.insert(weight.name.clone(), formula(&weight.name, &weight.shape));
    }
    tensors
}

/// Every backend that this processor has.
pub(crate) fn all_backends() -> Vec<Backend> {
    let names = ["avx512", "avx2", "portable", "reference"];
    names.into_iter().filter_map(|name| Backend::named(name).ok()).collect()
}

/// Zeros for every weight of layers.
pub(crate) fn zeros(layers: &[LayerSpec]) -> BTreeMap<String, Tensor> {
    let mut tensors = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let zeros = Tensor::zeros(&weight.shape[..], DType::F32, &Device::Cpu).expect("a small tensor");
        tensors.insert(weight.name, zeros);
    }
    tensors
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
}

/// The network of these layers and tensors, whose backward pass adds to the gradients.
pub(crate) fn network_of(
    layers: &[LayerSpec],
    tensors: BTreeMap<String, Tensor>,
    gradients: &BTreeMap<String, Tensor>,
    backend: &Backend,
    epsilon: f32,
) -> Network {
    let source = Source::new(MapSource::builder(tensors), backend, epsilon);
    Network::new(layers, &source.with_gradients(gradients.clone())).expect("all weights are there")
}

/// Compares relative to the largest expected value, plus 1e-6 for values that are zero in exact arithmetic.
pub(crate) fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let got = values(got);
    let expected = values(expected);
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let bound = tolerance * largest + 1e-6;
        assert!((got - expected).abs() <= bound, "{what}[{index}]: {got} not {expected} (largest {largest})");
    }
}
