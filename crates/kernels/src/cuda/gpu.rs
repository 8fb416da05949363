//! A GPU as the operations see it: its tensors, an executor of launches and products, and the storage of activations.

use std::any::Any;
use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Tensor, bail};

use super::product::Product;
use super::{ActivationStorage, Launch, Place};
use crate::Precision;

/// Runs kernels and products on memory of its own, in the order in which they were launched.
pub trait Executor: Debug + Send + Sync {
    /// The device of its tensors.
    fn device(&self) -> &Device;
    /// Runs a kernel.
    fn launch(&self, storage: ActivationStorage, launch: &Launch) -> Result<()>;
    /// Multiplies matrices.
    fn multiply(&self, product: &Product, precision: Precision) -> Result<()>;
    /// Sets bytes to zero.
    fn clear(&self, place: Place, bytes: usize) -> Result<()>;
    /// Waits until all work in flight is done.
    fn synchronize(&self) -> Result<()>;
    /// The GPU's name.
    fn name(&self) -> String;
    /// Bytes of its memory in use.
    fn memory(&self) -> Result<usize>;
    /// Free bytes of its memory.
    fn memory_left(&self) -> Result<usize>;
    /// An event after all work launched so far.
    fn mark(&self) -> Result<Box<dyn DeviceEvent>>;
    /// A ring of buffers for batches of up to `values` values.
    fn ring(&self, values: usize) -> Result<Box<dyn DeviceStaging>>;
}

/// A point in the work of an [`Executor`].
pub trait DeviceEvent: Any + Debug + Send {
    /// Milliseconds since an earlier event; waits for this one.
    fn ms_since(&self, earlier: &dyn DeviceEvent) -> Result<f64>;
}

/// Buffers in a GPU's memory, each filled while it computes with others.
pub trait DeviceStaging: Send {
    /// The values in a buffer, in one row. The buffer is filled again after two more batches: whoever
    /// computes with one must be done with the one before.
    fn fill(&mut self, values: &[f32]) -> Result<Tensor>;
}

/// A GPU to compute on, with a precision; every copy is the same GPU.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    executor: Box<dyn Executor>,
    precision: Precision,
    launched: AtomicU64,
    multiplied: AtomicU64,
}

impl Drop for Inner {
    /// Waits, so that no launched kernel still runs when kernels are unloaded.
    fn drop(&mut self) {
        // earlier failures were reported by the calls that waited for them
        let _ = self.executor.synchronize();
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gpu {}

/// Tensors have fewer values than this: kernels count with 32 bits.
const MOST_VALUES: usize = 1 << 31;

impl Gpu {
    /// A GPU whose work `executor` runs.
    pub fn new(executor: Box<dyn Executor>, precision: Precision) -> Self {
        let inner = Inner { executor, precision, launched: AtomicU64::new(0), multiplied: AtomicU64::new(0) };
        Self(Arc::new(inner))
    }

    /// The device of its tensors.
    pub fn device(&self) -> &Device {
        self.0.executor.device()
    }

    /// The GPU's precision.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// The storage of activations.
    pub fn activations(&self) -> ActivationStorage {
        match self.0.precision {
            Precision::F32 | Precision::Tf32 => ActivationStorage::F32,
            Precision::Bf16 => ActivationStorage::Bf16,
        }
    }

    /// Waits until all work in flight is done.
    pub fn synchronize(&self) -> Result<()> {
        self.0.executor.synchronize()
    }

    /// The GPU's name.
    pub fn name(&self) -> String {
        self.0.executor.name()
    }

    /// Bytes of its memory in use.
    pub fn memory(&self) -> Result<usize> {
        self.0.executor.memory()
    }

    /// Free bytes of its memory.
    pub fn memory_left(&self) -> Result<usize> {
        self.0.executor.memory_left()
    }

    /// An event after all work launched so far.
    pub fn mark(&self) -> Result<Box<dyn DeviceEvent>> {
        self.0.executor.mark()
    }

    /// Buffers for batches of up to `values` values.
    pub fn ring(&self, values: usize) -> Result<Box<dyn DeviceStaging>> {
        self.0.executor.ring(values)
    }

    /// Numbers of kernels and of products launched so far.
    pub fn launches(&self) -> [u64; 2] {
        [&self.0.launched, &self.0.multiplied].map(|count| count.load(Ordering::Relaxed))
    }

    /// Runs kernels one after the other.
    pub(super) fn run(
        &self,
        storage: ActivationStorage,
        launches: impl IntoIterator<Item = Launch>,
    ) -> Result<()> {
        for launch in launches {
            if launch.blocks > 0 {
                self.0.launched.fetch_add(1, Ordering::Relaxed);
                self.0.executor.launch(storage, &launch)?;
            }
        }
        Ok(())
    }

    /// Multiplies matrices, all of which must have values.
    pub(super) fn multiply(&self, product: &Product) -> Result<()> {
        if product.sizes.contains(&0) {
            bail!("product: a matrix without values, {:?}", product.sizes);
        }
        self.0.multiplied.fetch_add(1, Ordering::Relaxed);
        self.0.executor.multiply(product, self.0.precision)
    }

    /// Sets a contiguous tensor to zero.
    pub fn clear(&self, tensor: &Tensor) -> Result<()> {
        let spot = contiguous(tensor)?;
        self.0.executor.clear(spot.place, tensor.elem_count() * tensor.dtype().size_in_bytes())
    }

    /// A tensor for a kernel to fill.
    pub(super) fn unfilled(&self, shape: impl Into<Shape>, storage: ActivationStorage) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elem_count() >= MOST_VALUES {
            bail!(
                "a tensor {:?}: expected fewer than 2^31 values on a GPU; take a smaller batch",
                shape.dims()
            );
        }
        // SAFETY: every bit pattern is a number of either kind, and each kernel writes every value of its output before
        // anything reads it.
        unsafe { Tensor::empty(shape, storage.dtype(), self.device()) }
    }

    /// A tensor for a kernel to fill, of another's shape and kind.
    pub fn alike(&self, x: &Tensor) -> Result<Tensor> {
        self.unfilled(x.shape(), ActivationStorage::of(x)?)
    }

    /// Scratch memory for kernels, of at least one value.
    pub(super) fn room(&self, values: usize) -> Result<Tensor> {
        self.unfilled(values.max(1), ActivationStorage::F32)
    }

    /// Copies values to the GPU.
    pub(super) fn upload<T: candle_core::WithDType>(&self, values: &[T]) -> Result<Tensor> {
        Tensor::from_slice(values, values.len(), self.device())
    }
}

impl ActivationStorage {
    pub(super) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// The storage of a tensor's values.
    pub(super) fn of(tensor: &Tensor) -> Result<Self> {
        match tensor.dtype() {
            DType::F32 => Ok(Self::F32),
            DType::BF16 => Ok(Self::Bf16),
            other => bail!("expected f32 or bf16 values, got {other:?}"),
        }
    }

    fn bytes(self) -> usize {
        self.dtype().size_in_bytes()
    }
}

/// The place and storage of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub place: Place,
    pub storage: ActivationStorage,
}

impl Spot {
    /// The place `values` values further on.
    pub fn offset(self, values: usize) -> Place {
        Place(self.place.0 + (values * self.storage.bytes()) as u64)
    }
}

/// The place of a tensor's first value; the tensor may be a view.
pub(super) fn place(tensor: &Tensor) -> Result<Place> {
    let found = Locate(Cell::new(Place(0)));
    tensor.inplace_op1(&found)?;
    Ok(found.0.get())
}

pub(super) fn spot(tensor: &Tensor) -> Result<Spot> {
    Ok(Spot { place: place(tensor)?, storage: ActivationStorage::of(tensor)? })
}

/// [`spot`] of a tensor without gaps.
pub(super) fn contiguous(tensor: &Tensor) -> Result<Spot> {
    if !tensor.is_contiguous() {
        bail!("expected a contiguous tensor, got strides {:?} for {:?}", tensor.stride(), tensor.dims());
    }
    spot(tensor)
}

/// The place of a tensor without gaps in this storage.
pub(super) fn kept_as(tensor: &Tensor, storage: ActivationStorage) -> Result<Place> {
    let spot = contiguous(tensor)?;
    if spot.storage != storage {
        bail!("expected {storage:?} values, got {:?} for {:?}", spot.storage, tensor.dims());
    }
    Ok(spot.place)
}

/// [`kept_as`] f32: statistics, weights that are not multiplied, gradients of weights.
pub(super) fn numbers(tensor: &Tensor) -> Result<Place> {
    kept_as(tensor, ActivationStorage::F32)
}

/// Reads the address of a tensor's storage, as an in-place operation, which may write there.
struct Locate(Cell<Place>);

impl InplaceOp1 for Locate {
    fn name(&self) -> &'static str {
        "locate"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        // only the emulated GPU of tests computes there
        if !cfg!(any(test, feature = "emulated-gpu")) {
            bail!("expected a tensor on the GPU that computes, got one on the CPU: {:?}", layout.dims());
        }
        let (first, bytes) = match storage {
            CpuStorage::F32(values) => (values.as_mut_ptr() as u64, 4),
            CpuStorage::BF16(values) => (values.as_mut_ptr() as u64, 2),
            CpuStorage::U32(values) => (values.as_mut_ptr() as u64, 4),
            CpuStorage::I64(values) => (values.as_mut_ptr() as u64, 8),
            _ => bail!("expected f32, bf16, u32 or i64 values"),
        };
        self.0.set(Place(first + (layout.start_offset() * bytes) as u64));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        let (first, bytes) = super::device::address(storage)?;
        self.0.set(Place(first + (layout.start_offset() * bytes) as u64));
        Ok(())
    }
}
