//! The layer that watches the machine's speed during every measurement: a pointwise convolution of 64 channels on an 8 x 8 map, in plain
//! loops, on buffers that stay where they are; on a GPU a chain of multiply-adds, which its clock alone decides about.
//!
//! It is not a layer of the measured engine: the placement of an engine's buffers varies, and that alone
//! changes a layer's latency by a fifth. The sentinel's time depends on the speed of the cores and on nothing
//! else that varies.
//!
//! The sentinel only confirms. No row is scaled by the sentinel: rows slow down by a power of two to three of
//! its slowdown. A visit waits for a fast reading, for at most half of the time. The share of time in which
//! the machine is fast comes from the readings on arrival alone, since a reading that was waited for is fast
//! in any state.

use std::hint::black_box;

use kernels::{Backend, SpeedProbe};

use crate::error::Result;

/// The CPU sentinel's name in plans, rows and tables.
pub const SENTINEL: &str = "product 64x64x64 f32";

/// The GPU sentinel's name.
pub const GPU_SENTINEL: &str = SpeedProbe::NAME;

/// Name of the sentinel that is used with an engine.
pub fn sentinel_of(engine: &str) -> &'static str {
    if engine == GPU_ENGINE { GPU_SENTINEL } else { SENTINEL }
}

/// The engine of this toolkit on a GPU.
pub const GPU_ENGINE: &str = "native-cuda";

const SIDE: usize = 64;
/// Products in one run: about a tenth of a millisecond.
const PRODUCTS: usize = 4;

/// The layer, on the thread that measures. (On several threads at once it would tell how the system places them: a
/// thread that was just woken often waits for the one that woke it.)
pub struct Sentinel(Work);

enum Work {
    Cpu(Layer),
    Gpu(SpeedProbe),
}

struct Layer {
    weight: Vec<f32>,
    maps: Vec<f32>,
    result: Vec<f32>,
}

impl Sentinel {
    /// The sentinel of a CPU.
    pub fn new() -> Self {
        Self(Work::Cpu(Layer::new()))
    }

    /// The sentinel of a backend.
    ///
    /// # Errors
    /// If a GPU has no room for it.
    pub fn of(backend: &Backend) -> Result<Self> {
        Ok(SpeedProbe::new(backend)?.map_or_else(Self::new, |metronome| Self(Work::Gpu(metronome))))
    }

    /// The name in plans, rows and tables.
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Work::Cpu(_) => SENTINEL,
            Work::Gpu(_) => GPU_SENTINEL,
        }
    }

    /// Runs it once.
    ///
    /// # Errors
    /// If a GPU refuses.
    pub fn run(&mut self) -> Result<()> {
        match &mut self.0 {
            Work::Cpu(layer) => layer.run(),
            Work::Gpu(metronome) => metronome.run()?,
        }
        Ok(())
    }
}

impl Layer {
    /// Made-up weights and maps.
    fn new() -> Self {
        // values of ordinary size: denormal numbers would be slow
        let values = |step: usize| (0..SIDE * SIDE).map(|i| (i * step % 17) as f32 / 17.0 - 0.5).collect();
        Self { weight: values(5), maps: values(7), result: vec![0.0; SIDE * SIDE] }
    }

    fn run(&mut self) {
        for _ in 0..PRODUCTS {
            for (row, result) in self.result.chunks_exact_mut(SIDE).enumerate() {
                result.fill(0.0);
                let weights = &self.weight[row * SIDE..(row + 1) * SIDE];
                for (weight, map) in weights.iter().zip(self.maps.chunks_exact(SIDE)) {
                    result.iter_mut().zip(map).for_each(|(sum, value)| *sum += weight * value);
                }
            }
            black_box(&mut self.result);
        }
    }
}

impl Default for Sentinel {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_computes_the_product() {
        let mut layer = Layer::new();
        layer.run();
        let Layer { weight, maps, result } = &layer;
        let exact: f32 = (0..SIDE).map(|i| weight[2 * SIDE + i] * maps[i * SIDE + 5]).sum();
        assert!((result[2 * SIDE + 5] - exact).abs() < 1e-4, "{} {exact}", result[2 * SIDE + 5]);
    }
}
