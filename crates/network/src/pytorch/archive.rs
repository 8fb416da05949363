//! The zip archives of `torch.save`: `<name>/data.pkl`, `<name>/data/<key>` and `<name>/byteorder`.
//!
//! PyTorch writes its files uncompressed; people zip them again. It can leave checksums out, which are then all 0.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::ops::Range;

use flate2::read::DeflateDecoder;
use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use super::container::{Opened, check_length};
use super::pickle::{self, Unpickled};
use crate::error::{Error, Result};

/// A zip's first bytes.
pub(super) const ZIP: &[u8] = b"PK\x03\x04";

/// Greatest ratio of an archive's unpacked size to its file: weights hardly shrink, and a file that is nothing but
/// zeros could become a thousand times larger.
const MOST_GROWTH: usize = 32;

/// Opens an archive.
pub(super) fn open_zip(place: &str, bytes: &[u8]) -> Result<Opened> {
    let mut entries = entries(place, bytes)?;
    let unpacked = match entries.values().any(|entry| entry.method != CompressionMethod::Stored) {
        true => Some(unpack(place, bytes, &mut entries)?),
        false => None,
    };
    let bytes = unpacked.as_deref().unwrap_or(bytes);
    let root = root(place, &entries)?;
    check_byte_order(place, bytes, entries.get(&format!("{root}byteorder")))?;
    let pickle = &bytes[entries[&format!("{root}data.pkl")].checked(place, bytes)?];
    let Unpickled { value, storages, .. } = pickle::run(place, pickle, bytes.len())?;
    let mut ranges = BTreeMap::new();
    let mut left = bytes.len();
    for (key, storage) in storages {
        let name = format!("{root}data/{key}");
        let entry =
            entries.get(&name).ok_or_else(|| Error::invalid(place, &name, "a file of data", "none"))?;
        // files that lie over one another could be read for ever
        left = left.checked_sub(entry.range.len()).ok_or_else(|| {
            Error::invalid(place, &name, "data of its own", "data that other files of the archive have too")
        })?;
        let range = entry.checked(place, bytes)?;
        check_length(place, &storage, range.len())?;
        ranges.insert(key, range);
    }
    Ok(Opened { value, storages: ranges, unpacked })
}

/// The folder that holds all, with a slash at its end.
fn root<'e>(place: &str, entries: &'e BTreeMap<String, Entry>) -> Result<&'e str> {
    let named = |end: &str| entries.keys().filter_map(|name| name.strip_suffix(end)).collect::<Vec<_>>();
    let pickles = named("data.pkl");
    let wrong =
        |got: String| Error::invalid(place, "archive", "one data.pkl in a folder, as torch.save writes", got);
    match pickles.as_slice() {
        [root] if entries.contains_key(&format!("{root}constants.pkl")) => Err(wrong(
            "a TorchScript program, as torch.jit.save writes".to_string(),
        )
        .and_then_do("save its tensors by themselves: torch.save(torch.jit.load(FILE).state_dict(), NEW)")),
        [root] if root.ends_with('/') => Ok(root),
        [] if !named(".npy").is_empty() => Err(wrong("arrays of numpy.savez".to_string()).and_then_do(
            "save them as safetensors: safetensors.numpy.save_file(dict(numpy.load(FILE)), NEW)",
        )),
        _ => Err(wrong(format!("{} of them among {} files", pickles.len(), entries.len()))
            .and_then_do("give a file that torch.save wrote")),
    }
}

fn check_byte_order(place: &str, bytes: &[u8], entry: Option<&Entry>) -> Result<()> {
    let Some(entry) = entry else { return Ok(()) };
    let order = &bytes[entry.checked(place, bytes)?];
    if order.trim_ascii() == b"little" {
        return Ok(());
    }
    let got = String::from_utf8_lossy(&order[..order.len().min(20)]).into_owned();
    Err(Error::invalid(place, "byteorder", "little", got)
        .and_then_do("save it again on a little-endian machine"))
}

/// A file in an archive.
struct Entry {
    name: String,
    range: Range<usize>,
    /// Bytes of it when it is not compressed.
    size: usize,
    method: CompressionMethod,
    /// `None` where the archive has no checksums.
    crc32: Option<u32>,
}

impl Entry {
    /// The place of the entry's bytes, once their checksum is checked.
    fn checked(&self, place: &str, bytes: &[u8]) -> Result<Range<usize>> {
        let crc32 = crc32fast::hash(&bytes[self.range.clone()]);
        if let Some(expected) = self.crc32.filter(|expected| *expected != crc32) {
            let [expected, got] = [expected, crc32].map(|crc| format!("{crc:08x}"));
            return Err(Error::invalid(place, format!("crc32 of {}", self.name), expected, got)
                .and_then_do("the file is damaged; get or save it again"));
        }
        Ok(self.range.clone())
    }
}

fn entries(place: &str, bytes: &[u8]) -> Result<BTreeMap<String, Entry>> {
    let broken = |error: zip::result::ZipError| {
        Error::invalid(place, "archive", "a whole zip archive", error)
            .and_then_do("the file is cut off or no such file; get or save it again")
    };
    // A file begins with its archive. The crate's own search goes by the directory's length up to the end record, but
    // PyTorch writes 76 bytes of zip64 between them; where the directory's first entry is as long (its folder's name has
    // 21 letters), the second one was taken for the first.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(bytes)).map_err(broken)?;
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(broken)?;
        let name = file.name().map_err(broken)?.into_owned();
        if file.is_dir() {
            continue;
        }
        let method = file.compression();
        if file.encrypted() || ![CompressionMethod::Stored, CompressionMethod::DEFLATE].contains(&method) {
            let got = if file.encrypted() { "an encrypted one".to_string() } else { format!("{method:?}") };
            return Err(Error::invalid(place, name, "a file as it is, or deflated", got)
                .and_then_do("unpack the archive, and give the file as torch.save wrote it"));
        }
        let start = file.data_start().and_then(|start| usize::try_from(start).ok());
        let length = usize::try_from(file.compressed_size()).ok();
        let end = start.zip(length).and_then(|(at, length)| at.checked_add(length));
        let range = start.zip(end).map(|(start, end)| start..end).filter(|range| range.end <= bytes.len());
        let size = usize::try_from(file.size()).ok();
        let size = size.filter(|size| method != CompressionMethod::Stored || Some(*size) == length);
        let (range, size) = range
            .zip(size)
            .ok_or_else(|| Error::invalid(place, &name, "data within the file", "beyond it"))?;
        let entry = Entry { name: name.clone(), range, size, method, crc32: Some(file.crc32()) };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::invalid(place, name, "each name once", "two files of it"));
        }
    }
    if entries.values().all(|entry| entry.crc32 == Some(0)) {
        entries.values_mut().for_each(|entry| entry.crc32 = None);
    }
    Ok(entries)
}

/// All files of an archive one after another, where the entries say from now on.
fn unpack(place: &str, bytes: &[u8], entries: &mut BTreeMap<String, Entry>) -> Result<Vec<u8>> {
    let total = entries.values().try_fold(0usize, |total, entry| total.checked_add(entry.size));
    let most = bytes.len().saturating_mul(MOST_GROWTH);
    let Some(total) = total.filter(|total| *total <= most) else {
        let expected = format!("files of at most {MOST_GROWTH} times the archive's {} bytes", bytes.len());
        return Err(Error::invalid(place, "archive", expected, "more")
            .and_then_do("unpack the archive, and give the file as torch.save wrote it"));
    };
    let mut unpacked = Vec::with_capacity(total);
    for entry in entries.values_mut() {
        let start = unpacked.len();
        let packed = &bytes[entry.range.clone()];
        match entry.method {
            CompressionMethod::Stored => unpacked.extend_from_slice(packed),
            _ => inflate(place, entry, packed, &mut unpacked)?,
        }
        entry.range = start..unpacked.len();
    }
    Ok(unpacked)
}

fn inflate(place: &str, entry: &Entry, packed: &[u8], to: &mut Vec<u8>) -> Result<()> {
    let broken = |got: String| {
        Error::invalid(place, &entry.name, format!("{} bytes when unpacked", entry.size), got)
            .and_then_do("the file is damaged; get or save it again")
    };
    let start = to.len();
    // one byte more would be too many
    let mut decoder = DeflateDecoder::new(packed).take(entry.size as u64 + 1);
    decoder.read_to_end(to).map_err(|error| broken(error.to_string()))?;
    match to.len() - start {
        length if length == entry.size => Ok(()),
        length if length > entry.size => Err(broken("more".to_string())),
        length => Err(broken(format!("{length} bytes"))),
    }
}
