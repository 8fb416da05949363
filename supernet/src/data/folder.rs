//! Folders of images, one folder a class: `train/<class>/*.{png,jpg,jpeg}`, optional `val/` and `test/` alike.
//!
//! Every image is decoded once when the data set is opened: what cannot be used is known, counted and left out before
//! training begins, and what a step sees depends on the files alone. An optional `dataset.toml` in the folder says
//! whether images may be mirrored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::about::About;
use super::image_file::ImageFile;
use super::images::{ImageFiles, Images};
use super::preprocess::{Decoding, Grey, Orient, Preprocess};
use super::sums::{ChannelSums, ImageSums};
use super::{Dataset, Facts, Origin, Skipped, Split, Splits, idx};
use crate::error::{Error, Result};
use crate::file;
use crate::random::{permutation, rng_for};

/// More unusable images than this share stop the command: then it is not a few bad files.
const MOST_SKIPPED: f64 = 0.01;

/// Folders in a class's folder are looked into this deep.
const DEEPEST: usize = 8;

/// Unusable images that a message names.
const NAMED: usize = 3;

/// The data set in `folder`. Natural images may be mirrored where nothing else is said.
pub(super) fn open(folder: &Path, about: impl Fn(&str) -> Result<About>) -> Result<Dataset> {
    std::fs::read_dir(folder).map_err(Error::io("open the folder", folder))?;
    let about = about(&folder.to_string_lossy())?;
    if let (Some(_), Some(path)) = (&about.classes, &about.path) {
        return Err(Error::invalid(path.display(), "classes", "none: the folders' names are theirs", "some")
            .and_then_do("rename the folders, or leave it out"));
    }
    let flip = about.flip.unwrap_or(true);
    let train = folder.join("train");
    let classes = class_names(&train)?;
    let mut skipped = Vec::new();
    let found = scan(&train, &classes, &mut skipped)?;
    let channels = if found.images.iter().any(|image| image.facts.colour) { 3 } else { 1 };
    let ((train, val), val_from) = match folder.join("val") {
        val if val.exists() => ((found, scan(&val, &classes, &mut skipped)?), "from val/"),
        _ => (hold_out(&train, &classes, found)?, "a fixed tenth of each class of train/"),
    };
    let sums = train.sums();
    let normalisation = sums.normalisation(channels, Grey::Rec601);
    let normalisation =
        normalisation.ok_or_else(|| Error::invalid(folder.display(), "images", "some", "none"))?;
    let preprocess = Preprocess::photographs(normalisation);
    let facts = Facts {
        sums: Some(sums),
        size: train.size(),
        hash: hash(&classes, flip, [(Split::Train, &train), (Split::Val, &val)]),
    };
    let name = about.name.unwrap_or_else(|| idx::folder_name(folder));
    let source = about.source.unwrap_or_else(|| format!("image files in a folder {name}"));
    let decoding = preprocess.decoding();
    let splits = Splits { train: train.into_images(decoding), val: val.into_images(decoding), test: None };
    let late = folder.join("test").is_dir().then(|| folder.join("test"));
    let origin = Origin { name, source, flip };
    Dataset::assemble(origin, classes, splits, facts, preprocess)
        .map(|set| set.with_late_test(late).with_skipped(skipped).with_val_from(val_from))
}

/// The test images, which are looked at only when they are asked for.
pub(super) fn open_test(
    folder: &Path,
    classes: &[String],
    decoding: Decoding,
) -> Result<(Images, Vec<Skipped>)> {
    let mut skipped = Vec::new();
    let images = scan(folder, classes, &mut skipped)?.into_images(decoding);
    Ok((images, skipped))
}

/// The folders in `folder`, by name; hidden ones are none of ours.
fn class_names(folder: &Path) -> Result<Vec<String>> {
    let layout = "give a folder with train/<class>/*.png or *.jpg, and optionally val/ and test/ alike";
    let read = std::fs::read_dir(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::invalid(folder.display(), "folder", "training images", "no such folder")
                .and_then_do(layout)
        }
        _ => Error::io("open the folder", folder)(error),
    })?;
    let mut names = Vec::new();
    for entry in read {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name();
        if !entry.path().is_dir() || name.to_string_lossy().starts_with('.') {
            continue;
        }
        names.push(name.into_string().map_err(|name| {
            Error::invalid(folder.display(), "name of a class", "UTF-8", name.display())
                .and_then_do("rename it")
        })?);
    }
    names.sort();
    if names.is_empty() {
        return Err(
            Error::invalid(folder.display(), "classes", "a folder for each", "none").and_then_do(layout)
        );
    }
    Ok(names)
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
struct Found {
    images: Vec<FoundImage>,
}

/// Looks at every image of a split; `skipped` gets those that cannot be used.
fn scan(folder: &Path, classes: &[String], skipped: &mut Vec<Skipped>) -> Result<Found> {
    check_classes(folder, classes)?;
    let mut files = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let at = folder.join(class);
        let (mut images, mut others) = (Vec::new(), BTreeMap::new());
        list(&at, DEEPEST, &mut images, &mut others)?;
        images.sort();
        if images.is_empty() {
            return Err(empty(&at, &others));
        }
        files.extend(images.into_iter().map(|path| (path, label as u32)));
    }
    let looked: Vec<Result<ImageFacts>> = files.par_iter().map(|(path, _)| look(path)).collect();
    let total = files.len();
    let (mut images, mut bad) = (Vec::with_capacity(total), Vec::new());
    for ((path, label), looked) in files.into_iter().zip(looked) {
        match looked {
            Ok(facts) => images.push(FoundImage { path, label, facts }),
            Err(error) => bad.push(Skipped { path: path.display().to_string(), reason: error.to_string() }),
        }
    }
    check_share(folder, &bad, total)?;
    for (label, class) in classes.iter().enumerate() {
        if !images.iter().any(|image| image.label == label as u32) {
            let got = "only such as cannot be used";
            return Err(Error::invalid(folder.join(class).display(), "images", "at least one", got)
                .and_then_do(bad.first().map_or("", |bad| &bad.reason)));
        }
    }
    skipped.extend(bad);
    Ok(Found { images })
}

/// A split has the classes of training, all and no others.
fn check_classes(folder: &Path, classes: &[String]) -> Result<()> {
    let names = class_names(folder)?;
    let missing = classes.iter().find(|class| !names.contains(class));
    let unknown = names.iter().find(|name| !classes.contains(name));
    let (expected, got) = match (missing, unknown) {
        (Some(class), _) => (format!("a folder `{class}` as in train"), "none".to_string()),
        (None, Some(name)) => ("the classes of train".to_string(), format!("a folder `{name}` besides")),
        (None, None) => return Ok(()),
    };
    Err(Error::invalid(folder.display(), "classes", expected, got)
        .and_then_do("every split needs the same classes; add images of it, or remove the class"))
}

fn empty(folder: &Path, others: &BTreeMap<String, usize>) -> Error {
    let others: Vec<String> = others.iter().map(|(kind, count)| format!("{count} of type .{kind}")).collect();
    let got = if others.is_empty() { "none".to_string() } else { others.join(", ") };
    Error::invalid(folder.display(), "images", "at least one .png, .jpg or .jpeg", got)
        .and_then_do("add images, convert them, or remove the class")
}

fn check_share(folder: &Path, bad: &[Skipped], total: usize) -> Result<()> {
    if bad.len() as f64 <= MOST_SKIPPED * total as f64 {
        return Ok(());
    }
    let named: Vec<&str> = bad.iter().take(NAMED).map(|bad| bad.reason.as_str()).collect();
    let got = format!("{} of {total}, such as: {}", bad.len(), named.join("; "));
    Err(Error::invalid(folder.display(), "images that cannot be used", "at most 1 %", got)
        .and_then_do("repair or remove them"))
}

/// Image files of a folder and those in it; of others, how many of each type.
fn list(
    folder: &Path,
    depth: usize,
    images: &mut Vec<PathBuf>,
    others: &mut BTreeMap<String, usize>,
) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("open the folder", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            if depth > 0 && !leads_back(&path, folder) {
                list(&path, depth - 1, images, others)?;
            }
            continue;
        }
        // pipes and devices have no end; a link to nowhere is an image that cannot be read
        if path.exists() && !path.is_file() {
            continue;
        }
        let kind = path.extension().map(|kind| kind.to_string_lossy().to_lowercase()).unwrap_or_default();
        if ["png", "jpg", "jpeg"].contains(&kind.as_str()) {
            images.push(path);
        } else {
            *others.entry(kind).or_default() += 1;
        }
    }
    Ok(())
}

/// Whether a folder in `folder` is a link to one that it lies in, which would be looked into for ever.
fn leads_back(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    real(path).zip(real(folder)).is_some_and(|(path, folder)| folder.starts_with(path))
}

fn look(path: &Path) -> Result<ImageFacts> {
    let bytes = file::read(path)?;
    let image = ImageFile::from_bytes(&path.display().to_string(), &bytes)?.oriented(Orient::Exif);
    let (colour, size) = (image.is_colour(), image.size());
    let pixels = image.into_pixels(if colour { 3 } else { 1 }, Grey::Rec601).unwrap_or_default();
    let sums = if colour { ImageSums::of_colours(&pixels) } else { ImageSums::of_greys(&pixels) };
    Ok(ImageFacts { colour, size, hash: *blake3::hash(&bytes).as_bytes(), sums })
}

/// Validation images where there is no folder of them: a tenth of each class, drawn with a constant seed.
fn hold_out(folder: &Path, classes: &[String], found: Found) -> Result<(Found, Found)> {
    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (label, class) in classes.iter().enumerate() {
        let images: Vec<_> = found.images.iter().filter(|image| image.label == label as u32).collect();
        if images.len() < 2 {
            let place = folder.join(class);
            return Err(Error::invalid(
                place.display(),
                "images",
                "at least 2, to hold one out",
                images.len(),
            )
            .and_then_do("add images, or give a folder val/"));
        }
        let mut rng = rng_for("validation split", idx::VALIDATION_SEED, &[label as u64, images.len() as u64]);
        let mut held_out = vec![false; images.len()];
        let order = permutation(images.len(), &mut rng);
        order.iter().take((images.len() / 10).max(1)).for_each(|i| held_out[*i] = true);
        for (image, held_out) in images.into_iter().zip(held_out) {
            if held_out { &mut val } else { &mut train }.push(image.clone());
        }
    }
    Ok((Found { images: train }, Found { images: val }))
}

impl Found {
    /// Sums over all pixels.
    fn sums(&self) -> ChannelSums {
        let mut total = ChannelSums::default();
        self.images.iter().for_each(|image| total.add(&image.facts.sums));
        total
    }

    /// The median of the shorter sides.
    fn size(&self) -> usize {
        let mut sides: Vec<usize> =
            self.images.iter().map(|image| image.facts.size[0].min(image.facts.size[1])).collect();
        sides.sort_unstable();
        sides[sides.len() / 2]
    }

    fn into_images(self, decoding: Decoding) -> Images {
        let files = self.images.into_iter().map(|image| (image.path, image.label)).collect();
        Images::Files(ImageFiles::new(files, decoding))
    }
}

/// BLAKE3 of class names, labels, the files' contents and whether they may be mirrored, in hexadecimal; where the files
/// lie is no part of it.
fn hash(classes: &[String], flip: bool, splits: [(Split, &Found); 2]) -> String {
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
