//! The kernels compiled for the host by a C++ compiler, and run there.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;

use super::super::{Argument, COMMON, Launch, Place, SOURCES, Storage};

/// All sources for both kinds of storage, as libraries of this process.
pub struct Host {
    libraries: HashMap<(&'static str, Storage), Library>,
}

/// The part of CUDA C that the sources use.
const SHIM: &str = include_str!("../source/host.hpp");

impl Host {
    /// Compiles the kernels once; `None`, and a word why, where there is no C++ compiler.
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
            let one = |(name, storage)| {
                scope.spawn(move || ((name, storage), library(compiler, folder, name, storage)))
            };
            let both = |name| [(name, Storage::F32), (name, Storage::Bf16)];
            let threads: Vec<_> = SOURCES.iter().flat_map(|(name, _)| both(*name)).map(one).collect();
            threads.into_iter().map(|thread| thread.join().expect("compiled")).collect()
        });
        Self { libraries }
    }

    /// Runs kernels one after the other.
    pub fn run(&self, storage: Storage, launches: impl IntoIterator<Item = Launch>) {
        for launch in launches {
            self.launch(storage, &launch);
        }
    }

    fn launch(&self, storage: Storage, launch: &Launch) {
        let library = &self.libraries[&(launch.module, storage)];
        let name = format!("host_{}", launch.kernel);
        let mut values: Vec<Vec<u64>> = launch.arguments.iter().map(words).collect();
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

fn library(compiler: &str, folder: &Path, name: &str, storage: Storage) -> Library {
    let out = folder.join(format!("{name}-{storage:?}.so"));
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]);
    command
        .args(["-shared", "-fPIC", "-x", "c++"])
        .arg(folder.join(format!("{name}.cu")))
        .arg("-o")
        .arg(&out);
    if storage == Storage::Bf16 {
        command.arg("-DBF16");
    }
    let done = command.output().expect("the compiler runs");
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
    // SAFETY: the library is made of the sources here, and runs nothing when it is loaded.
    unsafe { Library::new(&out) }.expect("a library that was just made")
}

/// An argument's bytes in words, as the driver reads them.
fn words(argument: &Argument) -> Vec<u64> {
    match argument {
        Argument::Place(Place(place)) => vec![*place],
        Argument::Long(value) => vec![value.cast_unsigned()],
        Argument::Float(value) => vec![u64::from(value.to_bits())],
        Argument::Ints(values) => {
            let word = |pair: &[i32]| {
                let low = u64::from(pair[0].cast_unsigned());
                low | u64::from(pair.get(1).map_or(0, |high| high.cast_unsigned())) << 32
            };
            values.chunks(2).map(word).collect()
        }
    }
}

/// Values of a layer in either kind of storage.
pub enum Values {
    F32(Vec<f32>),
    Bf16(Vec<half::bf16>),
}

impl Values {
    /// Keeps `values`, rounded where they must be.
    pub fn new(storage: Storage, values: &[f32]) -> Self {
        match storage {
            Storage::F32 => Self::F32(values.to_vec()),
            Storage::Bf16 => Self::Bf16(values.iter().map(|value| half::bf16::from_f32(*value)).collect()),
        }
    }

    /// So many that no kernel wrote yet.
    pub fn garbage(storage: Storage, len: usize) -> Self {
        Self::new(storage, &vec![f32::NAN; len])
    }

    /// Where they lie; kernels may write there.
    pub fn place(&mut self) -> Place {
        match self {
            Self::F32(values) => place(values),
            Self::Bf16(values) => place(values),
        }
    }

    /// What they are now.
    pub fn read(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
        }
    }
}

/// Where a slice lies.
pub fn place<T>(values: &mut [T]) -> Place {
    Place(values.as_mut_ptr() as u64)
}
