//! Batches on their way to where they are computed with.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use candle_core::Device;
use kernels::{Backend, StagingBuffers};
use network::data::{Batch, TrainLoader};

use crate::error::{Error, Result};

/// Training batches in order of step. To a GPU the next ones are copied while it computes.
pub(crate) struct Prefetcher(Way);

enum Way {
    /// From the loader, as they are.
    Direct(Box<TrainLoader>),
    /// By a thread that copies them to a GPU.
    Ahead { batches: Option<Receiver<Result<Batch>>>, thread: Option<JoinHandle<()>> },
}

/// Batches that wait on the GPU: with the one that is computed with and the one that is copied, as many as [`StagingBuffers`] keeps
/// apart.
const WAITING: usize = 1;

impl Prefetcher {
    /// Batches of up to `values` numbers for these kernels.
    ///
    /// # Errors
    /// If a GPU has no room for them.
    pub fn new(mut loader: TrainLoader, backend: &Backend, values: usize) -> Result<Self> {
        if backend.launches().is_none() && matches!(backend.device(), Device::Cpu) {
            return Ok(Self(Way::Direct(Box::new(loader))));
        }
        let mut feed = StagingBuffers::new(backend, values)?;
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("batches to the GPU".to_string()).spawn(move || {
            loop {
                let brought = loader
                    .next()
                    .map_err(Error::from)
                    .and_then(|batch| Ok(Batch { inputs: feed.bring(&batch.inputs)?, ..batch }));
                // nobody waits for another: the training has ended
                if sender.send(brought).is_err() {
                    break;
                }
            }
        });
        let thread = thread.map_err(Error::io("start", std::path::Path::new("a thread for batches")))?;
        Ok(Self(Way::Ahead { batches: Some(receiver), thread: Some(thread) }))
    }

    /// The next batch, which lies where the kernels compute. What was given out before the last one must not be used any
    /// more.
    ///
    /// # Errors
    /// If an image cannot be read, or the copy fails.
    pub fn next(&mut self) -> Result<Batch> {
        match &mut self.0 {
            Way::Direct(loader) => Ok(loader.next()?),
            Way::Ahead { batches, .. } => {
                let next = batches.as_ref().map(Receiver::recv);
                next.and_then(std::result::Result::ok).unwrap_or_else(|| {
                    Err(Error::invalid("training", "batches", "a thread that copies them", "one that died"))
                })
            }
        }
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        if let Way::Ahead { batches, thread } = &mut self.0 {
            // a thread that waits to hand over a batch sees that nobody takes it
            drop(batches.take());
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}
