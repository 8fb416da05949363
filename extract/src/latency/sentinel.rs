//! The layer that every measuring is watched by: a pointwise convolution of 64 channels on an 8 x 8 map, in plain
//! loops, on buffers that stay where they are.
//!
//! It is no layer of the engine that is measured: an engine's buffers may lie elsewhere each time, which alone changes a
//! layer's time by a fifth. What this one takes depends on the speed of the cores, and on nothing else that changes.

use std::hint::black_box;

use crate::error::Result;

/// Its name in plans, rows and tables.
pub const SENTINEL: &str = "product 64x64x64 f32";

const SIDE: usize = 64;
/// Products in one run: about a tenth of a millisecond.
const PRODUCTS: usize = 4;

/// The layer, on the thread that measures. (On several threads at once it would tell how the system places them: a
/// thread that was just woken often waits for the one that woke it.)
pub struct Sentinel {
    weight: Vec<f32>,
    maps: Vec<f32>,
    result: Vec<f32>,
}

impl Sentinel {
    /// The layer with made-up weights and maps.
    pub fn new() -> Self {
        // values of ordinary size: denormal numbers would be slow
        let values = |step: usize| (0..SIDE * SIDE).map(|i| (i * step % 17) as f32 / 17.0 - 0.5).collect();
        Self { weight: values(5), maps: values(7), result: vec![0.0; SIDE * SIDE] }
    }

    /// Runs the layer once.
    ///
    /// # Errors
    /// None: the type is that of what is measured.
    pub fn run(&mut self) -> Result<()> {
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
        Ok(())
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
        let mut sentinel = Sentinel::new();
        sentinel.run().expect("no errors");
        let Sentinel { weight, maps, result } = &sentinel;
        let exact: f32 = (0..SIDE).map(|i| weight[2 * SIDE + i] * maps[i * SIDE + 5]).sum();
        assert!((result[2 * SIDE + 5] - exact).abs() < 1e-4, "{} {exact}", result[2 * SIDE + 5]);
    }
}
