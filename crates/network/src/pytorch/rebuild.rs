//! The functions that a checkpoint of tensors names, and their results.

use std::sync::Arc;

use super::pickle::{Id, Machine, Node};
use super::value::{ElementType, PickleValue, Storage, StoredTensor};
use crate::error::Result;

/// Dimensions that a tensor may have.
const MOST_DIMENSIONS: usize = 16;

/// Names that a pickle may refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Tensor,
    Parameter,
    Size,
    Device,
    Set,
    Complex,
    /// Bytes that can be changed.
    Bytes,
    /// Bytes out of a text; old protocols have no others.
    Encode,
    /// A type of elements; a value, no function.
    Type(&'static str),
    Storage(ElementType),
}

/// PyTorch's types of elements, by the names that it saves them under.
const TYPES: [&str; 30] = [
    "torch.bfloat16",
    "torch.bits16",
    "torch.bits1x8",
    "torch.bits2x4",
    "torch.bits4x2",
    "torch.bits8",
    "torch.bool",
    "torch.complex128",
    "torch.complex32",
    "torch.complex64",
    "torch.float16",
    "torch.float32",
    "torch.float4_e2m1fn_x2",
    "torch.float64",
    "torch.float8_e4m3fn",
    "torch.float8_e4m3fnuz",
    "torch.float8_e5m2",
    "torch.float8_e5m2fnuz",
    "torch.float8_e8m0fnu",
    "torch.int16",
    "torch.int32",
    "torch.int64",
    "torch.int8",
    "torch.qint32",
    "torch.qint8",
    "torch.quint8",
    "torch.uint16",
    "torch.uint32",
    "torch.uint64",
    "torch.uint8",
];

fn element_type(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| known.strip_prefix("torch.") == Some(name))
}

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::Tensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::Parameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "device") => Some(Self::Device),
            ("__builtin__" | "builtins", "set" | "frozenset") => Some(Self::Set),
            ("__builtin__" | "builtins", "complex") => Some(Self::Complex),
            ("__builtin__" | "builtins", "bytearray") => Some(Self::Bytes),
            ("_codecs", "encode") => Some(Self::Encode),
            ("torch", name) => ElementType::of_storage(name)
                .map(Self::Storage)
                .or_else(|| element_type(name).map(Self::Type)),
            _ => None,
        }
    }
}

impl Machine<'_> {
    pub(super) fn tuple(&self, id: Id) -> Result<&[Id]> {
        match &self.nodes[id] {
            Node::Tuple(items) => Ok(items),
            _ => Err(self.wrong("a tuple", "something else")),
        }
    }

    /// The items of a set, which is made of a list of them or of nothing.
    pub(super) fn set_items(&self, arguments: &[Id]) -> Result<Vec<Id>> {
        match arguments {
            [] => Ok(Vec::new()),
            [list] => match &self.nodes[*list] {
                Node::List(items) | Node::Tuple(items) => Ok(items.clone()),
                _ => Err(self.wrong("a set's items in a list", "something else")),
            },
            _ => Err(self.wrong("a set's items in one list", "more")),
        }
    }

    /// The bytes that a text of characters below 256 stands for.
    pub(super) fn latin1(&self, id: Id) -> Result<Arc<[u8]>> {
        let text = self.text(id)?;
        let bytes: Option<Vec<u8>> = text.chars().map(|letter| u8::try_from(letter).ok()).collect();
        bytes.map(Arc::from).ok_or_else(|| self.wrong("bytes as letters of Latin-1", "other letters"))
    }

    pub(super) fn is_bytes(&self, id: Id) -> bool {
        matches!(self.nodes[id], Node::Plain(PickleValue::Bytes(_)))
    }

    /// A whole number that counts something.
    pub(super) fn count(&self, id: Id) -> Result<usize> {
        match &self.nodes[id] {
            Node::Plain(PickleValue::Int(number)) => {
                usize::try_from(*number).map_err(|_| self.wrong("a count", number))
            }
            _ => Err(self.wrong("a count", "something else")),
        }
    }

    fn counts(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.tuple(id)?;
        if items.len() > MOST_DIMENSIONS {
            return Err(self.wrong(format!("at most {MOST_DIMENSIONS} dimensions"), items.len()));
        }
        items.iter().map(|item| self.count(*item)).collect()
    }

    /// A storage by `("storage", type, key, device, elements)`; old files add a part of it.
    pub(super) fn push_storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let (kind, element, key, elements, view) = match *self.tuple(id)? {
            [kind, element, key, _, elements] => (kind, element, key, elements, None),
            [kind, element, key, _, elements, view] => (kind, element, key, elements, Some(view)),
            _ => return Err(self.wrong("a storage by five or six values", "another number of them")),
        };
        let Node::Global(Global::Storage(element)) = self.nodes[element] else {
            return Err(self.wrong("a storage's type", "something else"));
        };
        if &*self.text(kind)? != "storage" {
            return Err(self.wrong("`storage`", "another text"));
        }
        let key = self.text(key)?;
        let elements = self.count(elements)?;
        let whole = Storage { key: key.clone(), element, elements, start: 0, length: elements };
        let whole = self.known(Arc::new(whole))?;
        let storage = match view {
            Some(view) => self.part(&whole, view)?,
            None => whole,
        };
        self.push(Node::Storage(storage))
    }

    /// The storage of this key, which every mention must describe alike.
    fn known(&mut self, whole: Arc<Storage>) -> Result<Arc<Storage>> {
        let known = self.storages.entry(whole.key.clone()).or_insert_with(|| whole.clone()).clone();
        match *known == *whole {
            true => Ok(known),
            false => {
                Err(self.wrong(format!("storage {} to be as before", whole.key), "another size or type"))
            }
        }
    }

    /// The part `(key, start, length)` of a storage; `None` is all of it.
    fn part(&self, whole: &Arc<Storage>, view: Id) -> Result<Arc<Storage>> {
        if matches!(self.nodes[view], Node::Plain(PickleValue::None)) {
            return Ok(whole.clone());
        }
        let &[_, start, length] = self.tuple(view)? else {
            return Err(self.wrong("a part of a storage by three values", "another number of them"));
        };
        let start = self.count(start)?;
        let length = self.count(length)?;
        if start.checked_add(length).is_none_or(|end| end > whole.elements) {
            let got = format!("{length} from {start} on");
            return Err(self.wrong(format!("a part of {} elements", whole.elements), got));
        }
        Ok(Arc::new(Storage { start, length, ..(**whole).clone() }))
    }
}

/// A tensor by its storage, offset, shape and strides; what follows them (gradients, hooks) is left out.
pub(super) fn stored_tensor(machine: &Machine, arguments: &[Id]) -> Result<StoredTensor> {
    let &[storage, offset, shape, strides, ..] = arguments else {
        return Err(machine.wrong("a tensor by at least four values", arguments.len()));
    };
    let Node::Storage(storage) = &machine.nodes[storage] else {
        return Err(machine.wrong("a tensor's storage", "something else"));
    };
    let offset = machine.count(offset)?;
    let shape = machine.counts(shape)?;
    let strides = machine.counts(strides)?;
    if shape.len() != strides.len() {
        let got = format!("{} of {} dimensions", strides.len(), shape.len());
        return Err(machine.wrong("a stride for each dimension", got));
    }
    let elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if elements.is_none_or(|elements| elements > machine.most) {
        let expected = format!("a tensor of at most {} elements, as the file has bytes", machine.most);
        return Err(machine.wrong(expected, format!("{shape:?}")));
    }
    let last = shape.iter().zip(&strides).try_fold(offset, |last, (&size, stride)| {
        last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
    });
    let empty = elements == Some(0);
    if !empty && last.is_none_or(|last| last >= storage.length) {
        let expected = format!("a tensor within the {} elements of storage {}", storage.length, storage.key);
        return Err(machine.wrong(expected, format!("{shape:?} with strides {strides:?} from {offset} on")));
    }
    // an empty tensor may say that it begins anywhere
    let offset = if empty { 0 } else { storage.start + offset };
    Ok(StoredTensor { storage: storage.clone(), offset, shape, strides })
}
