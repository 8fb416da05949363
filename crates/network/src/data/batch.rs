//! A batch, and a team of threads that makes one.

use space::Extent;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Tensor};
use kernels::Backend;

use super::images::Images;
use super::task::Targets;
use crate::error::{Error, Result};

/// Largest side of an image that a network takes.
const MOST_SIDE: usize = 4096;

/// Inputs and their targets; inputs lie on the CPU until they are moved.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Normalized images [N, C, H, W], f32.
    pub inputs: Tensor,
    /// The target of each input.
    pub targets: Targets,
}

impl Batch {
    /// Number of inputs.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// The batch on the device of this backend.
    ///
    /// # Errors
    /// If there is no room for it.
    pub fn on(self, backend: &Backend) -> Result<Self> {
        Ok(Self { inputs: self.inputs.to_device(&backend.device())?, ..self })
    }

    /// The inputs from `first` on, this many.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn part(&self, first: usize, count: usize) -> Result<Self> {
        Ok(Self { inputs: self.inputs.narrow(0, first, count)?, targets: self.targets.part(first, count) })
    }

    /// Whether there is no input; no function of this crate returns such a batch.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Normalized values of the images `indices`, as `fill` writes them into the planes of each image, which have the
    /// size that it is given.
    pub(super) fn of(
        set: &Images,
        indices: &[usize],
        resolution: Extent,
        fill: impl FnOnce(&mut [f32], usize) -> Result<()>,
    ) -> Result<Self> {
        let channels = set.channels();
        if ![resolution.height, resolution.width].iter().all(|side| (1..=MOST_SIDE).contains(side)) {
            return Err(Error::invalid("batch", "resolution", format!("1 to {MOST_SIDE}"), resolution));
        }
        let size = channels * resolution.plane();
        let mut values = vec![0f32; indices.len() * size];
        fill(&mut values, size)?;
        let shape = (indices.len(), channels, resolution.height, resolution.width);
        let inputs = Tensor::from_vec(values, shape, &Device::Cpu)?;
        let classes = indices.iter().map(|index| set.labels()[*index]).collect();
        Ok(Self { inputs, targets: Targets::Classes(classes) })
    }
}

/// Threads that make batches together, apart from the pool that computes: whoever waits for a batch may sit on the pool's
/// only worker.
#[derive(Debug)]
pub(super) struct Team<'a> {
    pub threads: usize,
    /// Set when the batch is no longer needed.
    pub abandoned: &'a AtomicBool,
}

impl Team<'_> {
    /// Fills the planes of each image of `indices`, `size` values each, by `view`, which gets the image's place in `indices`.
    /// Of several errors the first image's counts, so that it is the same each time.
    pub fn fill(
        &self,
        values: &mut [f32],
        size: usize,
        indices: &[usize],
        view: impl Fn(usize, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<()> {
        let images = Mutex::new(values.chunks_exact_mut(size).zip(indices).enumerate());
        let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || {
            while !self.abandoned.load(Ordering::Relaxed) {
                let next = images.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((place, (planes, index))) = next else { return };
                let viewed = caught(|| format!("image {index}"), || view(place, planes));
                if let Err(error) = viewed {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    if failed.as_ref().is_none_or(|(first, _)| place < *first) {
                        *failed = Some((place, error));
                    }
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(indices.len()) {
                scope.spawn(work);
            }
            work();
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None if self.abandoned.load(Ordering::Relaxed) => {
                Err(Error::invalid("loader", "batch", "a receiver", "none"))
            }
            None => Ok(()),
        }
    }
}

/// Runs `make`; a panic in it becomes an error that names `what`.
pub(super) fn caught<T>(what: impl FnOnce() -> String, make: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|panic| Err(panicked(what(), panic.as_ref())))
}

fn panicked(what: String, panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Error::invalid("loader", what, "a batch", format!("a panic: {text}"))
}
