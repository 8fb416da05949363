//! Prefetching of training batches to the device.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use candle_core::Device;
use kernels::{Backend, StagingBuffers};
use network::data::{Batch, TrainLoader};

use crate::error::{Error, Result};

/// Training batches in order of step. For a GPU, the next ones are copied while it computes.
pub(crate) struct Prefetcher(Way);

enum Way {
    /// From the loader, as they are.
    Direct(Box<TrainLoader>),
    /// By a thread that copies them to a GPU.
    Ahead { batches: Option<Receiver<Result<Batch>>>, thread: Option<JoinHandle<()>> },
}

/// Batches that wait on the GPU: with the batch in use and the batch being copied, as many as [`StagingBuffers`]
/// holds.
const WAITING: usize = 1;

impl Prefetcher {
    /// Batches of up to `values` numbers for this backend.
    ///
    /// # Errors
    /// If a GPU has no room for them.
    pub fn new(mut loader: TrainLoader, backend: &Backend, values: usize) -> Result<Self> {
        if backend.launches().is_none() && matches!(backend.device(), Device::Cpu) {
            return Ok(Self(Way::Direct(Box::new(loader))));
        }
        let mut staging = StagingBuffers::new(backend, values)?;
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("batches to the GPU".to_string()).spawn(move || {
            loop {
                let batch = loader
                    .next()
                    .map_err(Error::from)
                    .and_then(|batch| Ok(Batch { inputs: staging.bring(&batch.inputs)?, ..batch }));
                // the receiver is gone: the training has ended
                if sender.send(batch).is_err() {
                    break;
                }
            }
        });
        let thread = thread.map_err(Error::io("start", std::path::Path::new("a thread for batches")))?;
        Ok(Self(Way::Ahead { batches: Some(receiver), thread: Some(thread) }))
    }

    /// The next batch, on the backend's device. Batches before the latest must no longer be used.
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
            // a thread that waits to send a batch sees that the receiver is gone
            drop(batches.take());
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}
