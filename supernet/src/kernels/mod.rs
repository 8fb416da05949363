//! The arithmetic that candle lacks or does slowly, forward and backward, as functions on tensors.
//!
//! Activations are channel-major, `[C, N, H, W]` contiguous; weights are in PyTorch's order and may be narrowed
//! views of bigger ones. Gradients of weights are accumulated in place, in views of the big gradient. Knows
//! nothing of layers, architectures or training.

pub mod cpu;
#[cfg(test)] // until there is a device to launch them on
mod cuda;
mod ops;
mod profile;
mod reference;
mod tensors;

pub use cpu::Isa;
pub use ops::{ChainKept, DepthwiseChain, NesterovStep, Normalisation, PackedWeight, Window};
pub use profile::{Profile, ProfileRow};

use crate::error::{Error, Result};

/// Which implementation computes, for which kind of layer; a value that layers carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kernels {
    path: Path,
    layer: &'static str,
    profile: Option<Profile>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Reference,
    Cpu(Isa),
}

impl Kernels {
    fn on(path: Path) -> Self {
        Self { path, layer: "", profile: None }
    }

    /// The same, recording each call.
    #[must_use]
    pub fn profiled(self, profile: Profile) -> Self {
        Self { profile: Some(profile), ..self }
    }

    /// The same, recording nothing.
    #[must_use]
    pub fn unrecorded(self) -> Self {
        Self { profile: None, ..self }
    }

    /// The same, its calls recorded as this kind of layer's.
    #[must_use]
    pub fn for_layer(self, layer: &'static str) -> Self {
        Self { layer, ..self }
    }

    /// The fastest that this machine's CPU has.
    pub fn detect() -> Self {
        Self::on(Path::Cpu(Isa::detect()))
    }

    /// Naive loops with sums in double precision, to compare with.
    pub fn reference() -> Self {
        Self::on(Path::Reference)
    }

    /// The kernels by name: `avx512`, `avx2`, `portable` or `reference`.
    ///
    /// # Errors
    /// If there is no such name, or this CPU lacks the instructions.
    pub fn named(name: &str) -> Result<Self> {
        let wanted = |kernels: &Self| kernels.name() == name;
        let all =
            || Isa::available().into_iter().map(|isa| Self::on(Path::Cpu(isa))).chain([Self::reference()]);
        all().find(wanted).ok_or_else(|| {
            let usable: Vec<_> = all().map(Self::name).collect();
            Error::invalid("kernels", "name", format!("one that this CPU has: {}", usable.join(", ")), name)
        })
    }

    /// Its name, as it stands in provenance and messages.
    pub fn name(self) -> &'static str {
        match self.path {
            Path::Reference => "reference",
            Path::Cpu(Isa::Avx512) => "avx512",
            Path::Cpu(Isa::Avx2) => "avx2",
            Path::Cpu(Isa::Portable) => "portable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(Kernels::named("reference").expect("always there"), Kernels::reference());
        assert_eq!(Kernels::named("portable").expect("always there").name(), "portable");
        let error = Kernels::named("avx1024").expect_err("no such thing").to_string();
        assert!(error.contains("portable, reference"), "{error}");
    }
}
