//! An NVIDIA GPU: its libraries, its memory, and the launching of kernels, which are compiled for it when it is opened.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::cublas::{result as cublas, sys as blas};
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaStream, DevicePtrMut, DriverError, PinnedHostSlice,
    result, sys,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice};
use candle_core::{Device, Result, Tensor, bail};

use super::gpu::{DeviceEvent, DeviceStaging, Executor, Gpu, place};
use super::product::{Operand, Product};
use super::{ActivationStorage, Launch, Place, SOURCES, THREADS, compiler};
use crate::Precision;
use base::Error;

/// Where a storage's values begin, and how many bytes each has.
pub(super) fn address(storage: &mut CudaStorage) -> Result<(u64, usize)> {
    let stream = storage.device.cuda_stream();
    // all work is on one stream, so there is nothing to wait for
    Ok(match &mut storage.slice {
        CudaStorageSlice::F32(slice) => (slice.device_ptr_mut(&stream).0, 4),
        CudaStorageSlice::BF16(slice) => (slice.device_ptr_mut(&stream).0, 2),
        CudaStorageSlice::U32(slice) => (slice.device_ptr_mut(&stream).0, 4),
        CudaStorageSlice::I64(slice) => (slice.device_ptr_mut(&stream).0, 8),
        _ => bail!("expected f32, bf16, u32 or i64 values on the GPU"),
    })
}

/// Opens the `index`-th GPU.
///
/// # Errors
/// If there is no driver, no such GPU, or the kernels do not compile for it.
pub fn open(index: usize, precision: Precision) -> crate::error::Result<Gpu> {
    let refused =
        |expected: String, got: String| Error::invalid("device", format!("cuda:{index}"), expected, got);
    load_libraries().map_err(|(library, error)| {
        refused(format!("CUDA's {library}"), error)
            .and_then_do("install NVIDIA's driver and CUDA's libraries, or compute on `cpu`")
    })?;
    check_driver().map_err(|(expected, got)| {
        refused(expected, got).and_then_do("install a newer driver, or compute on `cpu`")
    })?;
    let found = result::init().and_then(|()| CudaContext::device_count());
    let count = found.map_err(|error| {
        refused("a GPU that the driver can use".to_string(), text_of(&error))
            .and_then_do("see what `nvidia-smi` says, or compute on `cpu`")
    })?;
    if index >= count.cast_unsigned() as usize {
        let got = format!("{count} in this machine");
        return Err(refused("a number below the count of GPUs".to_string(), got).into());
    }
    let executor = CudaExecutor::new(index, precision)
        .map_err(|error| refused("kernels for this GPU".to_string(), error.to_string()))?;
    Ok(Gpu::new(Box::new(executor), precision))
}

/// Checks that the driver's major version is at least the compiler's: such a driver loads its code, whatever the minor
/// versions. The error holds what was expected and what was found.
fn check_driver() -> std::result::Result<(), (String, String)> {
    let (major, _) =
        compiler::version().map_err(|error| ("NVRTC's version".to_string(), error.to_string()))?;
    let expected = || format!("a driver for CUDA {major} or newer, as the NVRTC that was found is");
    let mut version = 0;
    // SAFETY: it is written before the call returns, and needs nothing to be initialized.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|error| (expected(), text_of(&error)))?;
    if version / 1000 < major {
        return Err((expected(), format!("one for CUDA {}.{}", version / 1000, version % 1000 / 10)));
    }
    Ok(())
}

fn text_of(error: &DriverError) -> String {
    let name = error.error_name().map(|name| name.to_string_lossy().into_owned());
    let text = error.error_string().map(|text| text.to_string_lossy().into_owned());
    [name, text].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// CUDA's libraries, the most important first, each by the names that it has had.
#[cfg(target_os = "linux")]
const LIBRARIES: [(&str, &[&str]); 5] = [
    ("driver", &["libcuda.so.1"]),
    ("cuBLASLt", &["libcublasLt.so.13", "libcublasLt.so.12"]),
    ("cuBLAS", &["libcublas.so.13", "libcublas.so.12"]),
    ("cuRAND", &["libcurand.so.10"]),
    ("NVRTC", &["libnvrtc.so.13", "libnvrtc.so.12"]),
];

/// Loads CUDA's libraries for all of the process. A program that was linked to them has them; one that is to start on
/// machines without a GPU was not, and finds them here.
#[cfg(target_os = "linux")]
fn load_libraries() -> std::result::Result<(), (&'static str, String)> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
    for (library, names) in LIBRARIES {
        let mut failed = String::new();
        let loaded = names.iter().any(|name| {
            // SAFETY: NVIDIA's libraries, whose initialisers run as they would in a program linked to them.
            match unsafe { Library::open(Some(*name), RTLD_LAZY | RTLD_GLOBAL) } {
                // never to be unloaded: the program calls what is in it
                Ok(loaded) => {
                    std::mem::forget(loaded);
                    true
                }
                Err(error) => {
                    if failed.is_empty() {
                        failed = std::error::Error::source(&error)
                            .map_or_else(|| error.to_string(), ToString::to_string);
                    }
                    false
                }
            }
        });
        if !loaded {
            return Err((library, failed));
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn load_libraries() -> std::result::Result<(), (&'static str, String)> {
    Ok(())
}

/// A GPU with its kernels.
#[derive(Debug)]
struct CudaExecutor {
    device: Device,
    cuda: CudaDevice,
    stream: Arc<CudaStream>,
    /// Sources, compiled and loaded.
    modules: HashMap<(ActivationStorage, &'static str), Arc<CudaModule>>,
    functions: Mutex<HashMap<(ActivationStorage, String), CudaFunction>>,
}

impl CudaExecutor {
    fn new(index: usize, precision: Precision) -> Result<Self> {
        let cuda = CudaDevice::new_with_stream(index)?;
        // SAFETY: everything is on one stream but for the copies of `Buffers`, which waits for them itself.
        unsafe { cuda.disable_event_tracking() };
        let stream = cuda.cuda_stream();
        keep_memory(stream.context())?;
        keep_sums_exact(&cuda)?;
        let kinds: &[ActivationStorage] = match precision {
            Precision::F32 | Precision::Tf32 => &[ActivationStorage::F32],
            Precision::Bf16 => &[ActivationStorage::F32, ActivationStorage::Bf16],
        };
        let architecture = architecture(stream.context())?;
        let compiled: Vec<_> = std::thread::scope(|scope| {
            let sources = kinds.iter().flat_map(|kind| SOURCES.map(|source| (*kind, source)));
            let architecture = &architecture;
            let threads: Vec<_> = sources
                .map(|(kind, (name, text))| {
                    scope
                        .spawn(move || Ok(((kind, name), compiler::compile(name, text, kind, architecture)?)))
                })
                .collect();
            let joined = threads.into_iter().map(|thread| match thread.join() {
                Ok(compiled) => compiled,
                Err(_) => bail!("the compiler of the kernels panicked"),
            });
            joined.collect::<Result<_>>()
        })?;
        let modules = compiled
            .into_iter()
            .map(|(key, code)| Ok((key, stream.context().load_module(code).map_err(wrong)?)))
            .collect::<Result<_>>()?;
        let device = Device::Cuda(cuda.clone());
        Ok(Self { device, cuda, stream, modules, functions: Mutex::default() })
    }

    fn function(&self, storage: ActivationStorage, launch: &Launch) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (storage, launch.kernel.clone());
        if let Some(function) = functions.get(&key) {
            return Ok(function.clone());
        }
        let Some(module) = self.modules.get(&(storage, launch.module)) else {
            bail!("{}: {storage:?} kernels were not compiled for this precision", launch.kernel)
        };
        let function = module.load_function(&launch.kernel).map_err(wrong)?;
        functions.insert(key, function.clone());
        Ok(function)
    }
}

/// Retains freed memory in the process: every step needs the same amount again.
fn keep_memory(context: &CudaContext) -> Result<()> {
    context.bind_to_thread().map_err(wrong)?;
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut most = u64::MAX;
    // SAFETY: the pool is the device's own, the attribute is a u64, read before the call returns.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(wrong)?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut most).cast()).result().map_err(wrong)
    }
}

/// Products of bfloat16 are summed in f32 to the end.
fn keep_sums_exact(cuda: &CudaDevice) -> Result<()> {
    let handle = cuda.cublas_handle();
    let mode = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
    // SAFETY: the handle is the device's own and lives longer than the call.
    unsafe { blas::cublasSetMathMode(*handle.handle(), mode).result() }
        .map_err(|error| candle_core::Error::msg(format!("cuBLAS: {error:?}")))
}

/// The compiler's name of the GPU's architecture, such as `sm_90`.
fn architecture(context: &CudaContext) -> Result<String> {
    let (major, minor) = context.compute_capability().map_err(wrong)?;
    Ok(format!("sm_{major}{minor}"))
}

fn wrong(error: DriverError) -> candle_core::Error {
    candle_core::Error::msg(format!("the GPU: {}", text_of(&error)))
}

impl Executor for CudaExecutor {
    fn device(&self) -> &Device {
        &self.device
    }

    fn launch(&self, storage: ActivationStorage, launch: &Launch) -> Result<()> {
        let function = self.function(storage, launch)?;
        let Ok(blocks) = i32::try_from(launch.blocks) else {
            bail!("{}: {} blocks; take a smaller batch", launch.kernel, launch.blocks)
        };
        let mut words: Vec<Vec<u64>> = launch.arguments.iter().map(super::Argument::words).collect();
        let mut pointers: Vec<*mut c_void> =
            words.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
        self.stream.context().bind_to_thread().map_err(wrong)?;
        let grid = (blocks.cast_unsigned(), 1, 1);
        let block = (THREADS as u32, 1, 1);
        // SAFETY: arguments are those that the kernel was planned with, each of its parameter's size; the driver copies them
        // before it returns. They point to tensors on this stream, of the sizes that the plan is for: freed
        // memory is given out again in the stream's order.
        let launched = unsafe {
            result::launch_kernel(
                function.cu_function(),
                grid,
                block,
                0,
                self.stream.cu_stream(),
                &mut pointers,
            )
        };
        launched.map_err(wrong)
    }

    fn multiply(&self, product: &Product, precision: Precision) -> Result<()> {
        let Product { sizes, left, right, out: (out, lead), accumulate, given, output } = *product;
        let size = |value: usize| match i32::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => bail!("a product of {sizes:?}: take a smaller batch"),
        };
        let kind = |storage| match storage {
            ActivationStorage::F32 => blas::cudaDataType::CUDA_R_32F,
            ActivationStorage::Bf16 => blas::cudaDataType::CUDA_R_16BF,
        };
        let turned = |operand: Operand| match operand.transposed {
            true => blas::cublasOperation_t::CUBLAS_OP_T,
            false => blas::cublasOperation_t::CUBLAS_OP_N,
        };
        let compute = match (precision, given) {
            (Precision::Tf32, ActivationStorage::F32) => {
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
            }
            _ => blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let one = 1.0f32;
        let beta = if accumulate { 1.0f32 } else { 0.0 };
        let at = |place: Place| place.0 as *const c_void;
        let [rows, inner, columns] = [size(sizes[0])?, size(sizes[1])?, size(sizes[2])?];
        let leads = [size(left.lead)?, size(right.lead)?, size(lead)?];
        self.stream.context().bind_to_thread().map_err(wrong)?;
        let handle = self.cuda.cublas_handle();
        // cuBLAS is column-major: it reads our matrices as their transposes, and computes out' = right' x left'.
        // SAFETY: places are of tensors on this stream, of the sizes and leads that the product was planned for; the
        // factors are read before the call returns.
        let done = unsafe {
            cublas::gemm_ex(
                *handle.handle(),
                turned(right),
                turned(left),
                columns,
                rows,
                inner,
                (&raw const one).cast(),
                at(right.place),
                kind(given),
                leads[1],
                at(left.place),
                kind(given),
                leads[0],
                (&raw const beta).cast(),
                out.0 as *mut c_void,
                kind(output),
                leads[2],
                compute,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|error| candle_core::Error::msg(format!("cuBLAS: {error:?} for {product:?}")))
    }

    fn clear(&self, place: Place, bytes: usize) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(wrong)?;
        // SAFETY: a tensor's memory, so many bytes of it, on this stream.
        unsafe { result::memset_d8_async(place.0, 0, bytes, self.stream.cu_stream()) }.map_err(wrong)
    }

    fn synchronize(&self) -> Result<()> {
        self.stream.synchronize().map_err(wrong)
    }

    fn name(&self) -> String {
        self.stream.context().name().unwrap_or_else(|_| "an NVIDIA GPU".to_string())
    }

    fn memory(&self) -> Result<usize> {
        self.synchronize()?;
        let (free, total) = self.stream.context().mem_get_info().map_err(wrong)?;
        Ok(total - free)
    }

    fn memory_left(&self) -> Result<usize> {
        self.synchronize()?;
        let (free, _) = self.stream.context().mem_get_info().map_err(wrong)?;
        Ok(free)
    }

    fn mark(&self) -> Result<Box<dyn DeviceEvent>> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        let event = self.stream.record_event(flags).map_err(wrong)?;
        Ok(Box::new(Event(event)))
    }

    fn ring(&self, values: usize) -> Result<Box<dyn DeviceStaging>> {
        Ok(Box::new(Buffers::new(self, values)?))
    }
}

/// An event on the stream.
#[derive(Debug)]
struct Event(CudaEvent);

impl DeviceEvent for Event {
    fn ms_since(&self, earlier: &dyn DeviceEvent) -> Result<f64> {
        let Some(earlier) = (earlier as &dyn Any).downcast_ref::<Self>() else {
            bail!("an event of another device")
        };
        earlier.0.elapsed_ms(&self.0).map(f64::from).map_err(wrong)
    }
}

/// One batch is computed with, one waits, one is filled.
const BUFFERS: usize = 3;

/// Page-locked memory on the CPU and as much on the GPU, and a stream of their own for the copies.
struct Buffers {
    stream: Arc<CudaStream>,
    pinned: PinnedHostSlice<f32>,
    on_gpu: Vec<Tensor>,
    next: usize,
}

impl Buffers {
    fn new(gpu: &CudaExecutor, values: usize) -> Result<Self> {
        let context = gpu.stream.context();
        // SAFETY: what is read of it was written before, see `fill`.
        let pinned = unsafe { context.alloc_pinned::<f32>(values.max(1)) }.map_err(wrong)?;
        let mut on_gpu = Vec::with_capacity(BUFFERS);
        for _ in 0..BUFFERS {
            // SAFETY: every bit pattern is a number, and `fill` writes what it hands out.
            on_gpu.push(unsafe { Tensor::empty(values.max(1), candle_core::DType::F32, &gpu.device) }?);
        }
        // the buffers are there before another stream writes to them
        gpu.synchronize()?;
        Ok(Self { stream: context.new_stream().map_err(wrong)?, pinned, on_gpu, next: 0 })
    }
}

impl DeviceStaging for Buffers {
    fn fill(&mut self, values: &[f32]) -> Result<Tensor> {
        if values.len() > self.pinned.len() {
            bail!("a batch of {} values for buffers of {}", values.len(), self.pinned.len());
        }
        let buffer = &self.on_gpu[self.next];
        self.next = (self.next + 1) % BUFFERS;
        self.stream.context().bind_to_thread().map_err(wrong)?;
        let pinned = &mut self.pinned.as_mut_slice().map_err(wrong)?[..values.len()];
        pinned.copy_from_slice(values);
        // SAFETY: the buffer has so many values, its last user is done (see [`DeviceStaging`]), and the page-locked memory is
        // not written again before the copy is done.
        unsafe { result::memcpy_htod_async(place(buffer)?.0, pinned, self.stream.cu_stream()) }
            .map_err(wrong)?;
        self.stream.synchronize().map_err(wrong)?;
        buffer.narrow(0, 0, values.len())
    }
}
