//! The two containers of `torch.save`, and in the older one the places of the pickles and of each storage.
//! The newer one is in `archive`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pickle::{self, Unpickled};
use super::value::{PickleValue, Storage};
use crate::error::{Error, Result};

/// Container of `torch.save` around pickle and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Container {
    /// A zip archive, since PyTorch 1.6.
    Zip,
    /// Pickles and data one after another, before.
    Legacy,
    /// No file of PyTorch: safetensors.
    Safetensors,
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zip => "a zip archive of torch.save",
            Self::Legacy => "a legacy file of torch.save",
            Self::Safetensors => "safetensors",
        })
    }
}

/// An object, and where in the file each storage lies; where in `unpacked`, if there is such.
pub(super) struct Opened {
    pub value: PickleValue,
    pub storages: BTreeMap<Arc<str>, Range<usize>>,
    /// The files of an archive that was compressed, one after another.
    pub unpacked: Option<Vec<u8>>,
}

/// Whether a storage's data are as long as its elements.
pub(super) fn check_length(place: &str, storage: &Storage, bytes: usize) -> Result<()> {
    if storage.elements.checked_mul(storage.element.size()) != Some(bytes) {
        let expected = format!("{} elements of {} bytes", storage.elements, storage.element.size());
        return Err(Error::invalid(
            place,
            format!("storage {}", storage.key),
            expected,
            format!("{bytes} bytes"),
        ));
    }
    Ok(())
}

/// The first pickle of the legacy file.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The second pickle: the protocol of the legacy file.
const PROTOCOL: i128 = 1001;

/// Opens a legacy file: pickles of a magic number, the protocol, the system, the object and the storages' keys, then
/// for each key the number of its elements and its data.
pub(super) fn open_legacy(place: &str, bytes: &[u8]) -> Result<Opened> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle::run(place, &bytes[at..], bytes.len())?;
        at += pickle.length;
        Ok::<_, Error>(pickle)
    };
    let foreign = |error: Error| error.and_then_do("give a file that torch.save wrote, or safetensors");
    for (field, expected) in [("magic number", MAGIC), ("protocol", PROTOCOL)] {
        let value = next().map_err(foreign)?.value;
        if value != PickleValue::Int(expected) {
            return Err(foreign(Error::invalid(place, field, format!("{expected:#x}"), "another value")));
        }
    }
    let system = next()?.value;
    if system.get("little_endian") == Some(&PickleValue::Bool(false)) {
        return Err(Error::invalid(place, "byte order", "little-endian data", "big-endian")
            .and_then_do("save it again on a little-endian machine"));
    }
    let object = next()?;
    let keys = next()?.value;
    let storages = legacy_storages(place, bytes, at, &object, &keys)?;
    Ok(Opened { value: object.value, storages, unpacked: None })
}

fn legacy_storages(
    place: &str,
    bytes: &[u8],
    mut at: usize,
    object: &Unpickled,
    keys: &PickleValue,
) -> Result<BTreeMap<Arc<str>, Range<usize>>> {
    let wrong = |field: &str, expected: &str, got: String| Error::invalid(place, field, expected, got);
    let PickleValue::List(keys) = keys else {
        return Err(wrong("storages", "a list of keys", "something else".to_string()));
    };
    let mut ranges = BTreeMap::new();
    for key in keys {
        let PickleValue::Text(key) = key else {
            return Err(wrong("storages", "keys as texts", "something else".to_string()));
        };
        let field = format!("storage {key}");
        let storage = object.storages.get(key);
        let storage = storage.ok_or_else(|| wrong(&field, "a tensor that uses it", "none".to_string()))?;
        let cut = || wrong(&field, "its data", "none, the file is cut off".to_string());
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let count = u64::from_le_bytes(*count);
        if count != storage.elements as u64 {
            return Err(wrong(&field, &format!("{} elements", storage.elements), count.to_string()));
        }
        let length = storage.elements.checked_mul(storage.element.size());
        let end = length.and_then(|length| (at + 8).checked_add(length)).filter(|end| *end <= bytes.len());
        let end = end.ok_or_else(cut)?;
        ranges.insert(key.clone(), at + 8..end);
        at = end;
    }
    if let Some(key) = object.storages.keys().find(|key| !ranges.contains_key(*key)) {
        return Err(wrong(&format!("storage {key}"), "its data", "none".to_string()));
    }
    Ok(ranges)
}
