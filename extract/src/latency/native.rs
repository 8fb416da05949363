//! The toolkit's own inference as an engine.

use candle_core::Tensor;
use kernels::Backend;
use latency::{DeviceFacts, EngineFacts};
use network::nn::{FoldedNetwork, MapSource, Source};
use space::LayerSpec;

use super::clock::stopwatch_of;
use super::engine::{Engine, Run, RunTimer, Stepped};
use super::sentinel::{GPU_ENGINE, Sentinel};
use super::weights::{EPSILON, INPUT_RANGE, random, random_weights};
use crate::error::Result;

/// Runs layers with the kernels that deployed networks run with: random weights, f32 but on a GPU that is to round.
///
/// Threads are those of the rayon pool that it is called on; [`Engine::isolated`] makes one.
pub struct NativeEngine {
    backend: Backend,
    threads: usize,
    batch: usize,
}

impl NativeEngine {
    /// An engine with these kernels on a pool of so many threads, for so many images at once.
    pub fn new(backend: &Backend, threads: usize, batch: usize) -> Self {
        Self { backend: backend.clone(), threads, batch }
    }

    /// The layers with random weights, and an input.
    fn network(&self, layers: &[LayerSpec]) -> Result<(FoldedNetwork, Tensor)> {
        let source = Source::new(MapSource::builder(random_weights(layers)?), &self.backend, EPSILON);
        let network = FoldedNetwork::from_source(layers, source)?;
        let input = layers.first().map_or([1; 4], |layer| {
            let map = layer.input;
            [map.channels, self.batch, map.height, map.width]
        });
        Ok((network, self.backend.activations(&random(&input, INPUT_RANGE, "input")?)?))
    }
}

impl Engine for NativeEngine {
    fn describe(&self) -> EngineFacts {
        EngineFacts {
            engine: if self.backend.gpu().is_some() { GPU_ENGINE } else { "native" }.to_string(),
            engine_version: format!("{} {}", env!("CARGO_PKG_VERSION"), self.backend.name()),
            threads: self.threads,
            dtype: self.backend.precision().to_string(),
            batch: self.batch,
        }
    }

    fn device(&self) -> DeviceFacts {
        DeviceFacts::this_machine(None).computing_on(self.backend.gpu(), true)
    }

    fn stopwatch(&self) -> Box<dyn RunTimer> {
        stopwatch_of(&self.backend)
    }

    fn sentinel(&self) -> Result<Sentinel> {
        Sentinel::of(&self.backend)
    }

    /// On threads of their own, for the allocator keeps what it has for each thread.
    fn isolated(&self, visit: &mut (dyn FnMut() + Send)) {
        let Ok(pool) = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build() else {
            // no further threads are to be had: it is measured all the same
            return visit();
        };
        // handed over by a thread of no pool, which sleeps meanwhile: one of a pool looks for work and disturbs
        std::thread::scope(|scope| {
            scope.spawn(|| pool.install(visit));
        });
    }

    fn prepare(&self, layers: &[LayerSpec]) -> Result<Run<'_>> {
        let (network, input) = self.network(layers)?;
        Ok(Box::new(move || {
            network.forward_maps(input.clone())?;
            Ok(())
        }))
    }

    /// On a CPU only: a GPU is given a whole network's work before the first layer is done.
    fn prepare_stepped(&self, layers: &[LayerSpec]) -> Result<Option<Stepped<'_>>> {
        if self.backend.gpu().is_some() {
            return Ok(None);
        }
        let (network, input) = self.network(layers)?;
        Ok(Some(Box::new(move |done: &mut dyn FnMut()| {
            network.forward_layers(input.clone(), done)?;
            Ok(())
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::{preset, sampler};

    #[test]
    fn every_layer_and_every_network_of_a_space_runs() {
        let space = preset("tiny").expect("a preset");
        let engine = NativeEngine::new(&Backend::detect(), 1, 2);
        for layer in space.layers().values() {
            let mut run = engine.prepare(std::slice::from_ref(layer)).expect("prepared");
            run().expect("first");
            run().expect("again");
        }
        let layers = space.lower(&sampler::largest(&space)).expect("legal");
        engine.prepare(&layers).expect("prepared")().expect("a network");
        let mut steps = 0;
        let mut stepped = engine.prepare_stepped(&layers).expect("prepared").expect("on a CPU");
        stepped(&mut || steps += 1).expect("a network");
        drop(stepped);
        assert_eq!(steps, layers.len());
    }
}
