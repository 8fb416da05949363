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
/// Products in one run: about a tenth of a millisecond, well above what handing it to threads takes.
const PRODUCTS: usize = 4;

/// One thread's operands and result.
struct Buffers {
    weight: Vec<f32>,
    maps: Vec<f32>,
    result: Vec<f32>,
}

/// The layer, on every thread of the rayon pool that it is run on at once.
pub struct Sentinel {
    threads: Vec<std::sync::Mutex<Buffers>>,
}

impl Buffers {
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

impl Sentinel {
    /// Buffers for every thread of the pool that this is called on.
    pub fn new() -> Self {
        let buffers = |_| std::sync::Mutex::new(Buffers::new());
        Self { threads: (0..rayon::current_num_threads()).map(buffers).collect() }
    }

    /// Runs the layer once on every thread.
    ///
    /// # Errors
    /// None: the type is that of what is measured.
    pub fn run(&self) -> Result<()> {
        if let [only] = self.threads.as_slice() {
            lock(only).run();
            return Ok(());
        }
        rayon::broadcast(|context| {
            if let Some(buffers) = self.threads.get(context.index()) {
                lock(buffers).run();
            }
        });
        Ok(())
    }
}

/// A thread that panicked left nothing that matters behind.
fn lock(buffers: &std::sync::Mutex<Buffers>) -> std::sync::MutexGuard<'_, Buffers> {
    buffers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
    fn it_computes_the_product_on_every_thread() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
        let sentinel = pool.install(|| {
            let sentinel = Sentinel::new();
            sentinel.run().expect("no errors");
            sentinel
        });
        assert_eq!(sentinel.threads.len(), 3);
        for thread in &sentinel.threads {
            let Buffers { weight, maps, result } = &*lock(thread);
            let exact: f32 = (0..SIDE).map(|i| weight[2 * SIDE + i] * maps[i * SIDE + 5]).sum();
            assert!((result[2 * SIDE + 5] - exact).abs() < 1e-4, "{} {exact}", result[2 * SIDE + 5]);
        }
    }
}
