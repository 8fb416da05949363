//! Random weights and inputs of the layers being timed.

use std::collections::BTreeMap;
use std::ops::Range;

use base::random::rng_for;
use candle_core::{Device, Tensor};
use rand::Rng;
use space::{LayerSpec, WeightRole};

use crate::error::Result;

/// Added to variances; its value takes no time.
pub(super) const EPSILON: f32 = 1e-5;

/// The values of an input.
pub(super) const INPUT_RANGE: Range<f32> = -1.0..1.0;

/// Weights by name, running statistics included. Their values keep activations of ordinary size: denormal numbers
/// would be slow.
pub(super) fn random_weights(layers: &[LayerSpec]) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let range = match weight.role {
            WeightRole::NormScale(_) => 0.9..1.1,
            WeightRole::NormShift(_) | WeightRole::Bias => -0.1..0.1,
            _ => {
                let fan_in: usize = weight.shape[1..].iter().product();
                let bound = (3.0 / fan_in as f32).sqrt();
                -bound..bound
            }
        };
        if let Some(norm) = weight.batch_norm() {
            for (statistic, range) in [("running_mean", -0.1..0.1), ("running_var", 0.9..1.1)] {
                let name = format!("{norm}.{statistic}");
                tensors.insert(name.clone(), random(&weight.shape, range, &name)?);
            }
        }
        tensors.insert(weight.name.clone(), random(&weight.shape, range, &weight.name)?);
    }
    Ok(tensors)
}

/// A tensor whose values depend on its name and shape alone.
pub(super) fn random(shape: &[usize], range: Range<f32>, name: &str) -> Result<Tensor> {
    let mut rng = rng_for(name, 0, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(range.clone())).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}
