//! The plain batches of evaluation and calibration: images as `Preprocess` says, in order.

use space::Extent;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use base::random::{permutation, rng_for};
use rayon::prelude::*;

use super::Dataset;
use super::batch::{Batch, Team, caught};
use super::images::Images;
use super::preprocess::Preprocess;
use crate::error::{Error, Result};

/// All images of `set` in order, unvaried, as `preprocess` says, `batch` at a time (0 counts as 1); the last batch may
/// be smaller. Image files are decoded while the batch before is in use.
///
/// # Errors
/// An item, which is then the last, if `resolution` is 0 or an image cannot be read.
pub fn eval_batches<'a>(
    set: &'a Images,
    preprocess: &'a Preprocess,
    resolution: impl Into<Extent>,
    batch: usize,
) -> impl Iterator<Item = Result<Batch>> + Send + 'a {
    Plain::new(set, preprocess, (0..set.len()).collect(), resolution.into()).batches(batch)
}

/// `images` training images drawn by `seed` without replacement, or all if there are fewer; unvaried, seen as evaluation
/// sees images, `batch` at a time (0 counts as 1).
///
/// For the statistics of batch normalization; OFA takes 2,000 images in batches of 200 to evaluate (its
/// `set_running_statistics`), as random crops with varied colors. Here they are the views of evaluation: objects in a random
/// crop appear larger than in the middle square (Touvron et al. 2019, FixRes), so that statistics of crops are not those
/// of the images to be classified; and nothing random need be stored to check an export. Validation and test images are
/// never among them.
///
/// # Errors
/// As [`eval_batches`].
pub fn calibration_batches(
    dataset: &Dataset,
    images: usize,
    batch: usize,
    resolution: impl Into<Extent>,
    seed: u64,
) -> impl Iterator<Item = Result<Batch>> + Send + '_ {
    let mut drawn = permutation(dataset.train().len(), &mut rng_for("calibration images", seed, &[]));
    drawn.truncate(images);
    Plain::new(dataset.train(), dataset.preprocess(), drawn, resolution.into()).batches(batch)
}

/// The validation images of one of endless minibatches, unvaried, seen as evaluation sees images: `batch` of them, or all if
/// there are fewer. Each pass over the images is in an order of its own, drawn by `seed`.
///
/// # Errors
/// As [`eval_batches`].
pub fn val_minibatch(
    dataset: &Dataset,
    number: u64,
    batch: usize,
    resolution: impl Into<Extent>,
    seed: u64,
) -> Result<Batch> {
    let val = dataset.val();
    let size = batch.clamp(1, val.len().max(1));
    let in_pass = (val.len() / size) as u64;
    let pass = number / in_pass.max(1);
    let order = permutation(val.len(), &mut rng_for("validation minibatches", seed, &[pass]));
    let first = (number % in_pass.max(1)) as usize * size;
    let drawn = order.into_iter().skip(first).take(size).collect();
    let mut batches = Plain::new(val, dataset.preprocess(), drawn, resolution.into()).batches(size);
    batches.next().unwrap_or_else(|| {
        Err(Error::invalid(format!("data {}", dataset.name()), "validation images", "at least 1", 0))
    })
}

/// Images as evaluation shows them. Copies share the images.
#[derive(Debug)]
struct Plain {
    set: Images,
    preprocess: Preprocess,
    indices: Vec<usize>,
    resolution: Extent,
}

impl Plain {
    fn new(set: &Images, preprocess: &Preprocess, indices: Vec<usize>, resolution: Extent) -> Self {
        Self { set: set.clone(), preprocess: preprocess.clone(), indices, resolution }
    }

    fn view(&self, index: usize, planes: &mut [f32]) -> Result<()> {
        self.set.plain_view(index, self.resolution, &self.preprocess, planes)
    }

    fn batches(self, batch: usize) -> Box<dyn Iterator<Item = Result<Batch>> + Send> {
        let batch = batch.max(1);
        if !self.set.in_memory() {
            return match Ahead::new(self, batch) {
                Ok(batches) => Box::new(batches),
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
        }
        Box::new((0..self.indices.len()).step_by(batch).map(move |start| {
            let indices = &self.indices[start..(start + batch).min(self.indices.len())];
            Batch::of(&self.set, indices, self.resolution, |values, size| {
                let images = values.par_chunks_exact_mut(size).zip(indices);
                images.try_for_each(|(planes, index)| self.view(*index, planes))
            })
        }))
    }
}

/// Batches of image files, each made by other threads while the one before is in use: two in all.
struct Ahead {
    /// None once an error has ended them.
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    abandoned: Arc<AtomicBool>,
}

impl Ahead {
    fn new(plain: Plain, batch: usize) -> Result<Self> {
        // as many as compute, which a thread of its own could not ask for
        let threads = rayon::current_num_threads();
        let abandoned = Arc::new(AtomicBool::new(false));
        let (sender, batches) = sync_channel(0);
        let own = Arc::clone(&abandoned);
        let thread = std::thread::Builder::new()
            .name("images".to_owned())
            .spawn(move || send_batches(&plain, batch, &Team { threads, abandoned: &own }, &sender));
        let thread = thread.map_err(|error| Error::invalid("loader", "worker", "a thread", error))?;
        Ok(Self { batches: Some(batches), thread: Some(thread), abandoned })
    }
}

fn send_batches(plain: &Plain, batch: usize, team: &Team<'_>, sender: &SyncSender<Result<Batch>>) {
    for (number, indices) in plain.indices.chunks(batch).enumerate() {
        let made = caught(
            || format!("batch {number}"),
            || {
                Batch::of(&plain.set, indices, plain.resolution, |values, size| {
                    team.fill(values, size, indices, |place, planes| plain.view(indices[place], planes))
                })
            },
        );
        let failed = made.is_err();
        if sender.send(made).is_err() || failed {
            return;
        }
    }
}

impl Iterator for Ahead {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.batches.as_ref()?.recv().ok();
        if !matches!(next, Some(Ok(_))) {
            self.batches = None;
        }
        next
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        // a thread that waits to hand over a batch sees that nobody takes it
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // its panics were caught and sent; there is nothing left to report
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Content, content, dataset, dataset_of};

    #[test]
    fn evaluation_sees_all_images_in_order() {
        let dataset = dataset();
        let set = dataset.train();
        let batches: Vec<Content> = eval_batches(set, dataset.preprocess(), 4, 10).map(content).collect();
        assert_eq!(batches.iter().map(|(dims, ..)| dims[0]).collect::<Vec<_>>(), [10, 10, 3]);
        let labels: Vec<u32> = batches.iter().flat_map(|(_, labels, _)| labels.clone()).collect();
        assert_eq!(labels, set.labels());
        let mean = dataset.normalization().mean()[0];
        let std = dataset.normalization().std()[0];
        let first = set.load(0).unwrap();
        let pixels = first.image().unwrap().pixels().bytes().unwrap();
        let expected = pixels.iter().map(|pixel| (f32::from(*pixel) / 255.0 - mean) / std);
        assert_eq!(batches[0].2[..16], expected.collect::<Vec<_>>());
    }

    #[test]
    fn calibration_draws_training_images_once() {
        let dataset = dataset();
        let draw = |images, seed| -> Vec<Vec<u32>> {
            let batches = calibration_batches(&dataset, images, 4, 3, seed);
            batches.map(|batch| batch.unwrap().targets.classes().to_vec()).collect()
        };
        assert_eq!(draw(10, 1).iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        assert_eq!(draw(10, 1), draw(10, 1));
        assert_ne!(draw(10, 1), draw(10, 2));
        let mut all = draw(1000, 1).concat();
        all.sort_unstable();
        assert_eq!(all, (0..23).collect::<Vec<_>>());
    }

    #[test]
    fn minibatches_pass_over_the_validation_images_again_and_again() {
        let dataset = dataset_of(8);
        let size = 4;
        let draw = |number, seed| content(val_minibatch(&dataset, number, size, 4, seed)).2;
        let sorted = |numbers: [u64; 2], seed| {
            let mut views = numbers
                .map(|number| draw(number, seed))
                .concat()
                .chunks(16)
                .map(<[f32]>::to_vec)
                .collect::<Vec<_>>();
            views.sort_by(|one, other| one.partial_cmp(other).expect("numbers"));
            views
        };
        assert_eq!(sorted([0, 1], 1), sorted([2, 3], 1), "each pass has the same images");
        assert_ne!([draw(0, 1), draw(1, 1)], [draw(2, 1), draw(3, 1)], "in another order");
        assert_eq!(draw(3, 1), draw(3, 1));
        assert_ne!([draw(0, 1), draw(1, 1)], [draw(0, 2), draw(1, 2)]);
        let all = content(val_minibatch(&dataset, 5, 1000, 4, 1));
        assert_eq!(all.0[0], 8, "no more than there are");
    }
}
