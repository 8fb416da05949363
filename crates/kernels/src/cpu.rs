//! f32 kernels for the CPU: functions over slices, forward and backward.
//!
//! Activations are channel-major, `[C, N, H, W]` contiguous. Every function takes the instruction set to
//! use and computes the same bits at any number of threads: how sums are cut depends on sizes alone, and
//! threads share no sum. Outputs are overwritten without being read, unless the function says
//! that it accumulates. Knows nothing of tensors, layers or architectures.

mod activation;
pub mod batch_norm;
pub mod chain;
pub mod dense;
pub mod depthwise;
pub mod planes;
pub mod pool;
pub mod product;
mod scratch;
mod simd;
pub mod updates;
pub mod weighted_rows;

use rayon::prelude::*;
pub use space::Activation;

/// The instruction set a kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F: 16 values per vector, 32 registers.
    Avx512,
    /// AVX2 with FMA: 8 values per vector, 16 registers.
    Avx2,
    /// Plain Rust, for any CPU.
    Portable,
}

impl Isa {
    /// The best instruction set of this CPU.
    pub fn detect() -> Self {
        [Self::Avx512, Self::Avx2].into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// All instruction sets of this CPU, best first.
    pub fn available() -> Vec<Self> {
        [Self::Avx512, Self::Avx2, Self::Portable].into_iter().filter(|isa| isa.is_available()).collect()
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        match self {
            Self::Avx512 => is_x86_feature_detected!("avx512f"),
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            Self::Portable => true,
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// Values in a vector.
    fn lanes(self) -> usize {
        if self == Self::Avx512 { 16 } else { 8 }
    }

    /// `self` if this CPU has it, else [`Isa::Portable`]. This makes calling a kernel sound.
    fn or_portable(self) -> Self {
        if self.is_available() { self } else { Self::Portable }
    }
}

/// Work (values read or written, about 0.1 ns each) below which one thread does it all: handing work to
/// another thread costs some microseconds, more than the small layers of a batch of one take.
const SERIAL_WORK: usize = 1 << 16;

/// Least work of one task: about 3 microseconds in cache and 10 from memory, well above the price of
/// handing it over.
const TASK_WORK: usize = 1 << 15;

/// Calls `body(first row, rows)` for groups of whole rows of `data`; one row is `row` values and `work` work.
fn for_each_group(data: &mut [f32], row: usize, work: usize, body: impl Fn(usize, &mut [f32]) + Send + Sync) {
    let Some(rows) = data.len().checked_div(row) else { return };
    if rows * work <= SERIAL_WORK {
        return body(0, data);
    }
    let group = group_rows(work);
    data.par_chunks_mut(group * row).enumerate().for_each(|(i, rows)| body(i * group, rows));
}

/// [`for_each_group`] over the rows of three outputs: `data`, and two of one value per row that lie one after the other
/// in `pairs`.
fn for_each_rows(
    data: &mut [f32],
    work: usize,
    pairs: &mut [f32],
    body: impl Fn(usize, &mut [f32], &mut [f32], &mut [f32]) + Send + Sync,
) {
    let rows = pairs.len() / 2;
    let row = data.len().checked_div(rows).unwrap_or(0);
    assert_eq!((data.len(), pairs.len()), (rows * row, 2 * rows));
    let (left, right) = pairs.split_at_mut(rows);
    if rows * work <= SERIAL_WORK {
        return body(0, data, left, right);
    }
    let group = group_rows(work);
    let small = left.par_chunks_mut(group).zip(right.par_chunks_mut(group));
    let groups = data.par_chunks_mut(group * row).zip(small).enumerate();
    groups.for_each(|(i, (data, (left, right)))| body(i * group, data, left, right));
}

/// Rows of a group that are enough work for a task.
fn group_rows(work: usize) -> usize {
    TASK_WORK.div_ceil(work.max(1))
}

#[cfg(test)]
pub(super) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detected_set_is_the_best_available() {
        assert_eq!(Isa::available().first(), Some(&Isa::detect()));
        assert_eq!(Isa::available().last(), Some(&Isa::Portable));
    }

    #[test]
    fn groups_cover_every_row_once() {
        for (rows, row, work) in [(1, 1, 1), (7, 3, 1), (100, 3, 10_000), (5, 2, 100_000), (200_001, 1, 1)] {
            let mut data = vec![0.0; rows * row];
            for_each_group(&mut data, row, work, |first, rows| {
                for (i, value) in rows.iter_mut().enumerate() {
                    *value += (first * row + i) as f32;
                }
            });
            assert!(data.iter().enumerate().all(|(i, value)| *value == i as f32));
        }
    }
}
