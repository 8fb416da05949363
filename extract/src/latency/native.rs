//! Our own inference as an engine.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use rand::Rng;
use supernet::kernels::Kernels;
use supernet::nn::{FoldedNetwork, MapSource, Network, Source};
use supernet::random::rng_for;
use supernet::space::{LayerSpec, WeightRole};

use super::engine::{Engine, EngineFacts, Run};
use crate::error::Result;

/// Runs layers with the kernels that deployed networks run with: f32, random weights.
///
/// Threads are those of the rayon pool that the engine is called on.
pub struct NativeEngine {
    kernels: Kernels,
    threads: usize,
    batch: usize,
}

/// Added to variances; its value takes no time.
const EPSILON: f32 = 1e-5;

impl NativeEngine {
    /// An engine with these kernels on a pool of so many threads, for so many images at once.
    pub fn new(kernels: Kernels, threads: usize, batch: usize) -> Self {
        Self { kernels, threads, batch }
    }
}

impl Engine for NativeEngine {
    fn describe(&self) -> EngineFacts {
        EngineFacts {
            engine: "native".to_string(),
            engine_version: format!("{} {}", env!("CARGO_PKG_VERSION"), self.kernels.name()),
            threads: self.threads,
            dtype: "f32".to_string(),
            batch: self.batch,
        }
    }

    fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>> {
        let source = Source::new(MapSource::builder(random_weights(layers)?), self.kernels, EPSILON);
        let network = FoldedNetwork::new(&Network::new(layers, &source)?)?;
        let input = layers.first().map_or([1; 4], |layer| {
            let map = layer.input;
            [map.channels, self.batch, map.height, map.width]
        });
        let input = random(&input, -1.0..1.0, "input")?;
        Ok(Box::new(move || {
            network.forward_maps(input.clone())?;
            Ok(())
        }))
    }
}

/// Values that keep activations of ordinary size: denormal numbers would be slow.
fn random_weights(layers: &[LayerSpec]) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for weight in layers.iter().flat_map(LayerSpec::weights) {
        let range = match weight.role {
            WeightRole::NormScale => 0.9..1.1,
            WeightRole::NormShift | WeightRole::Bias => -0.1..0.1,
            WeightRole::Kernel => {
                let fan_in: usize = weight.shape[1..].iter().product();
                let bound = (3.0 / fan_in as f32).sqrt();
                -bound..bound
            }
        };
        if weight.role == WeightRole::NormScale {
            let norm = weight.name.trim_end_matches(".weight");
            for (statistic, range) in [("running_mean", -0.1..0.1), ("running_var", 0.9..1.1)] {
                let name = format!("{norm}.{statistic}");
                tensors.insert(name.clone(), random(&weight.shape, range, &name)?);
            }
        }
        tensors.insert(weight.name.clone(), random(&weight.shape, range, &weight.name)?);
    }
    Ok(tensors)
}

fn random(shape: &[usize], range: std::ops::Range<f32>, name: &str) -> Result<Tensor> {
    let mut rng = rng_for(name, 0, &[]);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(range.clone())).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::space_layers;
    use supernet::space::{preset, sampler};

    #[test]
    fn every_layer_and_every_network_of_a_space_runs() {
        let space = preset("tiny").expect("a preset");
        let engine = NativeEngine::new(Kernels::detect(), 1, 2);
        for layer in space_layers(&space).expect("a checked space").values() {
            let mut run = engine.prepare(std::slice::from_ref(layer)).expect("prepared");
            run().expect("first");
            run().expect("again");
        }
        let layers = space.lower(&sampler::largest(&space)).expect("legal");
        engine.prepare(&layers).expect("prepared")().expect("a network");
    }
}
