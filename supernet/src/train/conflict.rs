//! How far the largest and the smallest sub-network want the same of the weights that they share.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use network::arena::Arena;
use network::elastic::Gradients;
use serde::{Deserialize, Serialize};
use space::{Arch, FeatureMap, LayerSpec, SearchSpace, sampler};

use super::loss::Target;
use super::record::SubnetValidation;
use super::step::Student;
use crate::error::Result;

/// A report on the conflict of sub-networks over their shared weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// Steps taken so far.
    pub step: u64,
    /// The phase's name.
    pub phase: String,
    /// Cosine of the gradients over all weights that both use.
    pub cosine: f64,
    /// The cosine for each part of the network, from its input on.
    pub stages: Vec<StageCosine>,
    /// Accuracy of the smallest and the largest sub-network, and of some between them, by multiply-accumulates.
    pub subnetworks: Vec<SubnetValidation>,
}

/// The cosine of two networks' gradients in one part of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageCosine {
    /// Layers with outputs of this shape: height x width x channels of the largest network's.
    pub stage: String,
    /// The cosine; 0 where one of the gradients is.
    pub cosine: f64,
}

/// Products of two gradients with each other and with themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Products {
    both: f64,
    one: f64,
    other: f64,
}

impl Products {
    /// Of values where neither is 0: a network's gradient is 0 where it does not use the weights.
    fn of(one: &[f32], other: &[f32]) -> Self {
        let shared = one.iter().zip(other).filter(|(one, other)| **one != 0.0 && **other != 0.0);
        shared.fold(Self::default(), |sum, (one, other)| {
            let [one, other] = [one, other].map(|value| f64::from(*value));
            Self { both: sum.both + one * other, one: sum.one + one * one, other: sum.other + other * other }
        })
    }

    fn add(&mut self, other: Self) {
        self.both += other.both;
        self.one += other.one;
        self.other += other.other;
    }

    fn cosine(self) -> f64 {
        let lengths = (self.one * self.other).sqrt();
        if lengths > 0.0 { self.both / lengths } else { 0.0 }
    }
}

/// Cosines of the gradients of the largest and the smallest sub-network of `allowed` on the same images, over the weights
/// that both use: for each stage, and over all.
///
/// # Errors
/// If the images do not fit the space.
pub(super) fn cosines(
    student: &Student,
    allowed: &SearchSpace,
    images: &Tensor,
    target: &Target,
) -> Result<(Vec<StageCosine>, f64)> {
    let resolution = allowed.greatest_resolution();
    let gradients = Gradients::new(student.weights)?;
    let largest = sampler::largest(allowed).at(resolution);
    let gradient_of = |arch: &Arch| {
        student.learn(arch, images, target, None, &gradients)?;
        let arena = gradients.arena().detached()?.on(&Device::Cpu)?;
        gradients.clear(&student.backend)?;
        Ok::<Arena, crate::Error>(arena)
    };
    let of_largest = gradient_of(&largest)?;
    let of_smallest = gradient_of(&sampler::smallest(allowed).at(resolution))?;
    let layers = allowed.lower(&largest)?;
    let mut by_stage: Vec<(String, Products)> = Vec::new();
    let mut all = Products::default();
    let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
    let mut tensors = tensors_by_layer(&layers, &of_largest);
    for layer in &layers {
        let FeatureMap { height, width, channels } = layer.output;
        let stage = format!("{height}x{width}x{channels}");
        for name in tensors.remove(&layer.shared_name()).unwrap_or_default() {
            let [Some(one), Some(other)] = [&of_largest, &of_smallest].map(|arena| arena.get(&name)) else {
                continue;
            };
            let products = Products::of(&values(one)?, &values(other)?);
            all.add(products);
            match by_stage.last_mut().filter(|(last, _)| *last == stage) {
                Some((_, sum)) => sum.add(products),
                None => by_stage.push((stage.clone(), products)),
            }
        }
    }
    let stages =
        by_stage.into_iter().map(|(stage, products)| StageCosine { stage, cosine: products.cosine() });
    Ok((stages.collect(), all.cosine()))
}

/// Names of the weights of each layer of the largest network, by the layer's name in the supernet.
fn tensors_by_layer(layers: &[LayerSpec], arena: &Arena) -> BTreeMap<String, Vec<String>> {
    let of_layer = |layer: &LayerSpec| {
        let prefix = format!("{}.", layer.shared_name());
        let names = arena.tensors().keys().filter(|name| name.starts_with(&prefix));
        (layer.shared_name(), names.cloned().collect())
    };
    layers.iter().map(of_layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;
    use kernels::Backend;
    use network::data::{Dataset, eval_batches};
    use network::elastic::SharedWeights;
    use space::preset;

    #[test]
    fn the_cosine_is_that_of_the_shared_values() {
        let one = [1.0, 2.0, 0.0, 4.0];
        let other = [2.0, 0.0, 3.0, -1.0];
        // (1 * 2 - 4 * 1) / (|(1, 4)| |(2, -1)|)
        let expected = -2.0 / (17.0f64 * 5.0).sqrt();
        assert!((Products::of(&one, &other).cosine() - expected).abs() < 1e-12);
        assert_eq!(Products::of(&one, &[0.0; 4]).cosine(), 0.0);
    }

    #[test]
    fn a_network_agrees_with_itself() {
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("room");
        let student = Student { space: &space, weights: &weights, backend: Backend::detect() };
        let dataset = Dataset::open("digits").expect("embedded");
        let side = space.greatest_resolution();
        let mut batches = eval_batches(dataset.val(), dataset.preprocess(), side, 32);
        let batch = batches.next().expect("one").expect("a batch");
        let target = Target { labels: batch.targets.classes(), ..Target::default() };
        let only = space.only(&sampler::largest(&space)).expect("in the space");
        let alone = Student { space: &only, ..student.clone() };
        let (stages, cosine) = cosines(&alone, &only, &batch.inputs, &target).expect("it fits");
        assert!((cosine - 1.0).abs() < 1e-6);
        assert!(stages.iter().all(|stage| (stage.cosine - 1.0).abs() < 1e-6), "{stages:?}");
        let (stages, cosine) = cosines(&student, &space, &batch.inputs, &target).expect("it fits");
        assert!(stages.len() > 2, "{stages:?}");
        assert!(cosine.abs() < 1.0);
        assert!(stages.iter().all(|stage| stage.cosine.abs() < 1.0), "{stages:?}");
    }
}
