//! PyTorch's files, as `torch.save` writes them, read without Python and without running a file's code; and
//! the weights of the networks in PyTorch's `ofa` package, turned into a supernet of this toolkit.
//!
//! A file is a pickle (a program that builds an object) and raw data. [`TorchFile`] runs the few instructions that
//! building a checkpoint takes, and refuses every other. Knows nothing of training.

mod archive;
mod container;
mod entries;
mod import;
mod ofa_names;
mod pickle;
mod rebuild;
mod state_dict;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use base::file;

pub use container::Container;
pub use import::{Import, import};
pub use state_dict::{Entries, StateDict};
pub use value::{ElementType, PickleValue, Storage, StoredTensor};

use crate::error::Result;
use crate::foreign;

/// A file that `torch.save` wrote.
pub struct TorchFile<'a> {
    place: String,
    content: Content<'a>,
    container: Container,
    value: PickleValue,
    /// Where in the content's data each storage lies.
    storages: BTreeMap<Arc<str>, Range<usize>>,
}

/// A file's bytes, and, if they are compressed, the unpacked ones.
struct Content<'a> {
    bytes: Cow<'a, [u8]>,
    unpacked: Option<Vec<u8>>,
}

impl Content<'_> {
    /// The bytes that tensors lie in.
    fn data(&self) -> &[u8] {
        self.unpacked.as_deref().unwrap_or(&self.bytes)
    }
}

/// Reads a file that `torch.save` wrote, in the zip or the legacy container.
///
/// # Errors
/// If it cannot be read or is broken, or building its object takes more than a checkpoint of tensors needs: another
/// function or class is named in the message and not called.
pub fn read(path: &Path) -> Result<TorchFile<'static>> {
    from_bytes(&path.display().to_string(), file::read(path)?)
}

/// Reads a file's bytes, owned or borrowed; `place` names them in messages.
///
/// # Errors
/// As [`read`].
pub fn from_bytes<'a>(place: &str, bytes: impl Into<Cow<'a, [u8]>>) -> Result<TorchFile<'a>> {
    let bytes = bytes.into();
    foreign::refuse(place, "a file of torch.save, or safetensors", &bytes)?;
    let (container, opened) = match bytes.starts_with(archive::ZIP) {
        true => (Container::Zip, archive::open_zip(place, &bytes)?),
        false => (Container::Legacy, container::open_legacy(place, &bytes)?),
    };
    let container::Opened { value, storages, unpacked } = opened;
    let content = Content { bytes, unpacked };
    Ok(TorchFile { place: place.to_string(), content, container, value, storages })
}

/// The tensors of a checkpoint's network: the object itself, or the first of its entries `state_dict`,
/// `model_state_dict`, `model`, `net`, `state_dict_ema` and `model_ema`, without the prefix that all names share.
///
/// # Errors
/// If there are none.
pub fn state_dict(file: TorchFile<'_>) -> Result<StateDict<'_>> {
    StateDict::of(file, None)
}

impl TorchFile<'_> {
    /// Container of the file.
    pub fn container(&self) -> Container {
        self.container
    }

    /// The object that was saved.
    pub fn value(&self) -> &PickleValue {
        &self.value
    }

    /// The values of a tensor of this file, in row-major order.
    ///
    /// # Panics
    /// If it is another file's.
    pub fn values(&self, tensor: &StoredTensor) -> Vec<f32> {
        tensor.decode(&self.content.data()[self.storages[&tensor.storage.key].clone()])
    }
}

#[cfg(test)]
mod tests;
