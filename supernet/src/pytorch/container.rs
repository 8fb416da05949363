//! The two containers of `torch.save`: where in a file the pickle lies, and where each storage.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Unpickled};
use super::value::{Storage, Value};
use crate::error::{Error, Result};

/// What `torch.save` writes around pickle and data.
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

/// An object, and where in the file each storage lies.
pub(super) struct Opened {
    pub value: Value,
    pub storages: BTreeMap<Arc<str>, Range<usize>>,
}

/// A zip's first bytes.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// Opens a zip archive: `<name>/data.pkl`, `<name>/data/<key>` and `<name>/byteorder`, none of them compressed.
pub(super) fn open_zip(place: &str, bytes: &[u8]) -> Result<Opened> {
    let entries = entries(place, bytes)?;
    let pickles: Vec<_> = entries.keys().filter_map(|name| name.strip_suffix("data.pkl")).collect();
    let root = match pickles.as_slice() {
        [root] if root.ends_with('/') => *root,
        _ => {
            let got = format!("{} of them among {} files", pickles.len(), entries.len());
            return Err(Error::invalid(
                place,
                "archive",
                "one data.pkl in a folder, as torch.save writes",
                got,
            )
            .and_then_do("give a file that torch.save wrote"));
        }
    };
    if let Some(order) = entries.get(&format!("{root}byteorder")) {
        let order = &bytes[order.checked(place, bytes)?];
        if order.trim_ascii() != b"little" {
            let got = String::from_utf8_lossy(&order[..order.len().min(20)]).into_owned();
            return Err(Error::invalid(place, "byteorder", "little", got)
                .and_then_do("save it again on a little-endian machine"));
        }
    }
    let pickle = &bytes[entries[&format!("{root}data.pkl")].checked(place, bytes)?];
    let Unpickled { value, storages, .. } = pickle::run(place, pickle, bytes.len())?;
    let mut ranges = BTreeMap::new();
    for (key, storage) in storages {
        let name = format!("{root}data/{key}");
        let entry =
            entries.get(&name).ok_or_else(|| Error::invalid(place, &name, "a file of data", "none"))?;
        let range = entry.checked(place, bytes)?;
        check_length(place, &storage, range.len())?;
        ranges.insert(key, range);
    }
    Ok(Opened { value, storages: ranges })
}

/// A file in an archive.
struct Entry {
    name: String,
    range: Range<usize>,
    crc32: u32,
}

impl Entry {
    /// Where its bytes lie, once they are what they were when they were written.
    fn checked(&self, place: &str, bytes: &[u8]) -> Result<Range<usize>> {
        let crc32 = crc32fast::hash(&bytes[self.range.clone()]);
        if crc32 != self.crc32 {
            let [expected, got] = [self.crc32, crc32].map(|crc| format!("{crc:08x}"));
            return Err(Error::invalid(place, format!("crc32 of {}", self.name), expected, got)
                .and_then_do("the file is damaged, or was saved without checksums; get or save it again"));
        }
        Ok(self.range.clone())
    }
}

fn entries(place: &str, bytes: &[u8]) -> Result<BTreeMap<String, Entry>> {
    let broken = |error: zip::result::ZipError| {
        Error::invalid(place, "archive", "a whole zip archive", error)
            .and_then_do("the file is cut off or no such file; get or save it again")
    };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(broken)?;
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        if file.is_dir() {
            continue;
        }
        if file.compression() != CompressionMethod::Stored || file.encrypted() {
            return Err(Error::invalid(place, name, "a file that is not compressed", "a compressed one")
                .and_then_do("give the file as torch.save wrote it"));
        }
        let start = file.data_start().and_then(|start| usize::try_from(start).ok());
        let end = start.zip(usize::try_from(file.size()).ok()).and_then(|(at, size)| at.checked_add(size));
        let range = start.zip(end).map(|(start, end)| start..end).filter(|range| range.end <= bytes.len());
        let range = range.ok_or_else(|| Error::invalid(place, &name, "data within the file", "beyond it"))?;
        let entry = Entry { name: name.clone(), range, crc32: file.crc32() };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::invalid(place, name, "each name once", "two files of it"));
        }
    }
    Ok(entries)
}

fn check_length(place: &str, storage: &Storage, bytes: usize) -> Result<()> {
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

/// What the first of the legacy file's pickles says.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// What the second says: the protocol of the legacy file.
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
        if value != Value::Int(expected) {
            return Err(foreign(Error::invalid(place, field, format!("{expected:#x}"), "another value")));
        }
    }
    let system = next()?.value;
    if system.get("little_endian") == Some(&Value::Bool(false)) {
        return Err(Error::invalid(place, "byte order", "little-endian data", "big-endian")
            .and_then_do("save it again on a little-endian machine"));
    }
    let object = next()?;
    let keys = next()?.value;
    let storages = legacy_storages(place, bytes, at, &object, &keys)?;
    Ok(Opened { value: object.value, storages })
}

fn legacy_storages(
    place: &str,
    bytes: &[u8],
    mut at: usize,
    object: &Unpickled,
    keys: &Value,
) -> Result<BTreeMap<Arc<str>, Range<usize>>> {
    let wrong = |field: &str, expected: &str, got: String| Error::invalid(place, field, expected, got);
    let Value::List(keys) = keys else {
        return Err(wrong("storages", "a list of keys", "something else".to_string()));
    };
    let mut ranges = BTreeMap::new();
    for key in keys {
        let Value::Text(key) = key else {
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
