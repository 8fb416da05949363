//! The tensors of a network by name, as they lie in a file of PyTorch or in safetensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use base::file;
use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};

use super::container::Container;
use super::value::{ElementType, PickleValue, Storage, StoredTensor};
use super::{Content, TorchFile, entries, from_bytes};
use crate::error::{Error, Result};

/// Names that modules give to a network inside them: those of `DataParallel`, `torch.compile`, and usual ones of users.
const WRAPPERS: [&str; 6] = ["module", "_orig_mod", "model", "backbone", "net", "network"];

/// Tensors by name, read from the file's bytes on request.
pub struct StateDict<'a> {
    place: String,
    content: Content<'a>,
    container: Container,
    entries: Entries,
    prefix: String,
    tensors: BTreeMap<String, (Arc<StoredTensor>, Range<usize>)>,
}

/// Where in a checkpoint's object a network was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// The keys that lead to it, outermost first; none where the object is the network itself.
    pub path: Vec<String>,
    /// Keys of further networks next to it.
    pub others: Vec<String>,
}

impl StateDict<'static> {
    /// Reads a file of `torch.save`, or safetensors; of a checkpoint the network of the entry `key`, where one is given.
    ///
    /// # Errors
    /// As [`StateDict::from_bytes`]; or if the file cannot be read, or has no network under `key`.
    pub fn read(path: &Path, key: Option<&str>) -> Result<Self> {
        Self::new(&path.display().to_string(), Cow::Owned(file::read(path)?), key)
    }
}

impl<'a> StateDict<'a> {
    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// If the file is broken or holds no network: no tensors by name, neither by themselves nor in an entry
    /// `state_dict`, `model_state_dict`, `model`, `net`, `state_dict_ema` or `model_ema`.
    pub fn from_bytes(place: &str, bytes: &'a [u8]) -> Result<Self> {
        Self::new(place, Cow::Borrowed(bytes), None)
    }

    /// [`StateDict::from_bytes`] of the network in the entry `key` of a checkpoint.
    ///
    /// # Errors
    /// As there; or if the checkpoint has no network under that key.
    pub fn entry_from_bytes(place: &str, bytes: &'a [u8], key: &str) -> Result<Self> {
        Self::new(place, Cow::Borrowed(bytes), Some(key))
    }

    fn new(place: &str, bytes: Cow<'a, [u8]>, key: Option<&str>) -> Result<Self> {
        // safetensors begin with the length of a JSON object
        match (bytes.get(8..).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{")), key) {
            (true, None) => Self::from_safetensors(place, bytes),
            (true, Some(key)) => {
                let expected = format!("a checkpoint with an entry {key}");
                Err(Error::invalid(place, "content", expected, "safetensors, which have no entries")
                    .and_then_do("leave --key out"))
            }
            _ => Self::of(from_bytes(place, bytes)?, key),
        }
    }

    /// The network of a file that was read, under a key or where networks usually are.
    ///
    /// # Errors
    /// If it holds none.
    pub(super) fn of(file: TorchFile<'a>, key: Option<&str>) -> Result<Self> {
        let TorchFile { place, content, container, value, storages } = file;
        let mut tensors = BTreeMap::new();
        let (entries, named) = entries::network(&place, &value, key)?;
        for (name, value) in named {
            let PickleValue::Tensor(tensor) = value else {
                return Err(Error::invalid(place, name, "a tensor", "something else"));
            };
            let range = storages[&tensor.storage.key].clone();
            if tensors.insert(name.to_string(), (tensor.clone(), range)).is_some() {
                return Err(Error::invalid(place, name, "each name once", "two tensors of it"));
            }
        }
        Self { place, content, container, entries, prefix: String::new(), tensors }.checked()
    }

    fn from_safetensors(place: &str, bytes: Cow<'a, [u8]>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let file = SafeTensors::deserialize(&bytes).map_err(|error| {
            Error::invalid(place, "content", "a whole safetensors file", error)
                .and_then_do("the file is cut off or no such file; get or save it again")
        })?;
        for (name, view) in file.iter() {
            let element = element_of(view.dtype()).ok_or_else(|| {
                Error::invalid(place, name, "numbers of 8 to 64 bits", format!("{:?}", view.dtype()))
            })?;
            // the view is a part of the bytes
            let start = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
            let elements = view.data().len() / element.size();
            let key = Arc::from(name);
            let storage = Storage { key, element, elements, start: 0, length: elements };
            let shape = view.shape().to_vec();
            let mut strides = vec![1usize; shape.len()];
            for at in (1..shape.len()).rev() {
                strides[at - 1] = strides[at].saturating_mul(shape[at]);
            }
            let tensor = StoredTensor { storage: Arc::new(storage), offset: 0, shape, strides };
            tensors.insert(name.to_string(), (Arc::new(tensor), start..start + view.data().len()));
        }
        Self {
            place: place.to_string(),
            content: Content { bytes, unpacked: None },
            container: Container::Safetensors,
            entries: Entries::default(),
            prefix: String::new(),
            tensors,
        }
        .checked()
    }

    /// Takes off the common prefix of the names. All tensors together may have as many elements as the file has bytes: a few
    /// bytes can claim to be many tensors.
    fn checked(mut self) -> Result<Self> {
        let elements = self.tensors.values().map(|(tensor, _)| tensor.elements());
        let total = elements.fold(0usize, usize::saturating_add);
        let bytes = self.content.data().len();
        if total > bytes {
            let expected = format!("at most {bytes} elements, as the file has bytes");
            return Err(Error::invalid(&self.place, "tensors", expected, total));
        }
        while let Some(wrapper) = self.wrapper() {
            self.tensors = self
                .tensors
                .into_iter()
                .map(|(name, tensor): (String, _)| (name[wrapper.len()..].to_string(), tensor))
                .collect();
            self.prefix.push_str(&wrapper);
        }
        Ok(self)
    }

    /// The first part of the names, with its point, where it is the same in all of them. A part that numbers follow is a list
    /// of modules. It wraps the network only where its name is that of a wrapper.
    fn wrapper(&self) -> Option<String> {
        let mut names = self.names();
        let (first, _) = names.next()?.split_once('.')?;
        let prefix = format!("{first}.");
        let rest: Option<Vec<&str>> = self.names().map(|name| name.strip_prefix(&prefix)).collect();
        let wraps = WRAPPERS.contains(&first)
            || !rest
                .as_ref()?
                .iter()
                .all(|rest: &&str| rest.starts_with(|first: char| first.is_ascii_digit()));
        (rest?.iter().all(|rest| !rest.is_empty()) && wraps).then_some(prefix)
    }

    /// The file's name in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Container of the file.
    pub fn container(&self) -> Container {
        self.container
    }

    /// blake3 of the file, in hexadecimal.
    pub fn hash(&self) -> String {
        blake3::hash(&self.content.bytes).to_hex().to_string()
    }

    /// Where in the file the network was.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// The prefix of every name in the file, left out here, such as `module._orig_mod.`; may be empty.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Names of the tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The facts of a tensor that are known without reading it.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name).map(|(tensor, _)| &**tensor)
    }

    /// A tensor as f32.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let (tensor, range) = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::invalid(&self.place, name, "a tensor of this name", "none"))?;
        let values = tensor.decode(&self.content.data()[range.clone()]);
        Ok(Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?)
    }
}

fn element_of(dtype: Dtype) -> Option<ElementType> {
    Some(match dtype {
        Dtype::F32 => ElementType::F32,
        Dtype::F64 => ElementType::F64,
        Dtype::F16 => ElementType::F16,
        Dtype::BF16 => ElementType::Bf16,
        Dtype::I64 => ElementType::I64,
        Dtype::I32 => ElementType::I32,
        Dtype::I16 => ElementType::I16,
        Dtype::I8 => ElementType::I8,
        Dtype::U8 => ElementType::U8,
        Dtype::BOOL => ElementType::Bool,
        _ => return None,
    })
}
