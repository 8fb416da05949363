//! The arithmetic that candle lacks or does slowly, forward and backward, as functions on tensors.
//!
//! Activations are channel-major, `[C, N, H, W]` contiguous; weights are in PyTorch's order and may be narrowed
//! views of bigger ones. Gradients of weights are accumulated in place, in views of the big gradient. Knows
//! nothing of layers, architectures or training.

pub mod cpu;
#[cfg_attr(not(any(test, feature = "cuda", feature = "emulated-gpu")), allow(dead_code))]
mod cuda;
pub mod error;
mod ops;
mod profile;
mod reference;
mod staging;
mod tensors;

pub use cpu::Isa;
pub use cpu::updates::AdamWConstants;
#[cfg(any(test, feature = "emulated-gpu"))]
pub use cuda::emulated_gpu;
pub use error::{Error, Result};
pub use ops::{
    AdamWParameter, BatchNormAffine, ChainKept, ChainOutputGradient, CrossEntropy, DepthwiseChain,
    ExciteBackward, HardLabels, NesterovParameter, PackedWeight, Window,
};
pub use profile::{Profile, ProfileRow};
pub use staging::{Event, SpeedProbe, StagingBuffers};

use candle_core::Device;

/// The number type of a GPU's activations and products. Statistics, weights and their gradients are f32 in any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Everything in f32, products too.
    #[default]
    F32,
    /// f32 in memory; products round their operands to TF32, 10 bits of mantissa.
    Tf32,
    /// Activations and the operands of products in bfloat16.
    Bf16,
}

impl Precision {
    /// All precisions.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// `f32`, `tf32` or `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == text);
        found.ok_or_else(|| "f32, tf32 or bf16".to_string())
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The implementation that computes, and the kind of layer that it computes for; a value that layers carry.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    implementation: Implementation,
    layer: &'static str,
    profile: Option<Profile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Implementation {
    Reference,
    Cpu(Isa),
    #[cfg_attr(not(any(test, feature = "cuda", feature = "emulated-gpu")), expect(dead_code))]
    Cuda(cuda::Gpu),
}

impl Backend {
    fn on(implementation: Implementation) -> Self {
        Self { implementation, layer: "", profile: None }
    }

    /// This backend, recording each call.
    #[must_use]
    pub fn profiled(&self, profile: Profile) -> Self {
        Self { profile: Some(profile), ..self.clone() }
    }

    /// This backend, recording nothing.
    #[must_use]
    pub fn unrecorded(&self) -> Self {
        Self { profile: None, ..self.clone() }
    }

    /// This backend, its calls recorded under this kind of layer.
    #[must_use]
    pub fn for_layer(&self, layer: &'static str) -> Self {
        Self { layer, ..self.clone() }
    }

    /// The fastest instruction set of this machine's CPU.
    pub fn detect() -> Self {
        Self::on(Implementation::Cpu(Isa::detect()))
    }

    /// Naive loops with sums in double precision, to compare with.
    pub fn reference() -> Self {
        Self::on(Implementation::Reference)
    }

    /// The CPU's kernels by name: `avx512`, `avx2`, `portable` or `reference`.
    ///
    /// # Errors
    /// If there is no such name, or this CPU lacks the instructions.
    pub fn named(name: &str) -> Result<Self> {
        let all = || {
            Isa::available()
                .into_iter()
                .map(|isa| Self::on(Implementation::Cpu(isa)))
                .chain([Self::reference()])
        };
        all().find(|backend: &Self| backend.name() == name).ok_or_else(|| {
            let usable: Vec<_> = all().map(|backend| backend.name()).collect();
            let expected = format!("one that this CPU has: {}", usable.join(", "));
            base::Error::invalid("kernels", "name", expected, name).into()
        })
    }

    /// The kernels of an NVIDIA GPU, the `index`-th that the driver lists; they compute on tensors in its memory.
    ///
    /// # Errors
    /// If this build has no CUDA, the machine no driver or no such GPU, or the kernels do not compile for it.
    pub fn cuda(index: usize, precision: Precision) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Ok(Self::on(Implementation::Cuda(cuda::device::open(index, precision)?)));
        #[cfg(not(feature = "cuda"))]
        {
            let place = format!("cuda:{index}");
            let expected = format!("a build with CUDA, for {precision}");
            let next = "build with `--features cuda` (README, \"On a GPU box\"), or compute on `cpu`";
            Err(base::Error::invalid("device", place, expected, "one without").and_then_do(next).into())
        }
    }

    /// The kernels of a device by name: `cpu`, as [`Backend::detect`], or `cuda:N`, as [`Backend::cuda`].
    ///
    /// # Errors
    /// If there is no such device, or a CPU is to compute in anything but f32.
    pub fn on_device(name: &str, precision: Precision) -> Result<Self> {
        let index = name.strip_prefix("cuda:").and_then(|index| index.parse().ok());
        match (name, index) {
            ("cpu", _) if precision == Precision::F32 => Ok(Self::detect()),
            ("cpu", _) => Err(base::Error::invalid("device", "precision", "f32 on `cpu`", precision)
                .and_then_do("compute on a GPU, such as `cuda:0`, in other precisions")
                .into()),
            (_, Some(index)) => Self::cuda(index, precision),
            _ => {
                let expected = "`cpu`, or `cuda:` and a number, such as `cuda:0`";
                Err(base::Error::invalid("device", "name", expected, name).into())
            }
        }
    }

    /// The device of the tensors that the kernels compute on.
    pub fn device(&self) -> Device {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return gpu.device().clone();
        }
        Device::Cpu
    }

    /// This backend if it computes on the CPU; for a GPU, the CPU's fastest kernels.
    #[must_use]
    pub fn on_cpu(&self) -> Self {
        if let Implementation::Cuda(_) = &self.implementation {
            return Self { implementation: Implementation::Cpu(Isa::detect()), ..self.clone() };
        }
        self.clone()
    }

    /// Waits until all work in flight is done; only a GPU has any.
    ///
    /// # Errors
    /// If some of that work failed.
    pub fn synchronize(&self) -> Result<()> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            gpu.synchronize()?;
        }
        Ok(())
    }

    /// The GPU's name, such as `NVIDIA H100 80GB HBM3`; `None` on a CPU.
    pub fn gpu(&self) -> Option<String> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return Some(gpu.name());
        }
        None
    }

    /// The GPU's precision; f32 on a CPU.
    pub fn precision(&self) -> Precision {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return gpu.precision();
        }
        Precision::F32
    }

    /// A GPU's memory in use, in megabytes (10^6 bytes): by this process, which never returns any, and by others. `None`
    /// on a CPU, or if the driver does not report it.
    pub fn gpu_memory_mb(&self) -> Option<f64> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return gpu.memory().ok().map(|bytes| bytes as f64 / 1e6);
        }
        None
    }

    /// Free bytes of a GPU's memory; `None` on a CPU, or if the driver does not report them.
    pub fn gpu_memory_left(&self) -> Option<u64> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return gpu.memory_left().ok().map(|bytes| bytes as u64);
        }
        None
    }

    /// Numbers of kernels and of products launched so far; `None` on a CPU.
    pub fn launches(&self) -> Option<[u64; 2]> {
        if let Implementation::Cuda(gpu) = &self.implementation {
            return Some(gpu.launches());
        }
        None
    }

    /// The backend's name in provenance and messages.
    pub fn name(&self) -> &'static str {
        match &self.implementation {
            Implementation::Cuda(gpu) => match gpu.precision() {
                Precision::F32 => "cuda-f32",
                Precision::Tf32 => "cuda-tf32",
                Precision::Bf16 => "cuda-bf16",
            },
            Implementation::Reference => "reference",
            Implementation::Cpu(Isa::Avx512) => "avx512",
            Implementation::Cpu(Isa::Avx2) => "avx2",
            Implementation::Cpu(Isa::Portable) => "portable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(Backend::named("reference").expect("always there"), Backend::reference());
        assert_eq!(Backend::named("portable").expect("always there").name(), "portable");
        let error = Backend::named("avx1024").expect_err("no such thing").to_string();
        assert!(error.contains("portable, reference"), "{error}");
    }
}
