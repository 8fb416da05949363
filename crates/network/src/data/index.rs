//! An index of image files, kept from one command to the next: a data set that was read once opens in the time that it
//! takes to list its files.
//!
//! A file counts as known while its size and its times are those of before. Knows nothing of labels or splits.

use std::path::{Path, PathBuf};

use base::file::write_atomically;
use base::timing::{nanoseconds, unix_nanoseconds};
use serde::{Deserialize, Serialize};

use super::sums::ImageSums;
use crate::error::Result;

/// First bytes of an index. The number rises with every change to its form or to the statistics of an image.
const HEAD: &[u8] = b"once-for-all images 1\n";

/// Bytes of a BLAKE3 hash.
const HASH: usize = 32;

/// File systems keep times in steps of up to two seconds (FAT): a file that changed so shortly before it was looked at may
/// change once more and look the same.
const COARSEST_TIME: i64 = 2_000_000_000;

/// The facts of an image that reading it gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageFacts {
    pub color: bool,
    /// Height and width, the right way up.
    pub size: [usize; 2],
    /// BLAKE3 of the file.
    pub hash: [u8; 32],
    pub sums: ImageSums,
}

/// Signs that a file is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    bytes: u64,
    /// Nanoseconds since 1970 when its content was written.
    modified: i64,
    /// Nanoseconds since 1970 when anything about it was changed: a copy does not preserve this time; 0 where the system has
    /// none.
    changed: i64,
}

impl Stamp {
    /// The stamp of the file at a path, if it can be read.
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        let modified = nanoseconds(found.modified().ok()?)?;
        Some(Self { bytes: found.len(), modified, changed: changed(&found) })
    }

    /// Whether whoever changes the file from `now` on, in nanoseconds since 1970, leaves another stamp.
    fn is_settled(&self, now: i64) -> bool {
        let last = if self.changed == 0 { self.modified } else { self.changed };
        last < now - COARSEST_TIME
    }
}

#[cfg(unix)]
fn changed(found: &std::fs::Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    found.ctime().saturating_mul(1_000_000_000).saturating_add(found.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &std::fs::Metadata) -> i64 {
    0
}

/// One file: its path below the place of its data set, and its facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry<Name, Facts> {
    name: Name,
    stamp: Stamp,
    facts: Facts,
}

/// Known facts of the image files of one place.
#[derive(Debug)]
pub(super) struct Index {
    /// Path of the index file, if there is one.
    path: Option<PathBuf>,
    place: PathBuf,
    /// By name.
    known: Vec<Entry<Box<[u8]>, ImageFacts>>,
    /// Nanoseconds since 1970.
    begun: i64,
}

impl Index {
    /// The index in `folder` of the images of a place; `kind` distinguishes indexes of the same path. Empty where there is
    /// no such folder, or no usable index in it.
    pub fn open(folder: Option<&Path>, place: &Path, kind: &str) -> Self {
        let real = std::fs::canonicalize(place).unwrap_or_else(|_| place.to_path_buf());
        let mut hasher = blake3::Hasher::new();
        hasher.update(kind.as_bytes()).update(b":").update(real.as_os_str().as_encoded_bytes());
        let name = hasher.finalize().to_hex();
        let path = folder.map(|folder| folder.join(format!("{}.images", &name[..32])));
        let bytes = path.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let known = entries(&bytes).unwrap_or_default();
        Self { path, place: place.to_path_buf(), known, begun: unix_nanoseconds() }
    }

    /// Whether there is an index file.
    pub fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    /// The facts of the file at a path, if it has this stamp.
    pub fn get(&self, path: &Path, stamp: Stamp) -> Option<&ImageFacts> {
        let name = self.name(path);
        let at = self.known.binary_search_by(|entry| entry.name.as_ref().cmp(name)).ok()?;
        let entry = &self.known[at];
        (entry.stamp == stamp).then_some(&entry.facts)
    }

    /// Writes the facts of these files in place of the old index; where they are not the whole place yet, the entries of
    /// other files stay.
    ///
    /// # Errors
    /// If the folder cannot be made, or written into.
    pub fn keep<'a>(
        &'a self,
        files: impl Iterator<Item = (&'a Path, Stamp, &'a ImageFacts)>,
        whole: bool,
    ) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let settled = files.filter(|(_, stamp, _)| stamp.is_settled(self.begun));
        let mut entries: Vec<_> =
            settled.map(|(path, stamp, facts)| Entry { name: self.name(path), stamp, facts }).collect();
        entries.sort_unstable_by_key(|entry| entry.name);
        if !whole {
            let mut others = Vec::new();
            for known in &self.known {
                if entries.binary_search_by_key(&&*known.name, |entry| entry.name).is_err() {
                    others.push(known);
                }
            }
            entries.extend(others.into_iter().map(|entry| Entry {
                name: &*entry.name,
                stamp: entry.stamp,
                facts: &entry.facts,
            }));
            entries.sort_unstable_by_key(|entry| entry.name);
        }
        let body = postcard::to_stdvec(&entries).expect("plain data");
        let hash = blake3::hash(&body);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(crate::error::Error::io("create the folder", folder))?;
        }
        Ok(write_atomically(path, &[HEAD, hash.as_bytes(), &body].concat())?)
    }

    /// Name of a file in the index: its path from the place on, so that a place may be named in several ways.
    fn name<'a>(&self, path: &'a Path) -> &'a [u8] {
        let below = path.strip_prefix(&self.place);
        below
            .ok()
            .or_else(|| path.strip_prefix(self.place.parent()?).ok())
            .unwrap_or(path)
            .as_os_str()
            .as_encoded_bytes()
    }
}

/// The entries of an index's bytes; `None` where they are of another version, torn or damaged.
fn entries(bytes: &[u8]) -> Option<Vec<Entry<Box<[u8]>, ImageFacts>>> {
    let (hash, body) = bytes.strip_prefix(HEAD)?.split_at_checked(HASH)?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    postcard::from_bytes(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pixel: u8) -> ImageFacts {
        ImageFacts { color: true, size: [1, 2], hash: [pixel; 32], sums: ImageSums::of_greys(&[pixel; 2]) }
    }

    /// A folder with files that were written an hour ago.
    fn settled(names: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = names.iter().map(|name| folder.path().join("images").join(name)).collect();
        for path in &paths {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "content").expect("written");
        }
        (folder, paths)
    }

    /// An index that was opened an hour from now, when all files have settled.
    fn later(folder: &Path, place: &Path) -> Index {
        let mut index = Index::open(Some(folder), place, "train");
        index.begun += 3600 * 1_000_000_000;
        index
    }

    #[test]
    fn what_was_kept_is_known_while_the_file_stays() {
        let (folder, paths) = settled(&["b/1.png", "a/2.png", "a/1.png"]);
        let place = folder.path().join("images");
        let index = later(folder.path(), &place);
        let stamps: Vec<Stamp> = paths.iter().map(|path| Stamp::of(path).expect("there")).collect();
        assert_eq!(index.get(&paths[0], stamps[0]), None);
        let all: Vec<ImageFacts> = (0..3).map(facts).collect();
        let files = paths.iter().zip(&stamps).zip(&all);
        index.keep(files.map(|((path, stamp), facts)| (path.as_path(), *stamp, facts)), true).expect("kept");
        // the same folder by another name
        let other = place.join("..").join("images");
        let index = Index::open(Some(folder.path()), &other, "train");
        for (name, (stamp, facts)) in ["b/1.png", "a/2.png", "a/1.png"].iter().zip(stamps.iter().zip(&all)) {
            assert_eq!(index.get(&other.join(name), *stamp), Some(facts));
            let grown = Stamp { bytes: stamp.bytes + 1, ..*stamp };
            assert_eq!(index.get(&other.join(name), grown), None);
            assert_eq!(index.get(&other.join(name), Stamp { modified: 0, ..*stamp }), None);
        }
        assert_eq!(Index::open(Some(folder.path()), &place, "val").known.len(), 0, "another split's");
        assert_eq!(Index::open(None, &place, "train").known.len(), 0);
    }

    #[test]
    fn what_was_kept_of_others_stays_until_all_is_known() {
        let (folder, paths) = settled(&["1.png", "2.png"]);
        let place = folder.path().join("images");
        let stamps: Vec<Stamp> = paths.iter().map(|path| Stamp::of(path).expect("there")).collect();
        let kept = |pixel: u8| {
            let index = later(folder.path(), &place);
            [0, 1].map(|file| index.get(&paths[file], stamps[file]) == Some(&facts(pixel)))
        };
        let keep = |file: usize, pixel: u8, whole: bool| {
            let index = later(folder.path(), &place);
            let known = facts(pixel);
            index.keep([(paths[file].as_path(), stamps[file], &known)].into_iter(), whole).expect("kept");
        };
        keep(0, 1, false);
        keep(1, 1, false);
        assert_eq!(kept(1), [true, true]);
        keep(0, 2, false);
        assert_eq!((kept(1), kept(2)), ([false, true], [true, false]));
        keep(0, 2, true);
        assert_eq!((kept(1), kept(2)), ([false, false], [true, false]));
    }

    #[test]
    fn a_file_that_just_changed_is_not_kept() {
        let (folder, paths) = settled(&["1.png"]);
        let place = folder.path().join("images");
        let index = Index::open(Some(folder.path()), &place, "train");
        let stamp = Stamp::of(&paths[0]).expect("there");
        index.keep([(paths[0].as_path(), stamp, &facts(1))].into_iter(), true).expect("kept");
        assert_eq!(later(folder.path(), &place).known.len(), 0);
    }

    #[test]
    fn a_damaged_index_is_none() {
        let (folder, paths) = settled(&["1.png"]);
        let index = later(folder.path(), &folder.path().join("images"));
        let stamp = Stamp::of(&paths[0]).expect("there");
        index.keep([(paths[0].as_path(), stamp, &facts(1))].into_iter(), true).expect("kept");
        let path = index.path.expect("kept");
        let bytes = std::fs::read(&path).expect("an index");
        assert_eq!(entries(&bytes).expect("whole").len(), 1);
        for torn in 0..bytes.len() {
            assert!(entries(&bytes[..torn]).is_none(), "{torn}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(entries(&damaged).is_none(), "{at}");
        }
    }
}
