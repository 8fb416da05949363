//! Named f32 tensors and one JSON document in a safetensors file: written whole or not at all.
//!
//! The document is the only metadata, under the key `once-for-all`, with its keys sorted, so that equal content
//! gives equal bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use base::file::{self, write_atomically_with};
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo, View};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::foreign;

const KEY: &str = "once-for-all";

/// Writes tensors and their document; the bytes depend on the arguments alone. One tensor at a time is copied.
///
/// # Errors
/// If a tensor is not f32, the document is not JSON, or the file cannot be written; an old file is then still there.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>, document: &impl Serialize) -> Result<()> {
    let front = front(path, tensors, document)?;
    Ok(write_atomically_with(path, |file: &mut std::fs::File| {
        file.write_all(&front)?;
        tensors.values().try_for_each(|tensor| file.write_all(&tensor.data()))
    })?)
}

/// The bytes that [`write()`] writes.
///
/// # Errors
/// If a tensor is not f32 or the document is not JSON.
pub fn to_bytes(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    document: &impl Serialize,
) -> Result<Vec<u8>> {
    let mut bytes = front(path, tensors, document)?;
    tensors.values().for_each(|tensor| bytes.extend_from_slice(&tensor.data()));
    Ok(bytes)
}

/// The bytes before the tensors' values: the length of the header, and the header, to a multiple of 8 bytes.
fn front(path: &Path, tensors: &BTreeMap<String, Tensor>, document: &impl Serialize) -> Result<Vec<u8>> {
    let wrong = |error: String| Error::invalid(path.display(), "tensors", "writable tensors", error);
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (name, tensor) in tensors {
        let dtype = Tensor::dtype(tensor);
        if dtype != DType::F32 {
            return Err(Error::invalid(path.display(), name, "f32 values", dtype.as_str()));
        }
        let start = end;
        end += tensor.data_len();
        let shape = tensor.dims().to_vec();
        infos.push((name.clone(), TensorInfo { dtype: Dtype::F32, shape, data_offsets: (start, end) }));
    }
    let document = base::document::sorted_json(document).map_err(|error| wrong(error.to_string()))?;
    let metadata = HashMap::from([(KEY.to_string(), document)]);
    let metadata = Metadata::new(Some(metadata), infos).map_err(|error| wrong(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| wrong(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok([(header.len() as u64).to_le_bytes().as_slice(), &header].concat())
}

/// Content of a file, as [`read`] returns it.
pub struct TensorFile {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// The document's JSON text.
    pub document: String,
    /// blake3 of the whole file, in hexadecimal.
    pub hash: String,
}

/// Reads a file that [`write()`] wrote.
///
/// # Errors
/// If the file is not there, truncated, no safetensors, holds other types than f32 or numbers that are not finite,
/// or its document is missing.
pub fn read(path: &Path) -> Result<TensorFile> {
    let bytes = file::read(path)?;
    from_bytes(&path.display().to_string(), &bytes)
}

/// Reads a file's bytes; `place` names them in messages.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<TensorFile> {
    let wrong = |field: &str, expected: &str, got: String| Error::invalid(place, field, expected, got);
    let broken = |error: safetensors::SafeTensorError| {
        wrong("content", "a whole safetensors file", error.to_string())
            .and_then_do("the file is cut off or no such file; write it again")
    };
    foreign::refuse(place, "a whole safetensors file", bytes)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(broken)?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let document = text.ok_or_else(|| wrong("metadata", "a key `once-for-all`", "none".to_string()))?.clone();
    let mut tensors = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(bytes).map_err(broken)?.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(wrong(name, "f32 values", format!("{:?}", view.dtype())));
        }
        let chunks = view.data().chunks_exact(4);
        let values: Vec<f32> = chunks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(wrong(name, "finite values", value.to_string()));
        }
        tensors.insert(name.to_string(), Tensor::from_vec(values, view.shape(), &Device::Cpu)?);
    }
    Ok(TensorFile { tensors, document, hash: blake3::hash(bytes).to_hex().to_string() })
}

/// blake3 of a file, in hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub fn hash(path: &Path) -> Result<String> {
    let bytes = file::read(path)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BTreeMap<String, Tensor> {
        let tensor = Tensor::new(&[[1.0f32, -2.5], [0.0, 3.0]], &Device::Cpu).expect("a tensor");
        BTreeMap::from([("b".to_string(), tensor.clone()), ("a".to_string(), tensor.t().expect("2-d"))])
    }

    #[test]
    fn round_trip_with_equal_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        let document = BTreeMap::from([("z", 1), ("a", 2)]);
        write(&path, &sample(), &document).expect("written");
        let file = read(&path).expect("read");
        assert_eq!(file.document, "{\"a\":2,\"z\":1}");
        assert_eq!(file.tensors["a"].to_vec2::<f32>().expect("f32"), [[1.0, 0.0], [-2.5, 3.0]]);
        let first = std::fs::read(&path).expect("bytes");
        let metadata = HashMap::from([(KEY.to_string(), file.document)]);
        let theirs = safetensors::serialize(&sample(), Some(metadata)).expect("bytes");
        assert_eq!(first, theirs, "as the format's own crate writes it");
        assert_eq!(first, to_bytes(&path, &sample(), &document).expect("bytes"));
        write(&path, &sample(), &document).expect("written again");
        assert_eq!(std::fs::read(&path).expect("bytes"), first);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left beside");
    }

    #[test]
    fn broken_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        write(&path, &sample(), &1).expect("written");
        let bytes = std::fs::read(&path).expect("bytes");
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        let table: [(&[u8], &str); 4] = [
            (&bytes[..bytes.len() - 1], "whole"),
            (&[], "whole"),
            (b"not a tensor file at all", "whole"),
            (&huge, "whole"),
        ];
        for (content, part) in table {
            std::fs::write(&path, content).expect("written");
            let error = read(&path).err().expect("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
        let missing = read(&folder.path().join("none")).err().expect("refused").to_string();
        assert!(missing.contains("cannot read"), "{missing}");
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_by_name() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let spoiled = Tensor::new(&[1.0, value], &Device::Cpu).expect("a tensor");
            let bytes =
                to_bytes(Path::new("x"), &BTreeMap::from([("w".to_string(), spoiled)]), &1).expect("bytes");
            let error = from_bytes("x", &bytes).err().expect("refused").to_string();
            assert!(error.starts_with("x: w: expected finite values, got "), "{error}");
        }
    }

    #[test]
    fn an_unwritable_folder_keeps_the_old_file() {
        let path = Path::new("/nonexistent-folder/x.safetensors");
        assert!(write(path, &sample(), &1).is_err());
    }
}
