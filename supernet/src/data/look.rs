//! Image files of a split, listed and then looked at one by one: what cannot be used is known, counted and left out
//! before training begins, and what a step sees depends on the files alone.

use std::collections::HashMap;
use std::path::PathBuf;

use rayon::prelude::*;

use super::image_file::ImageFile;
use super::images::{ImageFiles, Images};
use super::preprocess::{Decoding, Grey, Orient};
use super::sums::{ChannelSums, ImageSums};
use super::{Skipped, Split, idx};
use crate::error::{Error, Result};
use crate::file;
use crate::random::{permutation, rng_for};

/// More unusable images than this share stop the command: then it is not a few bad files.
const MOST_SKIPPED: f64 = 0.01;

/// Images that a message names.
const NAMED: usize = 3;

/// Image files of a split with their labels, by class and path; none is decoded yet.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// The folder or list that they come from, for messages.
    pub place: PathBuf,
    pub files: Vec<(PathBuf, u32)>,
}

/// What the look at one image told.
#[derive(Debug, Clone)]
struct ImageFacts {
    colour: bool,
    size: [usize; 2],
    hash: [u8; 32],
    sums: ImageSums,
}

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
    /// How many files each class has.
    pub fn counts(&self, classes: usize) -> Vec<usize> {
        counts(self.files.iter().map(|(_, label)| *label), classes)
    }

    /// Looks at every image; `skipped` gets those that cannot be used.
    pub fn look(self, classes: &[String], skipped: &mut Vec<Skipped>) -> Result<Found> {
        let looked: Vec<Result<ImageFacts>> = self.files.par_iter().map(|(path, _)| look(path)).collect();
        let total = self.files.len();
        let (mut images, mut bad) = (Vec::with_capacity(total), Vec::new());
        for ((path, label), looked) in self.files.into_iter().zip(looked) {
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
        skipped.extend(bad);
        Ok(Found { images })
    }
}

fn counts(labels: impl Iterator<Item = u32>, classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.for_each(|label| counts[label as usize] += 1);
    counts
}

fn look(path: &std::path::Path) -> Result<ImageFacts> {
    let bytes = file::read(path)?;
    let image = ImageFile::from_bytes(&path.display().to_string(), &bytes)?.oriented(Orient::Exif);
    let (colour, size) = (image.is_colour(), image.size());
    let pixels = image.into_pixels(if colour { 3 } else { 1 }, Grey::Rec601).unwrap_or_default();
    let sums = if colour { ImageSums::of_colours(&pixels) } else { ImageSums::of_greys(&pixels) };
    Ok(ImageFacts { colour, size, hash: *blake3::hash(&bytes).as_bytes(), sums })
}

impl Found {
    /// Whether any image has colours.
    pub fn are_colour(&self) -> bool {
        self.images.iter().any(|image| image.facts.colour)
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
    pub fn hold_out(self, place: &std::path::Path, classes: &[String]) -> Result<(Self, Self)> {
        let counts = counts(self.images.iter().map(|image| image.label), classes.len());
        if let Some(class) = counts.iter().position(|count| *count < 2) {
            let place = place.join(&classes[class]);
            let expected = "at least 2, to hold one out";
            return Err(Error::invalid(place.display(), "images", expected, counts[class])
                .and_then_do("add images, or give validation images of their own"));
        }
        let held_out: Vec<Vec<bool>> =
            counts.iter().enumerate().map(|(label, count)| drawn(label, *count)).collect();
        let mut at = vec![0; classes.len()];
        let (mut train, mut val) = (Vec::new(), Vec::new());
        for image in self.images {
            let label = image.label as usize;
            if held_out[label][at[label]] { &mut val } else { &mut train }.push(image);
            at[label] += 1;
        }
        Ok((Self { images: train }, Self { images: val }))
    }
}

/// Which of a class's images are held out.
fn drawn(label: usize, count: usize) -> Vec<bool> {
    let mut rng = rng_for("validation split", idx::VALIDATION_SEED, &[label as u64, count as u64]);
    let mut held_out = vec![false; count];
    let order = permutation(count, &mut rng);
    order.iter().take((count / 10).max(1)).for_each(|i| held_out[*i] = true);
    held_out
}

/// What to warn of where images of one split are, byte for byte, in another too.
pub(super) fn in_both([one, other]: [(Split, &Images); 2]) -> Option<String> {
    let ((split, Images::Files(images)), (among, Images::Files(others))) = (one, other) else { return None };
    let mut known: HashMap<&[u8; 32], &PathBuf> = HashMap::new();
    for (path, hash) in others.contents() {
        known.entry(hash).or_insert(path);
    }
    let mut shared = images.contents().filter_map(|(path, hash)| Some((path, *known.get(hash)?)));
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
    let images = if count == 1 { "1 image".to_string() } else { format!("{count} images") };
    Some(format!(
        "{images} of {split} in {among} too, which makes accuracy look better than it is: {}{more}",
        named.join(", ")
    ))
}

/// What to warn of where images cannot be used.
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
