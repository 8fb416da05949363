//! Shared weights for tests.

use std::collections::BTreeMap;

use candle_core::Tensor;
use space::{SearchSpace, WeightRole, WeightSpec};

use super::{SharedWeights, shared_specs};
use crate::nn::testing::noise;

/// Shared weights in which every value counts: matrices are not identities, norms not ones.
pub(super) fn lively(space: &SearchSpace) -> SharedWeights {
    let tensors: BTreeMap<String, Tensor> = shared_specs(space)
        .into_iter()
        .map(|spec: WeightSpec| {
            let fan_in: usize = spec.shape[1..].iter().product();
            let tensor = match spec.role {
                WeightRole::NormScale(_) => noise(&spec.name, &spec.shape, 0.3, 1.0),
                _ => noise(&spec.name, &spec.shape, (3.0 / fan_in as f32).sqrt(), 0.0),
            };
            (spec.name, tensor)
        })
        .collect();
    SharedWeights::from_tensors(space, tensors, "test").expect("the space's shapes")
}
