//! Content of a PyTorch file: plain values, and tensors as they are stored.

use std::sync::Arc;

use half::{bf16, f16};

/// A value of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum PickleValue {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A float.
    Float(f64),
    /// A text, the name of a device, or of a type of elements such as `torch.float16`.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Vec<PickleValue>),
    /// A set, in the order of the file.
    Set(Vec<PickleValue>),
    /// A tuple, the size of a tensor, or the two parts of a complex number.
    Tuple(Vec<PickleValue>),
    /// A dictionary, in its order; of equal keys the last counts.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// A tensor or a parameter.
    Tensor(Arc<StoredTensor>),
}

impl PickleValue {
    /// The entry of a dictionary under this text.
    pub fn get(&self, key: &str) -> Option<&PickleValue> {
        let Self::Dict(entries) = self else { return None };
        entries
            .iter()
            .rev()
            .find(
                |entry: &&(PickleValue, PickleValue)| matches!(&entry.0, Self::Text(text) if **text == *key),
            )
            .map(|(_, value)| value)
    }
}

/// Types of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit float.
    F16,
    /// 16-bit float with the range of an f32.
    Bf16,
    /// Signed 64-bit integer.
    I64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 16-bit integer.
    I16,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Truth value, a byte.
    Bool,
}

/// PyTorch's names of typed storages.
const STORAGES: [(&str, ElementType); 10] = [
    ("FloatStorage", ElementType::F32),
    ("DoubleStorage", ElementType::F64),
    ("HalfStorage", ElementType::F16),
    ("BFloat16Storage", ElementType::Bf16),
    ("LongStorage", ElementType::I64),
    ("IntStorage", ElementType::I32),
    ("ShortStorage", ElementType::I16),
    ("CharStorage", ElementType::I8),
    ("ByteStorage", ElementType::U8),
    ("BoolStorage", ElementType::Bool),
];

impl ElementType {
    /// The type of the elements of a storage that PyTorch calls so.
    pub(super) fn of_storage(name: &str) -> Option<Self> {
        STORAGES.iter().find(|(known, _)| *known == name).map(|(_, element)| *element)
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Little-endian elements as f32, rounded to nearest where they do not fit.
    pub(super) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => each(bytes, f32::from_le_bytes),
            Self::F64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::I64 => each(bytes, |b| i64::from_le_bytes(b) as f32),
            Self::I32 => each(bytes, |b| i32::from_le_bytes(b) as f32),
            Self::I16 => each(bytes, |b| f32::from(i16::from_le_bytes(b))),
            Self::I8 => each(bytes, |b| f32::from(i8::from_le_bytes(b))),
            Self::U8 => each(bytes, |[byte]: [u8; 1]| f32::from(byte)),
            Self::Bool => each(bytes, |[byte]: [u8; 1]| f32::from(u8::from(byte != 0))),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| value(*chunk)).collect()
}

/// A part of a file that several tensors may look into.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// Name in the file.
    pub(super) key: Arc<str>,
    pub(super) element: ElementType,
    /// Elements of all of it.
    pub(super) elements: usize,
    /// Offset in it of the part that tensors refer to; 0 but for views in old files.
    pub(super) start: usize,
    /// Elements of that part.
    pub(super) length: usize,
}

/// A tensor as it lies in a file: a view of a storage that was checked to lie within it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    pub(super) storage: Arc<Storage>,
    /// Where its first element is, in elements of the whole storage.
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next, in each dimension.
    pub(super) strides: Vec<usize>,
}

impl StoredTensor {
    /// The sizes of its dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of its elements.
    pub fn element(&self) -> ElementType {
        self.storage.element
    }

    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values, of the bytes of the whole storage.
    pub(super) fn decode(&self, storage: &[u8]) -> Vec<f32> {
        let size = self.element().size();
        let elements = self.elements();
        if elements == 0 {
            return Vec::new();
        }
        if self.is_contiguous() {
            return self.element().decode(&storage[self.offset * size..(self.offset + elements) * size]);
        }
        let mut gathered = Vec::with_capacity(elements * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..elements {
            let along = index.iter().zip(&self.strides).map(|(at, stride)| at * stride);
            let at = (self.offset + along.sum::<usize>()) * size;
            gathered.extend_from_slice(&storage[at..at + size]);
            next(&mut index, &self.shape);
        }
        self.element().decode(&gathered)
    }

    fn is_contiguous(&self) -> bool {
        let mut dense = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
            let follows = size == 1 || stride == dense;
            dense *= size;
            follows
        })
    }
}

/// The index that follows in row-major order.
fn next(index: &mut [usize], shape: &[usize]) {
    for (at, size) in index.iter_mut().zip(shape).rev() {
        *at += 1;
        if *at < *size {
            return;
        }
        *at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_becomes_f32() {
        let table: [(ElementType, &[u8], f32); 10] = [
            (ElementType::F32, &1.5f32.to_le_bytes(), 1.5),
            (ElementType::F64, &(-2.25f64).to_le_bytes(), -2.25),
            (ElementType::F16, &[0x00, 0x3e], 1.5),
            (ElementType::Bf16, &[0xc0, 0xbf], -1.5),
            (ElementType::I64, &(-7i64).to_le_bytes(), -7.0),
            (ElementType::I32, &9i32.to_le_bytes(), 9.0),
            (ElementType::I16, &(-300i16).to_le_bytes(), -300.0),
            (ElementType::I8, &[0xff], -1.0),
            (ElementType::U8, &[0xff], 255.0),
            (ElementType::Bool, &[7], 1.0),
        ];
        for (element, bytes, expected) in table {
            assert_eq!(element.decode(bytes), [expected], "{element:?}");
            assert_eq!(element.size(), bytes.len(), "{element:?}");
        }
    }

    #[test]
    fn strides_are_followed() {
        let bytes: Vec<u8> = (0..6).collect();
        let storage = Storage { key: "0".into(), element: ElementType::U8, elements: 6, start: 0, length: 6 };
        let storage = Arc::new(storage);
        let read = |shape: &[usize], strides: &[usize], offset| {
            let shape = shape.to_vec();
            let strides = strides.to_vec();
            StoredTensor { storage: storage.clone(), offset, shape, strides }.decode(&bytes)
        };
        assert_eq!(read(&[2, 3], &[3, 1], 0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(read(&[3, 2], &[1, 3], 0), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(read(&[2, 2], &[0, 1], 4), [4.0, 5.0, 4.0, 5.0]);
        assert_eq!(read(&[], &[], 5), [5.0]);
        assert_eq!(read(&[2, 1], &[1, 9], 2), [2.0, 3.0]);
        assert!(read(&[0, 4], &[4, 1], 0).is_empty());
    }
}
