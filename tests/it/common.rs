//! What several tests need: weights by formula, comparisons.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use kernels::Backend;
use space::LayerSpec;

/// A value in [-1, 1) that depends on the name and the index alone; `tests/golden/make_golden.py` has the same.
pub fn unit(name: &str, index: usize) -> f64 {
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut z = (u64::from(hash) << 32 | index as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f64 / 8_388_608.0 - 1.0
}

/// A tensor of that formula, scaled as its name asks for.
pub fn formula(name: &str, shape: &[usize]) -> Tensor {
    let fan_in: usize = shape.iter().skip(1).product();
    let value = |u: f64| match name {
        "images" | "gradient" => u,
        "teacher" => 2.0 * u,
        _ if name.ends_with(".bn.weight") => 1.0 + 0.2 * u,
        _ if name.ends_with("bias") || name.ends_with("running_mean") => 0.1 * u,
        _ if name.ends_with("running_var") => 1.0 + 0.5 * u,
        _ => u * (3.0 / fan_in as f64).sqrt(),
    };
    let length = shape.iter().product();
    let values: Vec<f32> = (0..length).map(|index| value(unit(name, index)) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("sizes agree")
}

/// The weights of layers by formula, running statistics included.
pub fn formula_weights(layers: &[LayerSpec]) -> BTreeMap<String, Tensor> {
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

/// A recipe of short phases: name, rate, and how many kernels and depths are allowed; so many epochs each.
pub fn short_recipe(epochs: f64, phases: &[(&str, f64, usize, usize)]) -> String {
    let mut text =
        "version = 1\nname = \"short\"\nbatch = 64\nlr_batch = 64\nmomentum = 0.9\nweight_decay = 3e-5\n\
                    label_smoothing = 0.1\n\n"
            .to_string();
    for (name, lr, kernel, depth) in phases {
        text += &format!(
            "[[phases]]\nname = \"{name}\"\nallowed = {{ kernel = {kernel}, depth = {depth}, expand = 1 }}\nsubnetworks = 1\n\
             epochs = {epochs:?}\nwarmup_epochs = 0\nlr = {lr:?}\ndistill = false\nsort_channels = false\n\n"
        );
    }
    text
}

/// Every path of the kernels that this processor has.
pub fn all_backends() -> Vec<Backend> {
    let names = ["avx512", "avx2", "portable", "reference"];
    names.into_iter().filter_map(|name| Backend::named(name).ok()).collect()
}

/// Zeros for every weight of layers.
pub fn zeros(layers: &[LayerSpec]) -> BTreeMap<String, Tensor> {
    let zero = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).expect("a small tensor");
    layers.iter().flat_map(LayerSpec::weights).map(|weight| (weight.name, zero(&weight.shape))).collect()
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32 on the CPU")
}

/// Compares relative to the largest expected value, plus a millionth for what is zero in exact arithmetic.
pub fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let got = values(got);
    let expected = values(expected);
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let bound = tolerance * largest + 1e-6;
        assert!((got - expected).abs() <= bound, "{what}[{index}]: {got} not {expected} (largest {largest})");
    }
}
