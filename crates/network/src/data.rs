//! Batches from files: data sets checked at the door, augmentation with a given generator, and loaders whose
//! batches are a pure function of (seed, step).
//!
//! Knows nothing of networks, training phases or devices: tensors are made on the CPU. The test split is
//! reached only by naming it.

mod about;
mod augment;
mod batch;
mod catalogue;
mod classes;
mod csv;
mod dataset;
mod digits;
mod folder;
mod formats;
mod idx;
mod image_file;
mod image_set;
mod images;
mod index;
mod jpeg_fraction;
mod jpeg_repair;
mod list;
mod loader;
mod look;
mod looking;
mod npy;
mod npy_folder;
mod order;
mod passed_over;
mod pixels;
mod plain_batches;
mod preprocess;
mod resize;
mod room;
mod sums;
mod task;
#[cfg(test)]
mod testing;
mod view_cache;

use std::fmt;
use std::str::FromStr;

pub use augment::{Augmentation, AugmentationSettings, RandAugment, plain_view};
pub use batch::Batch;
pub use catalogue::{Catalogue, ImageCounts};
pub use dataset::Dataset;
pub use folder::{ImagesIn, images_in};
pub use formats::DataFormat;
pub use idx::idx_from_bytes;
pub use image_file::ImageFile;
pub use image_set::{Image, ImageSet, Normalization};
pub use images::{ImageFiles, Images, Loaded};
pub use list::{ListedImage, list_from_text};
pub use loader::{LoaderConfig, TrainLoader};
pub use looking::Looking;
pub use npy::NpyArray;
pub use order::Sampling;
pub use pixels::{PixelKind, Pixels};
pub use plain_batches::{calibration_batches, eval_batches, val_minibatch};
pub use preprocess::{Filter, Grey, MIDDLE_SHARE, Orient, Preprocess, Resize};
pub use task::{LossKind, Partners, Targets, Task, TaskMetric};

use crate::error::{Error, Result};

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For weights and calibration.
    Train,
    /// For choices.
    Val,
    /// For the finished result, reported once.
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

/// Facts of a data set other than its images.
#[derive(Debug, Clone)]
pub struct DatasetOrigin {
    /// A short name.
    pub name: String,
    /// One line: where the images come from and under which license.
    pub source: String,
    /// Whether a mirrored image still shows its class, so that a flip is a legal augmentation.
    pub flip: bool,
}

/// An image that cannot be used and is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The image's file.
    pub path: String,
    /// The reason.
    pub reason: String,
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
                Images::Pixels(set) => Ok((split, set.as_ref())),
                Images::Files(_) => Err(Error::invalid(name, split, "images in memory", "files")),
            }
        }
        self.present().map(|(split, images)| set(name, split, images)).collect()
    }
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
        let origin = DatasetOrigin { name: "one".to_owned(), source: String::new(), flip: false };
        Dataset::new(origin, numbered_classes(2), Splits { train: set([2, 2, 1], 0), val, test: None })
    }

    #[test]
    fn unknown_forms_are_refused_with_the_known_ones() {
        for (spec, expected) in [
            (
                "mnist",
                "data: form: expected digits, idx:FOLDER, folder:FOLDER, list:FILE.csv or npy:FOLDER, got \"mnist\"",
            ),
            ("idx:", "expected digits, idx:FOLDER, folder:FOLDER, list:FILE.csv or npy:FOLDER"),
            ("digits:x", "expected digits, idx:FOLDER, folder:FOLDER, list:FILE.csv or npy:FOLDER"),
            ("folder:", "expected digits, idx:FOLDER, folder:FOLDER, list:FILE.csv or npy:FOLDER"),
            ("folder:/no/such/folder", "/no/such/folder: cannot open"),
            ("idx:/no/such/folder", "/no/such/folder: cannot open"),
            ("npy:/no/such/folder", "/no/such/folder: cannot open"),
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
