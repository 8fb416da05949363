//! Between the CPU and where the kernels compute: batches that go there, moments in what is done there, and what tells how
//! fast it is done.

use candle_core::Tensor;

use super::Backend;
use super::{Implementation, cuda};
use crate::error::Result;
use base::timing::Stopwatch;

/// Brings batches to where the kernels compute. To a GPU they go by buffers of their own, while it computes with others.
pub struct StagingBuffers {
    ring: Option<Box<dyn cuda::DeviceStaging>>,
}

impl StagingBuffers {
    /// Buffers for batches of up to `values` numbers.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn new(backend: &Backend, values: usize) -> Result<Self> {
        Ok(match &backend.implementation {
            Implementation::Cuda(gpu) => Self { ring: Some(gpu.ring(values)?) },
            _ => Self { ring: None },
        })
    }

    /// A batch that lies where the kernels compute. Its memory may be another batch's after two more were brought: whoever
    /// computes with one must be done with the one before.
    ///
    /// # Errors
    /// If the batch is no f32 tensor on the CPU, has too many values, or the copy fails.
    pub fn bring(&mut self, batch: &Tensor) -> Result<Tensor> {
        if let Some(ring) = &mut self.ring {
            let flat = super::tensors::with_views([batch], |[view]| ring.fill(view.contiguous()?))?;
            return Ok(flat.reshape(batch.shape())?);
        }
        Ok(batch.clone())
    }
}

/// Work for a GPU whose time its clock alone decides, as what measures on one watches it by.
#[derive(Debug)]
pub struct SpeedProbe {
    on: (cuda::Gpu, Tensor),
}

/// Multiply-adds of a [`SpeedProbe`], one after the other: of four clocks each, about a sixth of a millisecond.
const STEPS: usize = 65_536;

impl SpeedProbe {
    /// What the work is called.
    pub const NAME: &str = "chain of 65536 multiply-adds on the GPU";

    /// The work of the GPU that these kernels compute on; `None` on a CPU.
    ///
    /// # Errors
    /// If the GPU has no room for a few numbers.
    pub fn new(backend: &Backend) -> Result<Option<Self>> {
        if let Implementation::Cuda(gpu) = &backend.implementation {
            let values = vec![0.5f32; cuda::THREADS];
            let values = Tensor::from_vec(values, cuda::THREADS, gpu.device())?;
            return Ok(Some(Self { on: (gpu.clone(), values) }));
        }
        Ok(None)
    }

    /// Gives the GPU the work once.
    ///
    /// # Errors
    /// If it is not taken.
    pub fn run(&self) -> Result<()> {
        let (gpu, values) = &self.on;
        Ok(gpu.chain_of_products(values, STEPS)?)
    }
}

/// A moment in what the kernels do: on a GPU an event, which is reached when all before it is done.
#[derive(Debug)]
pub struct Event(Clock);

#[derive(Debug)]
enum Clock {
    Cpu(Stopwatch),
    Gpu(Box<dyn cuda::DeviceEvent>),
}

impl Backend {
    /// The moment at which all that was begun so far is done.
    ///
    /// # Errors
    /// If something that was begun failed.
    pub fn moment(&self) -> Result<Event> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return Ok(Event(Clock::Gpu(gpu.mark()?)));
        }
        Ok(Event(Clock::Cpu(Stopwatch::start())))
    }
}

impl Event {
    /// Whether it was there when it was asked for: a CPU's.
    pub(super) fn has_come(&self) -> bool {
        matches!(self.0, Clock::Cpu(_))
    }

    /// Milliseconds since an earlier moment of the same kernels; waits for this one.
    ///
    /// # Errors
    /// If something before it failed.
    pub fn ms_since(&self, earlier: &Self) -> Result<f64> {
        match (&self.0, &earlier.0) {
            (Clock::Cpu(now), Clock::Cpu(earlier)) => Ok(now.ms_since(earlier)),
            (Clock::Gpu(now), Clock::Gpu(earlier)) => Ok(now.ms_since(earlier.as_ref())?),
            _ => Err(base::Error::invalid("timing", "moments", "two of the same kernels", "others").into()),
        }
    }
}
