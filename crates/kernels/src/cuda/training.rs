//! The loss and the optimizer.

use super::{Argument, Launch, Place, i32_of, int, long};
use crate::cpu::updates::AdamWStep;

/// Values of a parameter per block, `CHUNK` in the source.
pub const CHUNK: usize = 4096;

/// One parameter tensor, as `struct Parameter` of the source.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub value: Place,
    pub gradient: Place,
    pub velocity: Place,
    pub length: i64,
    pub weight_decay: f32,
}

impl Parameter {
    /// Words of 8 bytes.
    pub const WORDS: usize = 5;

    /// The struct as it lies in memory.
    pub fn words(&self) -> [i64; Self::WORDS] {
        let [value, gradient, velocity] =
            [self.value, self.gradient, self.velocity].map(|place| place.0.cast_signed());
        [value, gradient, velocity, self.length, i64::from(self.weight_decay.to_bits())]
    }
}

/// The parts of parameters that the blocks of [`nesterov`] and [`adamw`] take, pairs as `struct Chunk` of the source.
pub fn chunks(lengths: &[usize]) -> Vec<[i32; 2]> {
    let mut chunks = Vec::new();
    for (parameter, length) in lengths.iter().enumerate() {
        for index in 0..length.div_ceil(CHUNK) {
            chunks.push([parameter as i32, index as i32]);
        }
    }
    chunks
}

/// Nesterov's step over all parameters at once: tables of [`Parameter`] and of [`chunks`] on the device.
pub fn nesterov(parameters: Place, chunks: Place, count: usize, lr: f32, momentum: f32) -> Launch {
    Launch::new("training", "nesterov", count, [parameters.into(), chunks.into(), lr.into(), momentum.into()])
}

/// One parameter tensor with its moments and the constants of its own step, as `struct Adapted` of the source.
#[derive(Clone, Copy, Debug)]
pub struct Adapted {
    pub value: Place,
    pub gradient: Place,
    pub moments: [Place; 2],
    pub length: i64,
    pub step: AdamWStep,
}

impl Adapted {
    /// Words of 8 bytes.
    pub const WORDS: usize = 7;

    /// The struct as it lies in memory.
    pub fn words(&self) -> [i64; Self::WORDS] {
        let [first, second] = self.moments;
        let [value, gradient, first, second] =
            [self.value, self.gradient, first, second].map(|place| place.0.cast_signed());
        let bits = |value: f32| value.to_bits().cast_signed();
        let AdamWStep { keep, rate, root, .. } = self.step;
        [value, gradient, first, second, self.length, pair(bits(keep), bits(rate)), pair(bits(root), 0)]
    }
}

/// AdamW's step over all parameters at once: tables of [`Adapted`] and of [`chunks`] on the device. Constants
/// that all parameters share are read from `shared`.
pub fn adamw(parameters: Place, chunks: Place, count: usize, shared: AdamWStep) -> Launch {
    let AdamWStep { first_share, second_keep, second_share, epsilon, .. } = shared;
    let mut arguments: Vec<Argument> = vec![parameters.into(), chunks.into()];
    arguments.extend([first_share, second_keep, second_share, epsilon].map(Argument::from));
    Launch::new("training", "adamw", count, arguments)
}

/// A weight and its operand, as `struct Weight` of the source.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    pub from: Place,
    pub to: Place,
    pub count: usize,
    pub columns: usize,
    pub stride: usize,
}

impl Weight {
    /// The struct in words, as it lies in memory.
    pub fn words(&self) -> [i64; 4] {
        let [from, to] = [self.from, self.to].map(|place| place.0.cast_signed());
        [from, to, self.count as i64, pair(i32_of(self.columns), i32_of(self.stride))]
    }
}

/// Two integers as they lie in memory one after the other.
pub fn pair(first: i32, second: i32) -> i64 {
    i64::from(first.cast_unsigned()) | i64::from(second) << 32
}

/// Copies weights to the storage of activations: tables of [`Weight`] and of [`chunks`] on the device.
pub fn take_weights(weights: Place, chunks: Place, count: usize) -> Launch {
    Launch::new("training", "take_weights", count, [weights.into(), chunks.into()])
}

/// Clamps `count` values to at most `most` in size.
pub fn clamp_values(values: Place, most: f32, count: usize) -> Launch {
    let arguments = [values.into(), most.into(), long(count)];
    Launch::new("training", "clamp_values", count.div_ceil(CHUNK), arguments)
}

/// Moves `count` values toward others by a share of the way.
pub fn move_toward(values: Place, to: Place, share: f32, count: usize) -> Launch {
    let arguments = [values.into(), to.into(), share.into(), long(count)];
    Launch::new("training", "move_toward", count.div_ceil(CHUNK), arguments)
}

/// Places and sizes of a cross-entropy, all values f32 but the labels.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropyPlaces {
    /// `[N, classes]`.
    pub logits: Place,
    /// u32, `[N]`.
    pub labels: Place,
    /// A teacher's logits, `[N, classes]`.
    pub teacher: Option<Place>,
    /// Factor of each image, `[N]`.
    pub scales: Option<Place>,
    /// Each image's loss, written, `[N]`.
    pub losses: Place,
    /// The gradient of the logits, written, `[N, classes]`.
    pub gradient: Place,
    /// N.
    pub images: usize,
    pub classes: usize,
}

/// Each image's cross-entropy, and the gradient of the mean at the logits; both multiplied by the image's scale, if there
/// are scales. `hard` is the weight of the labels' part, beside 1 of the teacher's.
pub fn cross_entropy(places: &CrossEntropyPlaces, smoothing: f32, hard: f32) -> Launch {
    let &CrossEntropyPlaces { logits, labels, teacher, scales, losses, gradient, images, classes } = places;
    let mut arguments: Vec<Argument> = [logits, labels].map(Argument::from).into();
    arguments.extend([teacher.into(), scales.into(), losses.into(), gradient.into()]);
    arguments.extend([int(images), int(classes), smoothing.into(), hard.into()]);
    Launch::new("training", "cross_entropy", images, arguments)
}
