//! Estimate of the memory that a training takes, made before it begins.
//!
//! The estimate counts tensors by the sizes of layers; docs/BENCHMARKS.md compares it with real runs.

use kernels::Precision;
use network::data::{ImageCounts, TrainLoader};
use network::elastic::shared_specs;
use network::eval::Calibration;
use network::nn::Footprint;
use serde::Serialize;
use space::{Arch, Extent, LayerSpec, SearchSpace, WeightSpec, sampler};

use super::architecture::ArchitectureRule;
use super::recipe::Recipe;
use super::teacher::TeacherFile;
use crate::error::{Error, Result};

/// Bytes of a value.
const VALUE: u64 = 4;

/// Bytes that views of one split's images, kept for evaluation, may take.
const MOST_VIEWS: u64 = 1 << 30;

/// Bytes that a thread takes to decode an image file: those of a photograph of two megapixels.
const DECODED: u64 = 8_000_000;

/// Bytes that a thread takes for parts of matrices.
const PACKED: u64 = 2_000_000;

/// Bytes of the patches that a dense convolution makes at a time, unless one image has more.
const PATCHES: u64 = 4 << 20;

/// Bytes that the allocator retains after they are freed, next to a tenth of the passes' memory:
/// `supernet/benches/memory.py`.
const KEPT: u64 = 45_000_000;

/// Peak memory of a training in addition to what the process holds already, in bytes by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryEstimate {
    /// Weights, gradients, the optimizer's state, and a teacher's weights.
    pub weights: u64,
    /// These and the files of weights while they are read, when no step is taken.
    pub reading: u64,
    /// Activations of a step of the largest network at the highest resolution.
    pub step: u64,
    /// Activations when that network is calibrated and evaluated, in batches of another size.
    pub evaluation: u64,
    /// Batches that are ready, images being decoded, and views retained for evaluation.
    pub images: u64,
    /// Working memory of the kernels.
    pub kernels: u64,
    /// Images per step.
    pub batch: usize,
    /// Images evaluated at once.
    pub evaluated: usize,
    /// The highest resolution, pixels.
    pub resolution: Extent,
}

/// The parts of a training that the memory of passes depends on.
struct Subject {
    footprint: Footprint,
    channels: usize,
    resolution: Extent,
    batch: usize,
    /// Parts that a batch is computed in.
    parts: usize,
}

/// The parts of a supernet's training that memory depends on.
pub struct SpaceTraining<'a> {
    /// The space.
    pub space: &'a SearchSpace,
    /// The recipe, of which the optimizer, the average and the parts of a batch count.
    pub recipe: &'a Recipe,
    /// The teacher file, if any.
    pub teacher: Option<&'a TeacherFile>,
    /// Images per step.
    pub batch: usize,
    /// Whether the run reads a checkpoint.
    pub resumed: bool,
}

impl MemoryEstimate {
    /// The memory of a supernet's training. A teacher file's weights are counted although they may be held already:
    /// on a GPU they are copies.
    ///
    /// # Errors
    /// If a space cannot be lowered, which a checked one can.
    pub fn of_training(training: &SpaceTraining, images: ImageCounts) -> Result<Self> {
        let SpaceTraining { space, recipe, teacher, batch, resumed } = *training;
        let arch = sampler::largest(space).at(space.greatest_resolution());
        let mut footprint = Footprint::of(&space.lower(&arch)?);
        // a layer with a larger kernel may be smaller in all else
        let narrow = space.at_resolutions(&[arch.resolution])?;
        let alone = narrow.weights().specs().into_iter().map(|layer| Footprint::of(&[layer]).patches);
        footprint.patches = alone.max().unwrap_or(0).max(footprint.patches);
        if recipe.architecture.is_some_and(|architecture| architecture.by == ArchitectureRule::Darts) {
            let mixed = space.mixed_genes();
            let genome = space.genome();
            let values = |gene: usize| match mixed.contains(&gene) {
                true => genome.allowed(gene).to_vec(),
                false => vec![genome.allowed(gene)[0]],
            };
            let values: Vec<Vec<space::Index>> = (0..genome.len()).map(values).collect();
            let mixture = space.mixture(&values, arch.resolution)?;
            footprint.training = footprint.training.max(Footprint::of(&mixture.layers).training);
        }
        // the teacher's pass has ended when the students' begin
        footprint.training = footprint.training.max(footprint.forgetting);
        if let Some(teacher) = teacher {
            let forgetting = Footprint::of(&teacher.layers(arch.resolution)?).forgetting;
            footprint.training = footprint.training.max(forgetting);
        }
        let one = bytes_of(&shared_specs(space));
        let average = u64::from(recipe.ema_decay.is_some());
        let remembered = recipe.optimizer.values_per_weight() + average;
        let taught = teacher.map_or(0, |teacher| VALUE * teacher.values() as u64);
        // fresh tensors are held until a checkpoint's replace them, and a file's bytes next to its tensors
        let fresh = 2 + remembered;
        let checkpoint = 1 + remembered;
        let reading = fresh + 2 * if resumed { checkpoint } else { 1 };
        let subject = Subject { parts: recipe.accumulation, ..Subject::new(footprint, space, &arch, batch) };
        let weights = (3 + remembered) * one + taught;
        let reading = reading * one + taught;
        Ok(Self { weights, reading, ..subject.estimate(images) })
    }

    /// The memory of fine-tuning a network, if its weights and its teacher's are held already.
    ///
    /// # Errors
    /// If a space cannot be lowered, which a checked one can.
    pub fn of_fine_tuning(
        space: &SearchSpace,
        arch: &Arch,
        teacher: Option<&SearchSpace>,
        batch: usize,
        images: ImageCounts,
    ) -> Result<Self> {
        let layers = space.lower(arch)?;
        let mut footprint = Footprint::of(&layers);
        if let Some(teacher) = teacher {
            let largest = teacher.lower(&sampler::largest(teacher).at(arch.resolution))?;
            footprint.training = footprint.training.max(Footprint::of(&largest).forgetting);
        }
        let one = bytes_of(&layers.iter().flat_map(LayerSpec::weights).collect::<Vec<_>>());
        let subject = Subject::new(footprint, space, arch, batch);
        Ok(Self { weights: 3 * one, reading: 5 * one, ..subject.estimate(images) })
    }

    /// The estimate for another precision: in bf16, activations take half, and the operands of products are copied.
    #[must_use]
    pub fn computed_in(self, precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Tf32 => self,
            Precision::Bf16 => Self {
                weights: self.weights + self.weights / 8,
                step: self.step / 2,
                evaluation: self.evaluation / 2,
                ..self
            },
        }
    }

    /// The total at its peak.
    pub fn total(&self) -> u64 {
        let passes = self.step.max(self.evaluation);
        let kept = KEPT + passes / 10;
        self.images + self.kernels + kept + (self.weights + passes).max(self.reading)
    }

    /// Checks that there is room. The process holds `held` bytes already, and `left` more are available.
    ///
    /// # Errors
    /// If there is no room; the message lists the largest parts.
    pub fn check(&self, held: u64, left: u64) -> Result<()> {
        if self.total() <= left {
            return Ok(());
        }
        let expected = format!("at most {} (available)", readable(held + left));
        let got = format!("about {} ({})", readable(held + self.total()), self.in_words());
        let next = match self.evaluation > self.step {
            // the batches of an evaluation have a fixed size
            true => "take lower resolutions, or --force",
            false => "lower --batch, or --force",
        };
        Err(Error::NoRoom(base::Error::invalid("training", "memory", expected, got).and_then_do(next)))
    }

    /// The largest parts: `1.8 GB for activations of a batch of 64 at 224 pixels, 124 MB for weights, …`.
    pub fn in_words(&self) -> String {
        let Self { batch, evaluated, resolution, .. } = self;
        let passes = match self.evaluation > self.step {
            true => {
                format!("{} to evaluate {evaluated} images at {resolution} pixels", readable(self.evaluation))
            }
            false => format!(
                "{} for activations of a batch of {batch} at {resolution} pixels",
                readable(self.step)
            ),
        };
        let weights = readable(self.weights);
        let images = readable(self.images);
        format!("{passes}, {weights} for weights, gradients and the optimizer's state, {images} for images")
    }
}

impl Subject {
    fn new(footprint: Footprint, space: &SearchSpace, arch: &Arch, batch: usize) -> Self {
        Self { footprint, channels: space.input_channels(), resolution: arch.resolution, batch, parts: 1 }
    }

    /// The estimate without the weights.
    fn estimate(&self, images: ImageCounts) -> MemoryEstimate {
        let Self { footprint, resolution, .. } = *self;
        let batch = self.batch.min(images.train);
        let evaluated = Calibration::default().batch.min(images.train.max(images.val));
        let image = (self.channels * resolution.plane()) as u64;
        let values = |count: usize, each: usize| VALUE * (count * each) as u64;
        // if images are files, the next batch is made meanwhile
        let made = if images.in_memory { 1 } else { 2 };
        let threads = rayon::current_num_threads() as u64;
        let computed = batch.div_ceil(self.parts);
        let scratch = values(computed.max(evaluated), footprint.scratch);
        MemoryEstimate {
            weights: 0,
            reading: 0,
            step: values(computed, footprint.training),
            evaluation: values(evaluated, footprint.forgetting) + made * VALUE * image * evaluated as u64,
            images: self.batches(image, &images) + views(image, &images),
            kernels: threads * (PACKED + scratch) + PATCHES.max(values(1, footprint.patches)),
            batch,
            evaluated,
            resolution,
        }
    }

    /// Bytes of the batches that the loader holds, and of what its workers decode.
    fn batches(&self, image: u64, images: &ImageCounts) -> u64 {
        let decoded = if images.in_memory { 0 } else { DECODED * rayon::current_num_threads() as u64 };
        TrainLoader::most_batches(images.in_memory) as u64 * self.batch as u64 * image * VALUE + decoded
    }
}

/// Bytes of the views of image files that are retained for calibration and evaluation.
fn views(image: u64, images: &ImageCounts) -> u64 {
    if images.in_memory {
        return 0;
    }
    let calibrated = Calibration::default().images.min(images.train);
    [calibrated, images.val].map(|count| (image * count as u64).min(MOST_VIEWS)).iter().sum()
}

fn bytes_of(specs: &[WeightSpec]) -> u64 {
    VALUE * specs.iter().map(|spec| spec.shape.iter().product::<usize>() as u64).sum::<u64>()
}

/// An amount of memory with two or three digits: `940 MB`, `12.3 GB`.
pub fn readable(bytes: u64) -> String {
    match bytes {
        0..1_000_000_000 => format!("{:.0} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::train::optimizer::OptimizerSettings;
    use space::preset;

    const FILES: ImageCounts = ImageCounts { train: 10_000, val: 1_000, in_memory: false };

    static RECIPE: LazyLock<Recipe> = LazyLock::new(Recipe::progressive);

    fn training(space: &SearchSpace, batch: usize) -> SpaceTraining<'_> {
        SpaceTraining { space, recipe: &RECIPE, teacher: None, batch, resumed: false }
    }

    fn estimate(name: &str, batch: usize) -> MemoryEstimate {
        let space = preset(name).expect("a preset");
        MemoryEstimate::of_training(&training(&space, batch), FILES).expect("a checked space")
    }

    #[test]
    fn the_state_of_the_optimizer_is_counted() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let adamw = OptimizerSettings::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let adamw = Recipe { optimizer: adamw, ..RECIPE.clone() };
        let averaged = Recipe { ema_decay: Some(0.99), ..RECIPE.clone() };
        let of = |recipe, resumed| {
            let training = SpaceTraining { recipe, resumed, ..training(&space, 32) };
            let estimate = MemoryEstimate::of_training(&training, FILES).expect("a checked space");
            [estimate.weights, estimate.reading].map(|bytes| bytes / (4 * 7_678_880))
        };
        assert_eq!([of(&RECIPE, false), of(&RECIPE, true)], [[4, 5], [4, 7]]);
        assert_eq!([of(&adamw, false), of(&adamw, true)], [[5, 6], [5, 10]]);
        assert_eq!(of(&averaged, true), [5, 10], "an average is one more value for each weight");
    }

    #[test]
    fn a_step_grows_with_its_batch_and_weights_do_not() {
        let [small, large] = [64, 128].map(|batch| estimate("ofa-mbv3-w1.0", batch));
        assert_eq!(large.step, 2 * small.step);
        assert_eq!((large.weights, large.evaluation), (small.weights, small.evaluation));
        assert_eq!(small.weights, 4 * 4 * 7_678_880, "as many parameters as `ofa` has");
        // 2,000 and 1,000 views of 3 x 224 x 224 bytes
        assert!(small.images > 3_000 * 3 * 224 * 224);
        assert!(small.total() < large.total());
    }

    #[test]
    fn a_batch_in_parts_takes_the_memory_of_one() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let recipe = Recipe { accumulation: 4, ..RECIPE.clone() };
        let training = SpaceTraining { recipe: &recipe, ..training(&space, 64) };
        let parts = MemoryEstimate::of_training(&training, FILES).expect("a checked space");
        assert_eq!(parts.step, estimate("ofa-mbv3-w1.0", 16).step);
        assert_eq!(parts.images, estimate("ofa-mbv3-w1.0", 64).images);
    }

    #[test]
    fn no_more_images_than_there_are_are_counted() {
        let space = preset("tiny").expect("a preset");
        let few = ImageCounts { train: 20, val: 5, in_memory: true };
        let estimate = MemoryEstimate::of_training(&training(&space, 64), few).expect("a checked space");
        assert_eq!((estimate.batch, estimate.evaluated), (20, 20));
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused_with_figures() {
        let estimate = estimate("ofa-mbv3-w1.0", 256);
        let total = estimate.total();
        assert!(estimate.check(0, total).is_ok());
        let error = estimate.check(1_000_000_000, total - 1).expect_err("a byte too few").to_string();
        assert!(error.starts_with("training: memory: expected at most "), "{error}");
        assert!(error.contains(" GB for activations of a batch of 256 at 224 pixels, 123 MB for"), "{error}");
        assert!(error.ends_with("; lower --batch, or --force"), "{error}");
        let other = super::tests::estimate("ofa-mbv3-w1.0", 8);
        let error = other.check(0, 1).expect_err("a byte").to_string();
        assert!(error.contains("to evaluate 200 images at 224 pixels"), "{error}");
    }

    #[test]
    fn a_fine_tuning_holds_one_network() {
        let space = preset("ofa-mbv3-w1.0").expect("a preset");
        let arch = sampler::smallest(&space);
        let teacher = Some(&space);
        let of = |teacher| {
            MemoryEstimate::of_fine_tuning(&space, &arch, teacher, 32, FILES).expect("a checked space")
        };
        assert_eq!(of(teacher).weights, of(None).weights);
        assert!(of(teacher).step >= of(None).step);
        assert!(of(None).step < estimate("ofa-mbv3-w1.0", 32).step);
    }
}
