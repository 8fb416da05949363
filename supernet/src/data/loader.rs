//! Batches in order of step, prepared ahead by worker threads; and the plain batches of evaluation and
//! calibration.
//!
//! What a step sees is a pure function of (seed, step): the threads are there for speed alone. Knows nothing of
//! networks; which resolution a step has is told by its caller.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::Dataset;
use super::augment::Augmentation;
use super::images::Images;
use super::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::random::{permutation, rng_for};

/// How many batches of each worker lie ready: one being used, one waiting hides the work without holding much memory.
const AHEAD: usize = 2;

/// Largest side of an image that a network takes.
const MOST_SIDE: usize = 4096;

/// Images with their labels, on the CPU.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Normalised images [N, C, r, r], f32.
    pub images: Tensor,
    /// The class of each image.
    pub labels: Vec<u32>,
}

impl Batch {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The same where these kernels compute.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn on(self, kernels: Kernels) -> Result<Self> {
        Ok(Self { images: self.images.to_device(&kernels.device())?, ..self })
    }

    /// Whether there is no image; no function of this crate returns such a batch.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Normalised values of the images `indices`, as `fill` writes them into the planes of each image.
    fn of(
        set: &Images,
        indices: &[usize],
        resolution: usize,
        fill: impl FnOnce(&mut [f32], usize) -> Result<()>,
    ) -> Result<Self> {
        let channels = set.channels();
        let size = channels * resolution.min(MOST_SIDE) * resolution.min(MOST_SIDE);
        if !(1..=MOST_SIDE).contains(&resolution) {
            return Err(Error::invalid("batch", "resolution", format!("1 to {MOST_SIDE}"), resolution));
        }
        let mut values = vec![0f32; indices.len() * size];
        fill(&mut values, size)?;
        let shape = (indices.len(), channels, resolution, resolution);
        let images = Tensor::from_vec(values, shape, &Device::Cpu)?;
        Ok(Self { images, labels: indices.iter().map(|index| set.labels()[*index]).collect() })
    }
}

/// What a [`TrainLoader`] does with the training images.
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Images a batch; at least 1, at most as many as the data set has.
    pub batch: usize,
    /// The seed of order and augmentation.
    pub seed: u64,
    /// How the images are varied.
    pub augmentation: Augmentation,
}

/// Training batches in order of step, without end. Dropping it stops its threads.
///
/// Each epoch is a new order of the images, cut into batches; the last, incomplete batch is dropped. Images in memory
/// are prepared by one thread; image files by as many as compute, each making every so many-th batch.
#[derive(Debug)]
pub struct TrainLoader {
    stream: Arc<Stream>,
    workers: Vec<Worker>,
    /// Whose batch is next.
    turn: usize,
}

#[derive(Debug)]
struct Worker {
    batches: Receiver<Result<Batch>>,
    thread: JoinHandle<()>,
}

impl TrainLoader {
    /// Starts to prepare the batches from `first_step` on, each at the resolution that `resolution_of(step)`
    /// tells.
    ///
    /// # Errors
    /// If the batch is empty or larger than the set of training images.
    pub fn new(
        dataset: Arc<Dataset>,
        config: LoaderConfig,
        first_step: u64,
        resolution_of: impl Fn(u64) -> usize + Clone + Send + 'static,
    ) -> Result<Self> {
        let workers = if dataset.train().in_memory() { 1 } else { rayon::current_num_threads() };
        let stream = Arc::new(Stream::new(dataset, config)?);
        let start = |worker: usize| {
            let (sender, batches) = sync_channel(AHEAD);
            let (own, resolution_of) = (Arc::clone(&stream), resolution_of.clone());
            let steps = (first_step + worker as u64..).step_by(workers);
            std::thread::Builder::new()
                .name("batches".to_owned())
                .spawn(move || own.send_batches(steps, resolution_of, &sender))
                .map(|thread| Worker { batches, thread })
                .map_err(|error| Error::invalid("loader", "worker", "a thread", error))
        };
        let workers = (0..workers).map(start).collect::<Result<_>>()?;
        Ok(Self { stream, workers, turn: 0 })
    }

    /// The batch of the next step; waits until it is ready.
    ///
    /// # Errors
    /// If the batch could not be made. The loader has stopped then, and every later call is an error.
    #[expect(clippy::should_implement_trait, reason = "batches never end, and an error ends them")]
    pub fn next(&mut self) -> Result<Batch> {
        let received = self.workers.get(self.turn).and_then(|worker| worker.batches.recv().ok());
        let batch = received.unwrap_or_else(|| {
            Err(Error::invalid("loader", "next", "a running loader", "one that stopped after an error"))
        });
        match batch {
            Ok(_) => self.turn = (self.turn + 1) % self.workers.len(),
            Err(_) => self.stop(),
        }
        batch
    }

    fn stop(&mut self) {
        for Worker { batches, thread } in self.workers.drain(..) {
            // a worker that waits for room in the channel is woken by the receiver's end
            drop(batches);
            // its panics were caught and sent; there is nothing left to report
            let _ = thread.join();
        }
    }

    /// The batch of `step` at `resolution`: what [`TrainLoader::next`] returns when it comes to that step.
    ///
    /// # Errors
    /// If `resolution` is 0.
    pub fn batch_at(&self, step: u64, resolution: usize) -> Result<Batch> {
        self.stream.batch_at(step, resolution)
    }

    /// How many steps see every image once (but those of the incomplete batch).
    pub fn steps_per_epoch(&self) -> u64 {
        self.stream.steps_per_epoch
    }
}

impl Drop for TrainLoader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The batches as a function of the step.
#[derive(Debug)]
struct Stream {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    steps_per_epoch: u64,
    /// The order of the epoch asked for last, since it is asked for again and again.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

impl Stream {
    fn new(dataset: Arc<Dataset>, config: LoaderConfig) -> Result<Self> {
        let images = dataset.train().len();
        if !(1..=images).contains(&config.batch) {
            let expected = format!("1 to {images}, the number of training images");
            return Err(Error::invalid(dataset.name(), "batch", expected, config.batch)
                .and_then_do("choose a smaller batch"));
        }
        let steps_per_epoch = (images / config.batch) as u64;
        Ok(Self { dataset, config, steps_per_epoch, order: Mutex::new(None) })
    }

    fn batch_at(&self, step: u64, resolution: usize) -> Result<Batch> {
        let LoaderConfig { batch, seed, augmentation } = &self.config;
        let order = self.order_of(step / self.steps_per_epoch);
        let start = (step % self.steps_per_epoch) as usize * batch;
        let (set, preprocess) = (self.dataset.train(), self.dataset.preprocess());
        let indices = &order[start..start + batch];
        Batch::of(set, indices, resolution, |values, size| {
            // on this thread, not the pool's: whoever waits for a batch may sit on the pool's only worker
            values.chunks_exact_mut(size).zip(indices).try_for_each(|(planes, index)| {
                let mut rng = rng_for("augmentation", *seed, &[step, *index as u64]);
                let loaded = set.load(*index)?;
                augmentation.train_view(loaded.image()?, resolution, preprocess, &mut rng, planes);
                Ok(())
            })
        })
    }

    fn order_of(&self, epoch: u64) -> Arc<Vec<usize>> {
        // a panic cannot leave half an order behind: it is set in one assignment
        let mut last = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, order)) if *known == epoch => Arc::clone(order),
            _ => {
                let mut rng = rng_for("order of images", self.config.seed, &[epoch]);
                let order = Arc::new(permutation(self.dataset.train().len(), &mut rng));
                *last = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    /// A worker's life: until nobody listens, or a batch fails.
    fn send_batches(
        &self,
        steps: impl Iterator<Item = u64>,
        resolution_of: impl Fn(u64) -> usize,
        sender: &SyncSender<Result<Batch>>,
    ) {
        for step in steps {
            let batch = catch_unwind(AssertUnwindSafe(|| self.batch_at(step, resolution_of(step))))
                .unwrap_or_else(|panic| Err(panicked(step, panic.as_ref())));
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    }
}

fn panicked(step: u64, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Error::invalid("loader", format!("batch of step {step}"), "a batch", format!("a panic: {text}"))
}

/// All images of `set` in order, unvaried, as `preprocess` says, `batch` at a time (0 counts as 1); the last batch may
/// be smaller.
///
/// # Errors
/// Each item, if `resolution` is 0.
pub fn eval_batches<'a>(
    set: &'a Images,
    preprocess: &'a Preprocess,
    resolution: usize,
    batch: usize,
) -> impl Iterator<Item = Result<Batch>> + 'a {
    plain_batches(set, preprocess, (0..set.len()).collect(), [batch, resolution])
}

/// `images` training images drawn by `seed` without replacement, or all if there are fewer; unvaried, seen as evaluation
/// sees images, `batch` at a time (0 counts as 1).
///
/// For the statistics of batch normalisation; OFA takes 2,000 images in batches of 200 to evaluate (its
/// `set_running_statistics`), as random crops with varied colours. Here they are what evaluation shows: objects in a random
/// crop appear larger than in the middle square (Touvron et al. 2019, FixRes), so that statistics of crops are not those
/// of the images to be classified; and nothing random need be stored to check an export. Validation and test images are
/// never among them.
///
/// # Errors
/// Each item, if `resolution` is 0.
pub fn calibration_batches(
    dataset: &Dataset,
    images: usize,
    batch: usize,
    resolution: usize,
    seed: u64,
) -> impl Iterator<Item = Result<Batch>> + '_ {
    let mut drawn = permutation(dataset.train().len(), &mut rng_for("calibration images", seed, &[]));
    drawn.truncate(images);
    plain_batches(dataset.train(), dataset.preprocess(), drawn, [batch, resolution])
}

fn plain_batches<'a>(
    set: &'a Images,
    preprocess: &'a Preprocess,
    indices: Vec<usize>,
    [batch, resolution]: [usize; 2],
) -> impl Iterator<Item = Result<Batch>> + 'a {
    let batch = batch.max(1);
    let view =
        move |(planes, index): (&mut [f32], &usize)| set.plain_view(*index, resolution, preprocess, planes);
    (0..indices.len()).step_by(batch).map(move |start| {
        let end = (start + batch).min(indices.len());
        let indices = &indices[start..end];
        Batch::of(set, indices, resolution, |values, size| {
            // whoever asks for these batches computes on the pool, or waits outside it: the pool is free to decode
            values.par_chunks_exact_mut(size).zip(indices).try_for_each(view)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageSet, Origin, Splits, numbered_classes};

    fn varied() -> Augmentation {
        let ratio = [3.0 / 4.0, 4.0 / 3.0];
        Augmentation { min_area: 0.5, ratio, flip: true, brightness: 0.0, saturation: 0.0 }
    }

    fn config(batch: usize, seed: u64) -> LoaderConfig {
        LoaderConfig { batch, seed, augmentation: varied() }
    }

    /// 23 training images of 4 x 4 pixels; image i has label i.
    fn dataset() -> Arc<Dataset> {
        let set = |count: u32| {
            let pixels = (0..count * 16).map(|i| (i * i % 251) as u8).collect();
            Images::from(ImageSet::new(pixels, (0..count).collect(), [4, 4, 1], 23).unwrap())
        };
        let origin = Origin { name: "small".to_owned(), source: String::new(), flip: true };
        let splits = Splits { train: set(23), val: set(1), test: None };
        Arc::new(Dataset::new(origin, numbered_classes(23), splits).unwrap())
    }

    /// Resolutions of 3, 4, 5, 3, …
    fn resolution(step: u64) -> usize {
        3 + (step % 3) as usize
    }

    fn loader(batch: usize, seed: u64, first_step: u64) -> TrainLoader {
        TrainLoader::new(dataset(), config(batch, seed), first_step, resolution).unwrap()
    }

    type Content = (Vec<usize>, Vec<u32>, Vec<f32>);

    fn content(batch: Result<Batch>) -> Content {
        let batch = batch.unwrap();
        let values = batch.images.flatten_all().unwrap().to_vec1().unwrap();
        (batch.images.dims().to_vec(), batch.labels, values)
    }

    #[test]
    fn batches_come_in_order_of_step() {
        let mut loader = loader(5, 1, 0);
        for step in 0..10 {
            let (dims, labels, values) = content(loader.next());
            assert_eq!(dims, [5, 1, resolution(step), resolution(step)]);
            assert_eq!((dims, labels, values), content(loader.batch_at(step, resolution(step))));
        }
    }

    #[test]
    fn a_loader_can_start_anywhere() {
        let mut early = loader(5, 1, 0);
        for _ in 0..7 {
            early.next().unwrap();
        }
        let mut late = loader(5, 1, 7);
        for _ in 0..3 {
            assert_eq!(content(early.next()), content(late.next()));
        }
    }

    #[test]
    fn an_epoch_shows_each_image_at_most_once() {
        let loader = loader(5, 1, 0);
        assert_eq!(loader.steps_per_epoch(), 4);
        let epoch = |epoch: u64| -> Vec<u32> {
            (epoch * 4..epoch * 4 + 4).flat_map(|step| loader.batch_at(step, 4).unwrap().labels).collect()
        };
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        for mut labels in [first, second] {
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), 20);
        }
    }

    #[test]
    fn the_seed_and_the_step_change_what_is_seen() {
        let (one, two) = (loader(23, 1, 0), loader(23, 2, 0));
        let views = |loader: &TrainLoader, step| {
            let (_, labels, values) = content(loader.batch_at(step, 4));
            let mut views: Vec<_> = labels.into_iter().zip(values.chunks(16).map(<[f32]>::to_vec)).collect();
            views.sort_by_key(|(label, _)| *label);
            views
        };
        assert_ne!(views(&one, 0), views(&two, 0));
        assert_ne!(views(&one, 0), views(&one, 1));
        assert_eq!(views(&one, 1), views(&loader(23, 1, 0), 1));
    }

    #[test]
    fn a_batch_must_fit_the_set() {
        for batch in [0, 24] {
            let error = TrainLoader::new(dataset(), config(batch, 0), 0, resolution).unwrap_err().to_string();
            assert!(error.starts_with("small: batch: expected 1 to 23, the number of training"), "{error}");
        }
    }

    #[test]
    fn a_panic_in_the_worker_is_an_error() {
        let resolution = |step| if step == 2 { panic!("no step {step}") } else { 4 };
        let mut loader = TrainLoader::new(dataset(), config(5, 0), 1, resolution).unwrap();
        loader.next().unwrap();
        let error = loader.next().unwrap_err().to_string();
        assert_eq!(error, "loader: batch of step 2: expected a batch, got a panic: no step 2");
        assert!(loader.next().unwrap_err().to_string().contains("stopped after an error"));
    }

    #[test]
    fn a_resolution_of_zero_is_an_error() {
        let mut loader = TrainLoader::new(dataset(), config(5, 0), 0, |_| 0).unwrap();
        assert!(loader.next().unwrap_err().to_string().contains("resolution: expected 1 to 4096, got 0"));
    }

    #[test]
    fn dropping_the_loader_stops_its_worker() {
        let held = dataset();
        let mut loader = TrainLoader::new(Arc::clone(&held), config(5, 0), 0, resolution).unwrap();
        loader.next().unwrap();
        drop(loader);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn evaluation_sees_all_images_in_order() {
        let dataset = dataset();
        let set = dataset.train();
        let batches: Vec<Content> = eval_batches(set, dataset.preprocess(), 4, 10).map(content).collect();
        assert_eq!(batches.iter().map(|(dims, ..)| dims[0]).collect::<Vec<_>>(), [10, 10, 3]);
        let labels: Vec<u32> = batches.iter().flat_map(|(_, labels, _)| labels.clone()).collect();
        assert_eq!(labels, set.labels());
        let (mean, std) = (dataset.normalisation().mean()[0], dataset.normalisation().std()[0]);
        let first = set.load(0).unwrap();
        let pixels = first.image().unwrap().pixels();
        let expected = pixels.iter().map(|pixel| (f32::from(*pixel) / 255.0 - mean) / std);
        assert_eq!(batches[0].2[..16], expected.collect::<Vec<_>>());
    }

    #[test]
    fn calibration_draws_training_images_once() {
        let dataset = dataset();
        let draw = |images, seed| -> Vec<Vec<u32>> {
            calibration_batches(&dataset, images, 4, 3, seed).map(|batch| batch.unwrap().labels).collect()
        };
        assert_eq!(draw(10, 1).iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(draw(10, 1), draw(10, 1));
        assert_ne!(draw(10, 1), draw(10, 2));
        let mut all = draw(1000, 1).concat();
        all.sort_unstable();
        assert_eq!(all, (0..23).collect::<Vec<_>>());
    }
}
