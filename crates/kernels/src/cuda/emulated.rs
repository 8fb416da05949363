//! The kernels compiled for the host by a C++ compiler, and run there.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use libloading::Library;

use super::{
    ActivationStorage, Argument, COMMON, DeviceEvent, DeviceStaging, Executor, Gpu, Launch, Operand, Place,
    Product, SOURCES,
};
use crate::{Backend, Implementation, Precision};
use base::timing::Stopwatch;

/// All sources for both kinds of storage, as libraries of this process.
#[derive(Debug)]
pub struct Host {
    libraries: HashMap<(&'static str, ActivationStorage), Library>,
}

/// The part of CUDA C that the sources use.
const SHIM: &str = include_str!("source/host.hpp");

impl Host {
    /// Compiles the kernels once; prints a line and returns `None` if there is no C++ compiler.
    pub fn get() -> Option<&'static Self> {
        static HOST: OnceLock<Option<Host>> = OnceLock::new();
        HOST.get_or_init(|| {
            let compiler = ["c++", "g++", "clang++"]
                .into_iter()
                .find(|compiler| Command::new(compiler).arg("--version").output().is_ok());
            if compiler.is_none() {
                println!("skipped: there is no C++ compiler to compile the CUDA kernels with");
            }
            compiler.map(Self::compile)
        })
        .as_ref()
    }

    fn compile(compiler: &str) -> Self {
        let made = tempfile::tempdir().expect("a folder");
        let folder = made.path();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
        write("common.cuh", COMMON);
        write("host.hpp", SHIM);
        for (name, text) in SOURCES {
            write(&format!("{name}.cu"), text);
        }
        let libraries = std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (name, _) in SOURCES {
                for storage in [ActivationStorage::F32, ActivationStorage::Bf16] {
                    threads.push(
                        scope.spawn(move || ((name, storage), library(compiler, folder, name, storage))),
                    );
                }
            }
            threads.into_iter().map(|thread| thread.join().expect("compiled")).collect()
        });
        Self { libraries }
    }

    /// Runs a kernel.
    pub fn launch(&self, storage: ActivationStorage, launch: &Launch) {
        let library = &self.libraries[&(launch.module, storage)];
        let name = format!("host_{}", launch.kernel);
        let mut values: Vec<Vec<u64>> = launch.arguments.iter().map(Argument::words).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|words| words.as_mut_ptr().cast()).collect();
        // SAFETY: the shim exports every kernel with this signature. It reads each argument where its pointer says, as the
        // kernel's parameters have it; the places among them are buffers of the tests, of the sizes that the launch
        // was planned for.
        unsafe {
            let run: libloading::Symbol<unsafe extern "C" fn(i64, *mut *mut c_void)> =
                library.get(name.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            run(i64::try_from(launch.blocks).expect("not so many"), pointers.as_mut_ptr());
        }
    }
}

fn library(compiler: &str, folder: &Path, name: &str, storage: ActivationStorage) -> Library {
    let out = folder.join(format!("{name}-{storage:?}.so"));
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]);
    command
        .args(["-shared", "-fPIC", "-x", "c++"])
        .arg(folder.join(format!("{name}.cu")))
        .arg("-o")
        .arg(&out);
    if storage == ActivationStorage::Bf16 {
        command.arg("-DBF16");
    }
    let done = command.output().expect("the compiler runs");
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    // SAFETY: the library is made of the sources here, and runs nothing when it is loaded.
    unsafe { Library::new(&out) }.expect("a library that was just made")
}

/// A GPU emulated on the host, with the CPU's tensors. Prints a line and returns `None` if there is no C++ compiler.
pub fn emulated_gpu(precision: Precision) -> Option<Backend> {
    let executor = OnHost(Host::get()?);
    Some(Backend::on(Implementation::Cuda(Gpu::new(Box::new(executor), precision))))
}

#[derive(Debug)]
struct OnHost(&'static Host);

impl Executor for OnHost {
    fn device(&self) -> &Device {
        &Device::Cpu
    }

    fn launch(&self, storage: ActivationStorage, launch: &Launch) -> candle_core::Result<()> {
        self.0.launch(storage, launch);
        Ok(())
    }

    fn multiply(&self, product: &Product, _: Precision) -> candle_core::Result<()> {
        multiply(product);
        Ok(())
    }

    fn clear(&self, place: Place, bytes: usize) -> candle_core::Result<()> {
        // SAFETY: a tensor's values, so many bytes of them, which nobody else uses while an operation writes.
        unsafe { std::ptr::write_bytes(place.0 as *mut u8, 0, bytes) };
        Ok(())
    }

    fn synchronize(&self) -> candle_core::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "host".to_string()
    }

    fn memory(&self) -> candle_core::Result<usize> {
        Ok(0)
    }

    fn memory_left(&self) -> candle_core::Result<usize> {
        Ok(usize::MAX)
    }

    fn mark(&self) -> candle_core::Result<Box<dyn DeviceEvent>> {
        Ok(Box::new(Now(Stopwatch::start())))
    }

    fn ring(&self, values: usize) -> candle_core::Result<Box<dyn DeviceStaging>> {
        Ok(Box::new(Copies(values)))
    }
}

#[derive(Debug)]
struct Now(Stopwatch);

impl DeviceEvent for Now {
    fn ms_since(&self, earlier: &dyn DeviceEvent) -> candle_core::Result<f64> {
        let earlier = (earlier as &dyn Any).downcast_ref::<Self>().expect("a mark of the host");
        Ok(earlier.0.elapsed_ms() - self.0.elapsed_ms())
    }
}

/// Copies, each in memory of its own.
struct Copies(usize);

impl DeviceStaging for Copies {
    fn fill(&mut self, values: &[f32]) -> candle_core::Result<Tensor> {
        assert!(values.len() <= self.0);
        Tensor::from_slice(values, values.len(), &Device::Cpu)
    }
}

/// A library's product, by definition; sums in double precision.
fn multiply(product: &Product) {
    let Product { sizes: [rows, inner, columns], left, right, out: (out, lead), .. } = *product;
    let fetch = |operand: Operand, rows: usize, columns: usize| {
        let Operand { place, lead, transposed } = operand;
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            for column in 0..columns {
                let at = if transposed { column * lead + row } else { row * lead + column };
                values.push(f64::from(read(product.given, place, at)));
            }
        }
        values
    };
    let left = fetch(left, rows, inner);
    let right = fetch(right, inner, columns);
    let mut sums = vec![0.0; columns];
    for (row, factors) in left.chunks_exact(inner).enumerate() {
        sums.fill(0.0);
        for (factor, values) in factors.iter().zip(right.chunks_exact(columns)) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
        }
        for (column, sum) in sums.iter().enumerate() {
            let at = row * lead + column;
            let there = if product.accumulate { f64::from(read(product.output, out, at)) } else { 0.0 };
            write(product.output, out, at, (there + sum) as f32);
        }
    }
}

fn read(storage: ActivationStorage, place: Place, at: usize) -> f32 {
    // SAFETY: places are of tensors of the CPU, of the sizes that the product was planned for.
    unsafe {
        match storage {
            ActivationStorage::F32 => *(place.0 as *const f32).add(at),
            ActivationStorage::Bf16 => (*(place.0 as *const half::bf16).add(at)).to_f32(),
        }
    }
}

fn write(storage: ActivationStorage, place: Place, at: usize, value: f32) {
    // SAFETY: as in `read`; the result is written by nobody else meanwhile.
    unsafe {
        match storage {
            ActivationStorage::F32 => *(place.0 as *mut f32).add(at) = value,
            ActivationStorage::Bf16 => *(place.0 as *mut half::bf16).add(at) = half::bf16::from_f32(value),
        }
    }
}
