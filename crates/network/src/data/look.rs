//! Image files of a split, listed and then read one by one: unusable ones are found, counted and left out before
//! training begins, and a step's images depend on the files alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::file;
use base::random::{permutation, rng_for};
use base::timing::{Every, Stopwatch};
use rayon::prelude::*;

use super::image_file::{ImageFile, InTurn};
use super::images::{ImageFiles, Images};
use super::index::{ImageFacts, Index, Stamp};
use super::looking::Looking;
use super::preprocess::{Decoding, Grey, Orient};
use super::sums::{ChannelSums, ImageSums};
use super::{Skipped, Split, idx};
use crate::error::{Error, Result};

/// More unusable images than this share stop the command: then it is not a few bad files.
const MOST_SKIPPED: f64 = 0.01;

/// Images that a message names.
const NAMED: usize = 3;
/// Images that are read between two looks at the clock.
const AT_ONCE: usize = 1024;
/// Time between two writes of an index, so that a stopped command need not begin anew; and the least ratio of this time to
/// a write's.
const INDEX_EVERY: Duration = Duration::from_secs(30);
const WRITES_APART: u32 = 20;

/// Image files of a split with their labels, by class and path; none is decoded yet.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    pub split: Split,
    /// The folder or list that they come from, for messages.
    pub place: PathBuf,
    pub files: Vec<(PathBuf, u32)>,
}

/// Messages for after the images were read.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Images that cannot be used.
    pub skipped: Vec<Skipped>,
    pub warnings: Vec<String>,
}

/// A file once it was read, with the stamp that it had before.
type Looked = (Option<Stamp>, Result<ImageFacts>);

#[derive(Debug, Clone)]
struct FoundImage {
    path: PathBuf,
    label: u32,
    facts: ImageFacts,
}

/// The sound images of a split, by class and path.
#[derive(Debug)]
pub(super) struct Found {
    images: Vec<FoundImage>,
}

impl Listed {
    /// Number of files of each class.
    pub fn counts(&self, classes: usize) -> Vec<usize> {
        counts(self.files.iter().map(|(_, label)| *label), classes)
    }

    /// Reads every image; `notes` gets the unusable ones, and other messages.
    pub fn look(self, classes: &[String], looking: &Looking, notes: &mut Notes) -> Result<Found> {
        let looked = self.look_at_all(looking, notes);
        let total = self.files.len();
        let mut images = Vec::with_capacity(total);
        let mut bad = Vec::new();
        for ((path, label), (_, looked)) in self.files.into_iter().zip(looked) {
            match looked {
                Ok(facts) => images.push(FoundImage { path, label, facts }),
                Err(error) => {
                    bad.push(Skipped { path: path.display().to_string(), reason: error.to_string() });
                }
            }
        }
        let wrong = |expected: &str, got: String| {
            Error::invalid(self.place.display(), "images that cannot be used", expected, got)
        };
        if bad.len() as f64 > MOST_SKIPPED * total as f64 {
            let named: Vec<&str> = bad.iter().take(NAMED).map(|bad| bad.reason.as_str()).collect();
            let got = format!("{} of {total}, such as: {}", bad.len(), named.join("; "));
            return Err(wrong("at most 1 %", got).and_then_do("repair or remove them"));
        }
        let counts = counts(images.iter().map(|image| image.label), classes.len());
        if let Some(class) = counts.iter().position(|count| *count == 0) {
            let got = format!("all images of class `{}`", classes[class]);
            return Err(wrong("some other image of each class", got)
                .and_then_do(bad.first().map_or("", |bad| &bad.reason)));
        }
        notes.skipped.extend(bad);
        Ok(Found { images })
    }

    /// Looks at those that the index does not know; keeps every so often, and in the end, what was found out.
    fn look_at_all(&self, looking: &Looking, notes: &mut Notes) -> Vec<Looked> {
        let index = Index::open(looking.index(), &self.place, &self.split.to_string());
        let done = AtomicUsize::new(0);
        let fresh = AtomicUsize::new(0);
        let mut looked: Vec<Looked> = Vec::with_capacity(self.files.len());
        let begun = Stopwatch::start();
        let mut due = Every::new(INDEX_EVERY);
        let mut kept = Ok(());
        for files in self.files.chunks(AT_ONCE) {
            looked.par_extend(files.par_iter().map(|(path, _)| {
                let stamp = if index.is_kept() { Stamp::of(path) } else { None };
                let facts = match stamp.and_then(|stamp| index.get(path, stamp)) {
                    Some(facts) => Ok(facts.clone()),
                    None => {
                        fresh.fetch_add(1, Ordering::Relaxed);
                        look(path)
                    }
                };
                looking.tell(done.fetch_add(1, Ordering::Relaxed) + 1, self.files.len());
                (stamp, facts)
            }));
            let last = looked.len() == self.files.len();
            let new = fresh.load(Ordering::Relaxed) > 0 && looking.is_worth_keeping(begun.elapsed());
            if new && kept.is_ok() && (last || due.due()) {
                let watch = Stopwatch::start();
                kept = self.keep(&index, &looked);
                due = Every::new(INDEX_EVERY.max(watch.elapsed() * WRITES_APART));
            }
        }
        if let Err(error) = kept {
            notes.warnings.push(format!("what was found out about the images is not kept: {error}"));
        }
        looked
    }

    fn keep(&self, index: &Index, looked: &[Looked]) -> Result<()> {
        let sound = self.files.iter().zip(looked).filter_map(|((path, _), (stamp, facts))| {
            Some((path.as_path(), (*stamp)?, facts.as_ref().ok()?))
        });
        index.keep(sound, looked.len() == self.files.len())
    }
}

fn counts(labels: impl Iterator<Item = u32>, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.for_each(|label| counts[label as usize] += 1);
    counts
}

fn look(path: &Path) -> Result<ImageFacts> {
    let bytes = file::read(path)?;
    let how = InTurn { orient: Orient::Exif, fraction: |_| 1 };
    let image = ImageFile::from_bytes_in_turn(&path.display().to_string(), &bytes, how)?;
    let color = image.is_color();
    let size = image.size();
    let _room = image.room();
    let pixels = image.into_pixels(if color { 3 } else { 1 }, Grey::Rec601).unwrap_or_default();
    let sums = if color { ImageSums::of_colors(&pixels) } else { ImageSums::of_greys(&pixels) };
    Ok(ImageFacts { color, size, hash: *blake3::hash(&bytes).as_bytes(), sums })
}

impl Found {
    /// Whether any image has colors.
    pub fn are_color(&self) -> bool {
        self.images.iter().any(|image| image.facts.color)
    }

    /// Sums over all pixels.
    pub fn sums(&self) -> ChannelSums {
        let mut total = ChannelSums::default();
        self.images.iter().for_each(|image| total.add(&image.facts.sums));
        total
    }

    /// The median of the shorter sides.
    pub fn size(&self) -> usize {
        let mut sides: Vec<usize> =
            self.images.iter().map(|image| image.facts.size[0].min(image.facts.size[1])).collect();
        sides.sort_unstable();
        sides[sides.len() / 2]
    }

    pub fn into_images(self, decoding: Decoding) -> Images {
        let hashes = self.images.iter().map(|image| image.facts.hash).collect();
        let files = self.images.into_iter().map(|image| (image.path, image.label)).collect();
        Images::Files(ImageFiles::new(files, hashes, decoding))
    }

    /// Validation images where there are none by themselves: a tenth of each class, drawn with a constant seed.
    pub fn hold_out(self, place: &Path, classes: &[String]) -> Result<(Self, Self)> {
        let labels: Vec<u32> = self.images.iter().map(|image| image.label).collect();
        let held_out = held_out("images", &labels, place, classes)?;
        let mut train = Vec::new();
        let mut val = Vec::new();
        for (image, held_out) in self.images.into_iter().zip(held_out) {
            if held_out { &mut val } else { &mut train }.push(image);
        }
        Ok((Self { images: train }, Self { images: val }))
    }
}

/// Marks the images (`what` in messages) held out for validation: a tenth of each class, drawn with a constant seed.
///
/// # Errors
/// If a class has too few.
pub(super) fn held_out(what: &str, labels: &[u32], place: &Path, classes: &[String]) -> Result<Vec<bool>> {
    let counts = counts(labels.iter().copied(), classes.len());
    if let Some(class) = counts.iter().position(|count| *count < 2) {
        let place = place.join(&classes[class]);
        let expected = "at least 2, to hold one out";
        return Err(Error::invalid(place.display(), what, expected, counts[class])
            .and_then_do(format!("add {what}, or give validation {what} of their own")));
    }
    let by_class: Vec<Vec<bool>> =
        counts.iter().enumerate().map(|(label, count)| drawn(label, *count)).collect();
    let mut at = vec![0; classes.len()];
    Ok(labels
        .iter()
        .map(|label: &u32| {
            let label = *label as usize;
            at[label] += 1;
            by_class[label][at[label] - 1]
        })
        .collect())
}

/// Marks the held-out images of a class.
fn drawn(label: usize, count: usize) -> Vec<bool> {
    let mut rng = rng_for("validation split", idx::VALIDATION_SEED, &[label as u64, count as u64]);
    let mut held_out = vec![false; count];
    let order = permutation(count, &mut rng);
    order.iter().take((count / 10).max(1)).for_each(|i| held_out[*i] = true);
    held_out
}

/// The warning that images of one split are, byte for byte, in another too.
pub(super) fn in_both([one, other]: [(Split, &Images); 2]) -> Option<String> {
    let ((split, Images::Files(images)), (among, Images::Files(others))) = (one, other) else { return None };
    let images = Hashed { split, files: images.contents() };
    doubled("image", images, Hashed { split: among, files: others.contents() })
}

/// Files of a split, each with the hash of its content.
pub(super) struct Hashed<F> {
    pub split: Split,
    pub files: F,
}

/// The warning that files of one split are, byte for byte, in another too; `what` names one of them.
pub(super) fn doubled<'a>(
    what: &str,
    of: Hashed<impl Iterator<Item = (&'a PathBuf, &'a [u8; 32])>>,
    among: Hashed<impl Iterator<Item = (&'a PathBuf, &'a [u8; 32])>>,
) -> Option<String> {
    let mut known: HashMap<&[u8; 32], &PathBuf> = HashMap::new();
    for (path, hash) in among.files {
        known.entry(hash).or_insert(path);
    }
    let mut shared = of.files.filter_map(|(path, hash)| Some((path, *known.get(hash)?)));
    let named: Vec<String> = shared
        .by_ref()
        .take(NAMED)
        .map(|(path, twin)| format!("{} is {}", path.display(), twin.display()))
        .collect();
    if named.is_empty() {
        return None;
    }
    let rest = shared.count();
    let more = if rest == 0 { String::new() } else { format!(", and {rest} more") };
    let count = named.len() + rest;
    let files = if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    Some(format!(
        "{files} of {} in {} too, which makes accuracy look better than it is: {}{more}",
        of.split,
        among.split,
        named.join(", ")
    ))
}

/// The warning that images cannot be used.
pub(super) fn left_out(skipped: &[Skipped]) -> Option<String> {
    let named: Vec<&str> = skipped.iter().take(NAMED).map(|skipped| skipped.reason.as_str()).collect();
    let images = match skipped.len() {
        0 => return None,
        1 => "an image is".to_string(),
        count => format!("{count} images are"),
    };
    let more = match skipped.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Some(format!("{images} left out: {}{more}", named.join("; ")))
}

/// BLAKE3 of class names, labels, the files' contents and whether they may be mirrored, in hexadecimal; where the files
/// lie is no part of it.
pub(super) fn hash(classes: &[String], flip: bool, splits: [(Split, &Found); 2]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[u8::from(flip)]);
    for class in classes {
        hasher.update(&(class.len() as u64).to_le_bytes());
        hasher.update(class.as_bytes());
    }
    for (split, found) in splits {
        hasher.update(split.to_string().as_bytes());
        hasher.update(&(found.images.len() as u64).to_le_bytes());
        for image in &found.images {
            hasher.update(&image.label.to_le_bytes());
            hasher.update(&image.facts.hash);
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests;
