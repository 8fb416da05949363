//! Between the CPU and the kernels' device: staging buffers for batches, events, and a probe of the device's speed.

use candle_core::Tensor;

use super::Backend;
use super::{Implementation, cuda};
use crate::error::Result;
use base::timing::Stopwatch;

/// Copies batches to the kernels' device: to a GPU through a ring of buffers, while it computes with other batches.
pub struct StagingBuffers {
    ring: Option<Box<dyn cuda::DeviceStaging>>,
}

impl StagingBuffers {
    /// Buffers for batches of up to `values` numbers.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn new(backend: &Backend, values: usize) -> Result<Self> {
        Ok(match &backend.implementation {
            Implementation::Cuda(gpu) => Self { ring: Some(gpu.ring(values)?) },
            _ => Self { ring: None },
        })
    }

    /// The batch on the kernels' device. Its memory may be reused after two more batches were copied: whoever computes
    /// with one must be done with the one before.
    ///
    /// # Errors
    /// If the batch is not an f32 tensor on the CPU, has too many values, or the copy fails.
    pub fn bring(&mut self, batch: &Tensor) -> Result<Tensor> {
        if let Some(ring) = &mut self.ring {
            let flat = super::tensors::with_views([batch], |[view]| ring.fill(view.contiguous()?))?;
            return Ok(flat.reshape(batch.shape())?);
        }
        Ok(batch.clone())
    }
}

/// Work for a GPU whose time depends on the GPU's clock alone; measurements watch the clock by it.
#[derive(Debug)]
pub struct SpeedProbe {
    on: (cuda::Gpu, Tensor),
}

/// Multiply-adds of a [`SpeedProbe`], one after the other: of four clocks each, about a sixth of a millisecond.
const STEPS: usize = 65_536;

impl SpeedProbe {
    /// Name of the work.
    pub const NAME: &str = "chain of 65536 multiply-adds on the GPU";

    /// The work for this backend's GPU; `None` on a CPU.
    ///
    /// # Errors
    /// If the GPU has no memory for a few numbers.
    pub fn new(backend: &Backend) -> Result<Option<Self>> {
        if let Implementation::Cuda(gpu) = &backend.implementation {
            let values = vec![0.5f32; cuda::THREADS];
            let values = Tensor::from_vec(values, cuda::THREADS, gpu.device())?;
            return Ok(Some(Self { on: (gpu.clone(), values) }));
        }
        Ok(None)
    }

    /// Launches the work once.
    ///
    /// # Errors
    /// If the launch fails.
    pub fn run(&self) -> Result<()> {
        let (gpu, values) = &self.on;
        Ok(gpu.chain_of_products(values, STEPS)?)
    }
}

/// A point in the kernels' work: on a GPU, reached when all work before it is done.
#[derive(Debug)]
pub struct Event(Clock);

#[derive(Debug)]
enum Clock {
    Cpu(Stopwatch),
    Gpu(Box<dyn cuda::DeviceEvent>),
}

impl Backend {
    /// The event that all work launched so far is done.
    ///
    /// # Errors
    /// If some of that work failed.
    pub fn moment(&self) -> Result<Event> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return Ok(Event(Clock::Gpu(gpu.mark()?)));
        }
        Ok(Event(Clock::Cpu(Stopwatch::start())))
    }
}

impl Event {
    /// Whether it was reached when it was made: a CPU's is.
    pub(super) fn has_come(&self) -> bool {
        matches!(self.0, Clock::Cpu(_))
    }

    /// Milliseconds since an earlier event of the same kernels; waits for this one.
    ///
    /// # Errors
    /// If something before it failed.
    pub fn ms_since(&self, earlier: &Self) -> Result<f64> {
        match (&self.0, &earlier.0) {
            (Clock::Cpu(now), Clock::Cpu(earlier)) => Ok(now.ms_since(earlier)),
            (Clock::Gpu(now), Clock::Gpu(earlier)) => Ok(now.ms_since(earlier.as_ref())?),
            _ => Err(base::Error::invalid("timing", "events", "two of the same kernels", "others").into()),
        }
    }
}
