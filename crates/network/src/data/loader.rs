//! Training batches in order of step, prepared ahead by threads of their own.
//!
//! A step's images are a pure function of (seed, step): the threads are there for speed alone. Knows nothing of
//! networks; the caller gives the resolution of a step.
//!
//! Commands run on a thread of rayon's pool, so decoding has threads of its own and never waits for that pool. Two workers make
//! batches with all of them, so that a few batches are ready at any number of threads.

use space::Extent;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use base::random::rng_for;

use super::Dataset;
use super::augment::{Augmentation, Crop, Part, Wanted};
use super::batch::{Batch, Team, caught};
use super::order::{Sampling, views};
use crate::error::{Error, Result};

/// Workers that make batches of image files, in turns: while one waits for its last image the other goes on.
const WORKERS: usize = 2;

/// Finished batches that wait in each worker's queue. With the batch that it is making, each worker holds at
/// most two, whatever the number of threads.
const AHEAD: usize = 1;

/// Settings of a [`TrainLoader`].
#[derive(Debug, Clone)]
pub struct LoaderConfig {
    /// Images per batch: at least 1, at most the size of the data set.
    pub batch: usize,
    /// The seed of order and augmentation.
    pub seed: u64,
    /// Variation of the images.
    pub augmentation: Augmentation,
    /// Order and frequency of the images in an epoch.
    pub sampling: Sampling,
}

/// Training batches in order of step, without end. Dropping it stops its threads.
///
/// Each epoch is a new order of the images ([`Sampling`]), cut into batches; the last, incomplete batch is
/// dropped. Images in memory are prepared by one thread, image files by as many threads as compute. At most
/// four batches exist at a time, in addition to the one in use.
#[derive(Debug)]
pub struct TrainLoader {
    stream: Arc<Stream>,
    abandoned: Arc<AtomicBool>,
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
    /// gives.
    ///
    /// # Errors
    /// If the batch is empty or larger than the set of training images.
    pub fn new(
        dataset: Arc<Dataset>,
        config: LoaderConfig,
        first_step: u64,
        resolution_of: impl Fn(u64) -> Extent + Clone + Send + 'static,
    ) -> Result<Self> {
        let files = !dataset.train().in_memory();
        let threads = if files { rayon::current_num_threads() } else { 1 };
        let count = workers(!files);
        let stream = Arc::new(Stream::new(dataset, config)?);
        let abandoned = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::with_capacity(count);
        for worker in 0..count {
            let (sender, batches) = sync_channel(AHEAD);
            let own = Arc::clone(&stream);
            let resolution_of = resolution_of.clone();
            let steps = (first_step + worker as u64..).step_by(count);
            let threads = threads.div_ceil(count);
            let abandoned = Arc::clone(&abandoned);
            let thread = std::thread::Builder::new()
                .name("batches".to_owned())
                .spawn(move || {
                    own.send_batches(steps, resolution_of, &Team { threads, abandoned: &abandoned }, &sender)
                })
                .map_err(|error| Error::invalid("loader", "worker", "a thread", error))?;
            workers.push(Worker { batches, thread });
        }
        Ok(Self { stream, abandoned, workers, turn: 0 })
    }

    /// Greatest number of batches at once: those that wait, one that each worker makes, and one in use.
    pub fn most_batches(in_memory: bool) -> usize {
        workers(in_memory) * (AHEAD + 1) + 1
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
        self.abandoned.store(true, Ordering::Relaxed);
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
    pub fn batch_at(&self, step: u64, resolution: impl Into<Extent>) -> Result<Batch> {
        self.stream.batch_at(
            step,
            resolution.into(),
            &Team { threads: 1, abandoned: &AtomicBool::new(false) },
        )
    }

    /// Number of steps that show every image once (but those of the incomplete batch).
    pub fn steps_per_epoch(&self) -> u64 {
        self.stream.steps_per_epoch
    }
}

impl Drop for TrainLoader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Number of workers, which make batches in turn.
fn workers(in_memory: bool) -> usize {
    if in_memory { 1 } else { WORKERS }
}

/// The batches as a function of the step.
#[derive(Debug)]
struct Stream {
    dataset: Arc<Dataset>,
    config: LoaderConfig,
    steps_per_epoch: u64,
    /// The order of the last requested epoch, since it is requested again and again.
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

    fn batch_at(&self, step: u64, resolution: Extent, team: &Team<'_>) -> Result<Batch> {
        let LoaderConfig { batch, seed, augmentation, .. } = &self.config;
        let order = self.order_of(step / self.steps_per_epoch);
        let start = (step % self.steps_per_epoch) as usize * batch;
        let set = self.dataset.train();
        let preprocess = self.dataset.preprocess();
        let indices = &order[start..start + batch];
        let mix = augmentation.mix(resolution, || rng_for("mix", *seed, &[step]));
        let batch = Batch::of(set, indices, resolution, |values, size| {
            let views = views(indices);
            team.fill(values, size, indices, |place, planes| {
                let mut rng = rng_for("augmentation", *seed, &[&[step][..], &views[place]].concat());
                let mut crop = Crop::default();
                let loaded = set.load_at(indices[place], |size| {
                    crop = augmentation.crop(size, resolution, &mut rng);
                    augmentation.fraction(crop, resolution)
                })?;
                let part = Part { image: loaded.image()?, fraction: loaded.fraction(), crop };
                augmentation.show(&part, &Wanted { resolution, preprocess }, &mut rng, planes);
                Ok(())
            })?;
            if let Some(mix) = &mix {
                mix.apply(values, size, resolution);
            }
            Ok(())
        })?;
        Ok(match mix {
            Some(mix) => Batch { targets: batch.targets.mirrored(mix.share()), ..batch },
            None => batch,
        })
    }

    fn order_of(&self, epoch: u64) -> Arc<Vec<usize>> {
        // a panic cannot leave half an order behind: it is set in one assignment
        let mut last = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, order)) if *known == epoch => Arc::clone(order),
            _ => {
                let LoaderConfig { batch, seed, sampling, .. } = self.config;
                let draws = self.steps_per_epoch as usize * batch;
                let order = Arc::new(sampling.order(self.dataset.train().labels(), draws, seed, epoch));
                *last = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    /// Sends batches until the receiver is gone or a batch fails.
    fn send_batches(
        &self,
        steps: impl Iterator<Item = u64>,
        resolution_of: impl Fn(u64) -> Extent,
        team: &Team<'_>,
        sender: &SyncSender<Result<Batch>>,
    ) {
        for step in steps {
            let batch =
                caught(|| format!("batch of step {step}"), || self.batch_at(step, resolution_of(step), team));
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{content, dataset};
    use crate::data::{Partners, RandAugment, Targets};

    fn varied() -> Augmentation {
        let ratio = [3.0 / 4.0, 4.0 / 3.0];
        Augmentation {
            min_area: 0.5,
            ratio,
            min_width: None,
            flip: true,
            brightness: 0.0,
            saturation: 0.0,
            jpeg_oversampling: 0.0,
            rand_augment: None,
            erasing: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
        }
    }

    fn config(batch: usize, seed: u64) -> LoaderConfig {
        LoaderConfig { batch, seed, augmentation: varied(), sampling: Sampling::Shuffled }
    }

    /// Resolutions of 3, 4, 5, 3, …
    fn resolution(step: u64) -> Extent {
        Extent::square(3 + (step % 3) as usize)
    }

    fn loader(batch: usize, seed: u64, first_step: u64) -> TrainLoader {
        TrainLoader::new(dataset(), config(batch, seed), first_step, resolution).unwrap()
    }

    #[test]
    fn batches_come_in_order_of_step() {
        let mut loader = loader(5, 1, 0);
        for step in 0..10 {
            let (dims, labels, values) = content(loader.next());
            assert_eq!(dims, [5, 1, resolution(step).height, resolution(step).width]);
            assert_eq!((dims, labels, values), content(loader.batch_at(step, resolution(step))));
        }
    }

    fn varied_by(change: impl FnOnce(&mut Augmentation)) -> TrainLoader {
        let mut config = config(5, 1);
        change(&mut config.augmentation);
        TrainLoader::new(dataset(), config, 0, resolution).unwrap()
    }

    /// Images of 4 x 4 pixels of the batches of steps 0..40, and their targets.
    fn batches(loader: &TrainLoader) -> Vec<(Vec<Vec<f32>>, Targets)> {
        let batch = |step| {
            let batch = loader.batch_at(step, 4).unwrap();
            let values: Vec<f32> = batch.inputs.flatten_all().unwrap().to_vec1().unwrap();
            (values.chunks(16).map(<[f32]>::to_vec).collect(), batch.targets)
        };
        (0..40).map(batch).collect()
    }

    #[test]
    fn mixup_is_the_linear_combination_of_the_unmixed_batch() {
        let mixed = batches(&varied_by(|augmentation| augmentation.mixup = 0.2));
        for ((images, targets), (plain, labels)) in mixed.iter().zip(batches(&loader(5, 1, 0))) {
            assert_eq!(targets.classes(), labels.classes());
            let Partners { classes, share } = targets.partners().unwrap();
            for at in 0..5 {
                assert_eq!(classes[at], labels.classes()[4 - at]);
                let combined =
                    plain[at].iter().zip(&plain[4 - at]).map(|(a, b)| share * a + (1.0 - share) * b);
                let expected = if at == 2 { plain[2].clone() } else { combined.collect() };
                assert_eq!(images[at], expected);
            }
        }
        let shares = mixed.iter().map(|(_, targets)| targets.partners().unwrap().share.to_bits());
        assert!(shares.collect::<std::collections::BTreeSet<_>>().len() > 30, "a share of each batch's own");
    }

    #[test]
    fn cutmix_takes_its_share_of_pixels_from_the_partner() {
        let mixed = batches(&varied_by(|augmentation| augmentation.cutmix = 1.0));
        for ((images, targets), (plain, _)) in mixed.iter().zip(batches(&loader(5, 1, 0))) {
            let share = targets.partners().unwrap().share;
            for at in 0..5 {
                let pixels =
                    || (0..16).map(|pixel| [images[at][pixel], plain[at][pixel], plain[4 - at][pixel]]);
                assert!(pixels().all(|[mixed, own, other]| mixed == own || mixed == other));
                // pixels that are alike in both count for neither
                let own = pixels().filter(|[mixed, _, other]| mixed != other).count() as f32;
                let other = pixels().filter(|[mixed, own, _]| mixed != own).count() as f32;
                assert!(at == 2 || (own <= share * 16.0 && other <= (1.0 - share) * 16.0), "{share}");
                assert!(at == 2 || own + other >= 15.0, "images differ: {own} {other}");
            }
        }
    }

    #[test]
    fn nothing_else_is_drawn_differently_where_something_is_on() {
        let plain = batches(&loader(5, 1, 0));
        let erased = batches(&varied_by(|augmentation| augmentation.erasing = 1.0));
        for ((images, targets), (plain, labels)) in erased.iter().zip(&plain) {
            assert_eq!(targets, labels);
            let mut pixels = images.iter().flatten().zip(plain.iter().flatten());
            assert!(pixels.all(|(pixel, before)| pixel == before || *pixel == 0.0));
        }
        assert!(erased.iter().zip(&plain).any(|(erased, plain)| erased != plain));
        let operations = RandAugment { operations: 2, magnitude: 9 };
        let operated = batches(&varied_by(|augmentation| augmentation.rand_augment = Some(operations)));
        assert!(operated.iter().zip(&plain).all(|(one, other)| one.1 == other.1 && one.0 != other.0));
    }

    #[test]
    fn varied_batches_are_a_function_of_the_step() {
        let mut loader = varied_by(|augmentation| {
            let operations = Some(RandAugment { operations: 2, magnitude: 9 });
            *augmentation = Augmentation { rand_augment: operations, erasing: 0.5, ..*augmentation };
            *augmentation = Augmentation { mixup: 0.2, cutmix: 1.0, ..*augmentation };
        });
        for step in 0..10 {
            let next = loader.next().unwrap();
            let at = loader.batch_at(step, resolution(step)).unwrap();
            assert_eq!(next.targets, at.targets);
            assert_eq!(content(Ok(next)), content(Ok(at)));
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
            (epoch * 4..epoch * 4 + 4)
                .flat_map(|step| loader.batch_at(step, 4).unwrap().targets.classes().to_vec())
                .collect()
        };
        let first = epoch(0);
        let second = epoch(1);
        assert_ne!(first, second);
        for mut labels in [first, second] {
            labels.sort_unstable();
            labels.dedup();
            assert_eq!(labels.len(), 20);
        }
    }

    #[test]
    fn the_seed_and_the_step_change_what_is_seen() {
        let one = loader(23, 1, 0);
        let two = loader(23, 2, 0);
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
        let mut loader = TrainLoader::new(dataset(), config(5, 0), 1, |step| {
            if step == 2 { panic!("no step {step}") } else { Extent::square(4) }
        })
        .unwrap();
        loader.next().unwrap();
        let error = loader.next().unwrap_err().to_string();
        assert_eq!(error, "loader: batch of step 2: expected a batch, got a panic: no step 2");
        assert!(loader.next().unwrap_err().to_string().contains("stopped after an error"));
    }

    #[test]
    fn a_resolution_of_zero_is_an_error() {
        let mut loader = TrainLoader::new(dataset(), config(5, 0), 0, |_| Extent::square(0)).unwrap();
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
}
