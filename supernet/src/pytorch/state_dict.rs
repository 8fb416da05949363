//! The tensors of a network by name, as they lie in a file of PyTorch or in safetensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};

use super::container::Container;
use super::value::{ElementType, Storage, StoredTensor, Value};
use super::{TorchFile, from_bytes};
use crate::error::{Error, Result};
use crate::file;

/// Where a checkpoint keeps its network: the first of these entries that is there.
const ENTRIES: [&str; 6] = ["state_dict", "model_state_dict", "model", "net", "state_dict_ema", "model_ema"];

/// Prefix of every name where a network was saved inside `DataParallel`.
const PARALLEL: &str = "module.";

/// Tensors by name, read from the file's bytes when they are asked for.
pub struct StateDict<'a> {
    place: String,
    bytes: Cow<'a, [u8]>,
    container: Container,
    tensors: BTreeMap<String, (Arc<StoredTensor>, Range<usize>)>,
}

impl StateDict<'static> {
    /// Reads a file of `torch.save`, or safetensors.
    ///
    /// # Errors
    /// As [`StateDict::from_bytes`]; or if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        Self::new(&path.display().to_string(), Cow::Owned(file::read(path)?))
    }
}

impl<'a> StateDict<'a> {
    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// If the file is broken or holds no network: no tensors by name, neither by themselves nor in an entry
    /// `state_dict`, `model_state_dict`, `model`, `net`, `state_dict_ema` or `model_ema`.
    pub fn from_bytes(place: &str, bytes: &'a [u8]) -> Result<Self> {
        Self::new(place, Cow::Borrowed(bytes))
    }

    fn new(place: &str, bytes: Cow<'a, [u8]>) -> Result<Self> {
        // safetensors begin with the length of a JSON object
        match bytes.get(8) {
            Some(b'{') => Self::from_safetensors(place, bytes),
            _ => Self::of(from_bytes(place, bytes)?),
        }
    }

    /// The network of a file that was read.
    ///
    /// # Errors
    /// If it holds none.
    pub(super) fn of(file: TorchFile<'a>) -> Result<Self> {
        let TorchFile { place, bytes, container, value, storages } = file;
        let mut tensors = BTreeMap::new();
        for (name, value) in entries_of(&place, &value)? {
            let Value::Tensor(tensor) = value else {
                return Err(Error::invalid(place, name, "a tensor", "something else"));
            };
            let range = storages[&tensor.storage.key].clone();
            if tensors.insert(name.to_string(), (tensor.clone(), range)).is_some() {
                return Err(Error::invalid(place, name, "each name once", "two tensors of it"));
            }
        }
        Self { place, bytes, container, tensors }.checked()
    }

    fn from_safetensors(place: &str, bytes: Cow<'a, [u8]>) -> Result<Self> {
        let broken = |error: safetensors::SafeTensorError| {
            Error::invalid(place, "content", "a whole safetensors file", error)
                .and_then_do("the file is cut off or no such file; get or save it again")
        };
        let mut tensors = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).map_err(broken)?.iter() {
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
        Self { place: place.to_string(), bytes, container: Container::Safetensors, tensors }.checked()
    }

    /// The same without `DataParallel`'s prefix. All tensors together may have as many elements as the file has bytes:
    /// a few bytes can claim to be seen as many tensors.
    fn checked(mut self) -> Result<Self> {
        let elements = self.tensors.values().map(|(tensor, _)| tensor.elements());
        let total = elements.fold(0usize, usize::saturating_add);
        if total > self.bytes.len() {
            let expected = format!("at most {} elements, as the file has bytes", self.bytes.len());
            return Err(Error::invalid(&self.place, "tensors", expected, total));
        }
        if self.tensors.keys().all(|name| name.starts_with(PARALLEL)) {
            let stripped = |(name, tensor): (String, _)| (name[PARALLEL.len()..].to_string(), tensor);
            self.tensors = self.tensors.into_iter().map(stripped).collect();
        }
        Ok(self)
    }

    /// The file's name in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// How the file is made.
    pub fn container(&self) -> Container {
        self.container
    }

    /// blake3 of the file, in hexadecimal.
    pub fn hash(&self) -> String {
        blake3::hash(&self.bytes).to_hex().to_string()
    }

    /// Names of the tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// What is known of a tensor without reading it.
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
        let values = tensor.decode(&self.bytes[range.clone()]);
        Ok(Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?)
    }
}

/// The dictionary of tensors in an object: itself, or the first of its entries that may hold a network.
fn entries_of<'v>(place: &str, value: &'v Value) -> Result<Vec<(&'v str, &'v Value)>> {
    let chosen = ENTRIES.iter().find_map(|entry| match value.get(entry) {
        Some(Value::Tensor(_)) | None => None,
        found => found,
    });
    let Value::Dict(entries) = chosen.unwrap_or(value) else {
        return Err(no_network(place, "no dictionary"));
    };
    let mut named = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let Value::Text(name) = key else { return Err(no_network(place, "a dictionary of other keys")) };
        named.push((&**name, value));
    }
    if !named.iter().any(|(_, value)| matches!(value, Value::Tensor(_))) {
        return Err(no_network(place, "a dictionary without tensors"));
    }
    Ok(named)
}

fn no_network(place: &str, got: &str) -> Error {
    let expected = format!("tensors by name, by themselves or in an entry {}", ENTRIES.join(", "));
    Error::invalid(place, "object", expected, got)
        .and_then_do("save the network: torch.save(network.state_dict(), FILE)")
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
