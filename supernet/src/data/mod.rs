//! Batches from files: data sets checked at the door, augmentation with a given generator, and loaders whose
//! batches are a pure function of (seed, step).
//!
//! Knows nothing of networks, training phases or devices: tensors are made on the CPU. The test split is
//! reached only by naming it.

mod augment;
mod digits;
mod folder;
mod idx;
mod image_file;
mod image_set;
mod images;
mod jpeg_repair;
mod loader;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

pub use augment::{Augmentation, plain_view};
pub use idx::idx_from_bytes;
pub use image_file::ImageFile;
pub use image_set::{Image, ImageSet, Normalisation};
pub use images::{ImageFiles, Images, Loaded};
pub use loader::{Batch, LoaderConfig, TrainLoader, calibration_batches, eval_batches};

use crate::error::{Error, Result};
use crate::space::SearchSpace;

const FORMS: &str = "digits, idx:FOLDER or folder:FOLDER";

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What weights and calibration see.
    Train,
    /// What choices are made by.
    Val,
    /// What a finished result is reported on, once.
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "train" => Ok(Self::Train),
            "val" => Ok(Self::Val),
            "test" => Ok(Self::Test),
            _ => Err(Error::invalid("split", "name", "train, val or test", format!("\"{text}\""))),
        }
    }
}

/// The parts of a data set, before [`Dataset::new`] has checked that they belong together.
#[derive(Debug, Clone)]
pub struct Splits {
    /// Images to train and to calibrate on.
    pub train: Images,
    /// Images to choose by.
    pub val: Images,
    /// Images to report on, if the set has any.
    pub test: Option<Images>,
}

/// What is to be known of a data set beside its images.
#[derive(Debug, Clone)]
pub struct Origin {
    /// A short name.
    pub name: String,
    /// One line: where the images come from and under which licence.
    pub source: String,
    /// Whether a mirrored image still shows its class, so that a flip is a legal augmentation.
    pub flip: bool,
}

/// An image that cannot be used and is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its file.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What was counted over the images.
#[derive(Debug, Clone)]
struct Facts {
    normalisation: Normalisation,
    /// Height, or the usual shorter side where images differ.
    size: usize,
    hash: String,
}

/// A data set: images in two or three splits, and the names of their classes.
#[derive(Debug, Clone)]
pub struct Dataset {
    origin: Origin,
    classes: Vec<String>,
    splits: Splits,
    facts: Facts,
    /// Where test images lie that are looked at only when they are asked for.
    late_test: Option<PathBuf>,
    looked_at: OnceLock<(Images, Vec<Skipped>)>,
    skipped: Vec<Skipped>,
}

impl Dataset {
    /// Opens the data set that `spec` names: `digits` (embedded), `idx:FOLDER` (files of MNIST's format) or
    /// `folder:FOLDER` (image files, a folder a class).
    ///
    /// # Errors
    /// If the form is unknown, or the files are missing or malformed.
    ///
    /// ```
    /// let digits = supernet::data::Dataset::open("digits")?;
    /// assert_eq!((digits.train().len(), digits.channels()), (1071, 1));
    /// # Ok::<(), supernet::error::Error>(())
    /// ```
    pub fn open(spec: &str) -> Result<Self> {
        match spec.split_once(':') {
            None if spec == "digits" => digits::open(),
            Some(("idx", folder)) if !folder.is_empty() => idx::open(Path::new(folder)),
            Some(("folder", folder)) if !folder.is_empty() => folder::open(Path::new(folder)),
            _ => Err(Error::invalid("data", "form", FORMS, format!("\"{spec}\""))),
        }
    }

    /// A data set of these splits; computes the normalisation from the training images, and the hash.
    ///
    /// # Errors
    /// If the images are not all in memory and of one shape, or a label has no class name.
    pub fn new(origin: Origin, classes: Vec<String>, splits: Splits) -> Result<Self> {
        let sets = splits.in_memory(&origin.name)?;
        let (_, train) = sets[0];
        let shape = train.shape();
        for (split, set) in &sets {
            if set.shape() != shape {
                let field = format!("shape of the {split} images");
                let expected = format!("{shape:?} as in train");
                return Err(Error::invalid(&origin.name, field, expected, format!("{:?}", set.shape())));
            }
        }
        let facts = Facts { normalisation: Normalisation::of(train), size: shape[0], hash: hash(&sets) };
        Self::assemble(origin, classes, splits, facts)
    }

    fn assemble(origin: Origin, classes: Vec<String>, splits: Splits, facts: Facts) -> Result<Self> {
        for (split, images) in splits.present() {
            if let Some(label) = images.labels().iter().find(|label| **label as usize >= classes.len()) {
                let expected = format!("below the number of classes, {}", classes.len());
                return Err(Error::invalid(&origin.name, format!("labels of {split}"), expected, label));
            }
        }
        let (late_test, looked_at, skipped) = (None, OnceLock::new(), Vec::new());
        Ok(Self { origin, classes, splits, facts, late_test, looked_at, skipped })
    }

    /// The same images as a network sees them that was made for another normalisation.
    ///
    /// # Errors
    /// If it is for another number of channels.
    pub fn normalised_as(mut self, normalisation: Normalisation) -> Result<Self> {
        if normalisation.channels() != self.channels() {
            let place = format!("data {}", self.name());
            return Err(Error::invalid(place, "channels", normalisation.channels(), self.channels()));
        }
        self.facts.normalisation = normalisation;
        Ok(self)
    }

    fn with_late_test(self, late_test: Option<PathBuf>) -> Self {
        Self { late_test, ..self }
    }

    fn with_skipped(self, skipped: Vec<Skipped>) -> Self {
        Self { skipped, ..self }
    }

    /// Images that cannot be used and are left out: of training and validation, and of test once it was asked for.
    pub fn skipped(&self) -> Vec<&Skipped> {
        let late = self.looked_at.get().into_iter().flat_map(|(_, skipped)| skipped);
        self.skipped.iter().chain(late).collect()
    }

    /// A short name: `digits`, or that of the folder.
    pub fn name(&self) -> &str {
        &self.origin.name
    }

    /// The names of the classes, by label.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The images to train and to calibrate on.
    pub fn train(&self) -> &Images {
        &self.splits.train
    }

    /// The images to choose by.
    pub fn val(&self) -> &Images {
        &self.splits.val
    }

    /// The named split; the one way to the test images.
    ///
    /// # Errors
    /// If the set has no test images, or they cannot be used.
    pub fn split(&self, split: Split) -> Result<&Images> {
        match split {
            Split::Train => Ok(&self.splits.train),
            Split::Val => Ok(&self.splits.val),
            Split::Test => self.test(),
        }
    }

    fn test(&self) -> Result<&Images> {
        let known = self.looked_at.get().map(|(images, _)| images);
        if let Some(images) = self.splits.test.as_ref().or(known) {
            return Ok(images);
        }
        let Some(folder) = &self.late_test else {
            return Err(Error::invalid(self.name(), "split test", "test images", "a data set without any")
                .and_then_do("use --split val"));
        };
        let looked = folder::open_test(folder, &self.classes, self.channels())?;
        Ok(&self.looked_at.get_or_init(|| looked).0)
    }

    /// Mean and deviation of each channel of the training images.
    pub fn normalisation(&self) -> &Normalisation {
        &self.facts.normalisation
    }

    /// Channels of every image.
    pub fn channels(&self) -> usize {
        self.splits.train.channels()
    }

    /// Height of the images; where they differ, the median of their shorter sides.
    pub fn size(&self) -> usize {
        self.facts.size
    }

    /// Whether a horizontal flip is a legal augmentation.
    pub fn flip(&self) -> bool {
        self.origin.flip
    }

    /// One line: where the images come from and under which licence.
    pub fn source(&self) -> &str {
        &self.origin.source
    }

    /// BLAKE3 of the images and labels, in hexadecimal; of image folders without those for test.
    pub fn hash(&self) -> &str {
        &self.facts.hash
    }

    /// Name and hash: what provenance says of the data.
    pub fn identity(&self) -> String {
        format!("{} {}", self.name(), self.hash())
    }

    /// Whether the images have the channels and the classes that a space is made for.
    ///
    /// # Errors
    /// Says which of them differ.
    pub fn check_fits(&self, space: &SearchSpace) -> Result<()> {
        let place = format!("data {} for space {}", self.name(), space.name());
        let pairs = [
            ("channels", space.input_channels(), self.channels()),
            ("classes", space.classes(), self.classes().len()),
        ];
        for (field, expected, got) in pairs {
            if expected != got {
                let advice = "choose another space, or write one in TOML (`supernet space tiny --toml` shows the form)";
                return Err(Error::invalid(place, field, expected, got).and_then_do(advice));
            }
        }
        Ok(())
    }
}

impl Splits {
    fn present(&self) -> impl Iterator<Item = (Split, &Images)> {
        [(Split::Train, &self.train), (Split::Val, &self.val)]
            .into_iter()
            .chain(self.test.iter().map(|set| (Split::Test, set)))
    }

    /// The splits, training images first.
    fn in_memory(&self, name: &str) -> Result<Vec<(Split, &ImageSet)>> {
        fn set<'a>(name: &str, split: Split, images: &'a Images) -> Result<(Split, &'a ImageSet)> {
            match images {
                Images::Pixels(set) => Ok((split, set)),
                Images::Files(_) => Err(Error::invalid(name, split, "images in memory", "files")),
            }
        }
        self.present().map(|(split, images)| set(name, split, images)).collect()
    }
}

fn hash(sets: &[(Split, &ImageSet)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (split, set) in sets {
        hasher.update(split.to_string().as_bytes());
        // sizes first, so that different sets never make the same bytes
        for size in [set.len()].into_iter().chain(set.shape()) {
            hasher.update(&(size as u64).to_le_bytes());
        }
        hasher.update(set.all_pixels());
        let labels: Vec<u8> = set.labels().iter().flat_map(|label| label.to_le_bytes()).collect();
        hasher.update(&labels);
    }
    hasher.finalize().to_hex().to_string()
}

/// The classes `0`, `1`, … of a set that has no better names.
fn numbered_classes(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(shape: [usize; 3], label: u32) -> Images {
        ImageSet::new(vec![1; shape.iter().product()], vec![label], shape, 10).unwrap().into()
    }

    fn dataset(val: Images) -> Result<Dataset> {
        let origin = Origin { name: "one".to_owned(), source: String::new(), flip: false };
        Dataset::new(origin, numbered_classes(2), Splits { train: set([2, 2, 1], 0), val, test: None })
    }

    #[test]
    fn unknown_forms_are_refused_with_the_known_ones() {
        for (spec, expected) in [
            ("mnist", "data: form: expected digits, idx:FOLDER or folder:FOLDER, got \"mnist\""),
            ("idx:", "expected digits, idx:FOLDER or folder:FOLDER"),
            ("digits:x", "expected digits, idx:FOLDER or folder:FOLDER"),
            ("folder:", "expected digits, idx:FOLDER or folder:FOLDER"),
            ("folder:/no/such/folder", "/no/such/folder: cannot open"),
            ("idx:/no/such/folder", "/no/such/folder: cannot open"),
        ] {
            let message = Dataset::open(spec).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn splits_must_belong_together() {
        for (val, expected) in [
            (
                set([2, 3, 1], 0),
                "one: shape of the val images: expected [2, 2, 1] as in train, got [2, 3, 1]",
            ),
            (set([2, 2, 1], 2), "one: labels of val: expected below the number of classes, 2, got 2"),
        ] {
            assert_eq!(dataset(val).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn a_missing_test_split_is_an_error() {
        let message = dataset(set([2, 2, 1], 1)).unwrap().split(Split::Test).unwrap_err().to_string();
        assert_eq!(
            message,
            "one: split test: expected test images, got a data set without any; use --split val"
        );
    }

    #[test]
    fn the_hash_tells_sets_apart() {
        let hash = |label| dataset(set([2, 2, 1], label)).unwrap().hash().to_owned();
        assert_eq!(hash(0), hash(0));
        assert_ne!(hash(0), hash(1));
    }

    #[test]
    fn splits_are_read_as_they_are_written() {
        for split in [Split::Train, Split::Val, Split::Test] {
            assert_eq!(split.to_string().parse::<Split>().unwrap(), split);
        }
        assert!("validation".parse::<Split>().is_err());
    }
}
