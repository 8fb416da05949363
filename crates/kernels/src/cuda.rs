//! The kernels in CUDA C (`source/`), and how each is launched: pure functions from sizes to launches.
//!
//! The texts compile for a GPU, and as C++ for the host, where threads of a block are loops. Launches are planned here
//! for both, so the tests on the host cover everything but the hardware. How work is cut and the order of every sum depend
//! on sizes alone: no atomics, the same bits on every GPU of one kind.
//!
//! A step uses none of candle's own CUDA kernels: every copy, cast and sum is one of these. A kernel that moves memory starts
//! several reads of 16 bytes per thread before it uses the first, where rows allow it, else eight reads of single values; sizes
//! decide which.

mod batch_norm;
mod chain;
#[cfg(feature = "cuda")]
mod compiler;
mod dense;
mod depthwise;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(any(test, feature = "emulated-gpu"))]
mod emulated;
mod gpu;
mod layers;
mod planes;
mod pool;
mod product;
#[cfg(test)]
mod tests;
mod training;
mod updates;

pub use gpu::{DeviceEvent, DeviceStaging, Gpu};
#[cfg(any(test, feature = "emulated-gpu"))]
pub use {
    emulated::emulated_gpu,
    gpu::Executor,
    product::{Operand, Product},
};

use space::Activation;

/// Files of kernels by name.
/// The depthwise ones are compiled in parallel, one kernel size each: together they take twice as long as all others.
pub const SOURCES: [(&str, &str); 9] = [
    ("batch_norm", include_str!("cuda/source/batch_norm.cu")),
    ("clock", include_str!("cuda/source/clock.cu")),
    ("dense", include_str!("cuda/source/dense.cu")),
    ("depthwise_3", concat!("#define SIDE 3\n", include_str!("cuda/source/depthwise.cu"))),
    ("depthwise_5", concat!("#define SIDE 5\n", include_str!("cuda/source/depthwise.cu"))),
    ("depthwise_7", concat!("#define SIDE 7\n", include_str!("cuda/source/depthwise.cu"))),
    ("planes", include_str!("cuda/source/planes.cu")),
    ("pool", include_str!("cuda/source/pool.cu")),
    ("training", include_str!("cuda/source/training.cu")),
];

/// The header that all sources include.
pub const COMMON: &str = include_str!("cuda/source/common.cuh");

/// Threads per block, in every kernel.
pub const THREADS: usize = 256;

/// Blocks that keep the largest GPU busy: two for each of 132 multiprocessors. Sums over fewer rows are
/// split over several blocks each.
const BUSY: usize = 264;

/// Least values that a block reads, even if that leaves fewer blocks than [`BUSY`].
const LEAST_PART: usize = 4096;

/// The number type of activations in memory; the arithmetic is in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationStorage {
    F32,
    Bf16,
}

/// An address on a device; 0 is nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Place(pub u64);

/// Sizes of rows that lie one after the other: of channels, or of planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSizes {
    pub rows: usize,
    /// Values of each row.
    pub length: usize,
}

impl RowSizes {
    /// Values of all rows.
    fn count(self) -> usize {
        self.rows * self.length
    }
}

/// One argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    Place(Place),
    /// One integer, or a struct of several.
    Ints(Vec<i32>),
    Long(i64),
    Float(f32),
}

impl Argument {
    /// The argument's bytes in words, as a driver reads them.
    fn words(&self) -> Vec<u64> {
        match self {
            Self::Place(Place(place)) => vec![*place],
            Self::Long(value) => vec![value.cast_unsigned()],
            Self::Float(value) => vec![u64::from(value.to_bits())],
            Self::Ints(values) => values.chunks(2).map(word_of).collect(),
        }
    }
}

/// One or two integers in a word, the first in the lower half.
fn word_of(pair: &[i32]) -> u64 {
    let low = u64::from(pair[0].cast_unsigned());
    low | u64::from(pair.get(1).map_or(0, |high| high.cast_unsigned())) << 32
}

impl From<Place> for Argument {
    fn from(place: Place) -> Self {
        Self::Place(place)
    }
}

impl From<Option<Place>> for Argument {
    fn from(place: Option<Place>) -> Self {
        Self::Place(place.unwrap_or(Place(0)))
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

/// A size as a kernel's `int`.
fn int(value: usize) -> Argument {
    Argument::Ints(vec![i32_of(value)])
}

/// A size as a kernel's `long long`.
fn long(value: usize) -> Argument {
    Argument::Long(value as i64)
}

fn i32_of(value: usize) -> i32 {
    i32::try_from(value).expect("sizes of a layer are below 2^31")
}

/// The activation's number in `common.cuh`.
fn number(activation: Activation) -> Argument {
    int(match activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Relu6 => 2,
        Activation::HSwish => 3,
        Activation::HSigmoid => 4,
    })
}

/// One kernel to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// The source's name.
    pub module: &'static str,
    /// The kernel's name.
    pub kernel: String,
    /// Blocks of [`THREADS`].
    pub blocks: usize,
    /// In the kernel's order.
    pub arguments: Vec<Argument>,
}

impl Launch {
    fn new(
        module: &'static str,
        kernel: impl Into<String>,
        blocks: usize,
        arguments: impl Into<Vec<Argument>>,
    ) -> Self {
        Self { module, kernel: kernel.into(), blocks, arguments: arguments.into() }
    }
}

/// Adds `splits` partial sums of `count` values each, in order, and writes them to `out` or adds them to it.
fn add_splits(partials: Place, out: Place, count: usize, splits: usize, accumulate: bool) -> Launch {
    let arguments = [partials.into(), out.into(), long(count), int(splits), int(usize::from(accumulate))];
    Launch::new("planes", "add_splits", count.div_ceil(THREADS), arguments)
}

/// Blocks that share each of `rows` rows of `length` values.
fn splits(rows: usize, length: usize) -> usize {
    BUSY.div_ceil(rows.max(1)).clamp(1, (length / LEAST_PART).max(1))
}
