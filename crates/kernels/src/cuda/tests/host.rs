//! Buffers of either kind of storage, and kernels run on them one after the other.

pub use crate::cuda::emulated::Host;
use crate::cuda::{ActivationStorage, Launch, Place};

impl Host {
    /// Runs kernels one after the other.
    pub fn run(&self, storage: ActivationStorage, launches: impl IntoIterator<Item = Launch>) {
        for launch in launches {
            self.launch(storage, &launch);
        }
    }
}

/// Values of a layer in either kind of storage.
pub enum Values {
    F32(Vec<f32>),
    Bf16(Vec<half::bf16>),
}

impl Values {
    /// Holds `values`, rounded to the storage.
    pub fn new(storage: ActivationStorage, values: &[f32]) -> Self {
        match storage {
            ActivationStorage::F32 => Self::F32(values.to_vec()),
            ActivationStorage::Bf16 => {
                Self::Bf16(values.iter().map(|value| half::bf16::from_f32(*value)).collect())
            }
        }
    }

    /// `len` values that no kernel has written yet.
    pub fn garbage(storage: ActivationStorage, len: usize) -> Self {
        Self::new(storage, &vec![f32::NAN; len])
    }

    /// The place of the values; kernels may write there.
    pub fn place(&mut self) -> Place {
        match self {
            Self::F32(values) => place(values),
            Self::Bf16(values) => place(values),
        }
    }

    /// The current values.
    pub fn read(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
        }
    }
}

/// The place of a slice.
pub fn place<T>(values: &mut [T]) -> Place {
    Place(values.as_mut_ptr() as u64)
}
