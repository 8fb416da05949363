//! A data set before any image is decoded: its files are listed and its classes known, so that a command
//! refuses wrong ones at once.

use std::path::Path;

use space::SearchSpace;

use super::dataset::{Dataset, Facts, Late};
use super::look::{Listed, Notes, hash, in_both};
use super::looking::Looking;
use super::preprocess::{Grey, Preprocess};
use super::{DatasetOrigin, Split, Splits, classes, formats};
use crate::error::{Error, Result};

/// Number of images of a data set, as far as it is known before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageCounts {
    /// Images to train with.
    pub train: usize,
    /// Images to choose by.
    pub val: usize,
    /// Whether all of them lie in memory; else they are files.
    pub in_memory: bool,
}

/// A data set whose images were not read yet.
#[derive(Debug)]
pub struct Catalogue(Kind);

/// The parts of a data set that are known before its images are read.
#[derive(Debug)]
pub(super) enum Kind {
    /// In memory: reading it takes no time.
    Read(Box<Dataset>),
    Files(Box<Files>),
}

impl Kind {
    pub fn read(dataset: Dataset) -> Self {
        Self::Read(Box::new(dataset))
    }

    pub fn files(files: Files) -> Self {
        Self::Files(Box::new(files))
    }
}

/// Image files by split.
#[derive(Debug)]
pub(super) struct Files {
    pub origin: DatasetOrigin,
    pub classes: Vec<String>,
    pub train: Listed,
    /// Without them a tenth of each class of train is held out.
    pub val: Option<Listed>,
    pub test: Option<Late>,
    /// Where validation images come from, in words.
    pub val_from: String,
    pub warnings: Vec<String>,
}

impl Catalogue {
    /// Lists what `spec` names, as [`Dataset::open_with`] does.
    ///
    /// # Errors
    /// If the form is unknown, or files are missing or malformed.
    pub fn open(spec: &str, dataset_toml: Option<&Path>) -> Result<Self> {
        formats::open(spec, dataset_toml).map(Self)
    }

    /// A short name.
    pub fn name(&self) -> &str {
        match &self.0 {
            Kind::Read(dataset) => dataset.name(),
            Kind::Files(files) => &files.origin.name,
        }
    }

    /// The names of the classes, by label.
    pub fn classes(&self) -> &[String] {
        match &self.0 {
            Kind::Read(dataset) => dataset.classes(),
            Kind::Files(files) => &files.classes,
        }
    }

    /// Number of images, including those that reading will leave out.
    pub fn counts(&self) -> ImageCounts {
        match &self.0 {
            Kind::Read(dataset) => {
                ImageCounts { train: dataset.train().len(), val: dataset.val().len(), in_memory: true }
            }
            Kind::Files(files) => {
                let listed = files.train.files.len();
                let val = files.val.as_ref().map_or(listed / 10, |val| val.files.len());
                ImageCounts { train: listed, val, in_memory: false }
            }
        }
    }

    /// Whether the images have the classes that a space is made for.
    ///
    /// # Errors
    /// As [`Dataset::check_fits`].
    pub fn check_fits(&self, space: &SearchSpace) -> Result<()> {
        classes::check_count(self.name(), self.classes().len(), space)
    }

    /// Whether the classes are those of a network, whatever their order.
    ///
    /// # Errors
    /// As [`Dataset::labeled_as`].
    pub fn check_classes(&self, network: &[String]) -> Result<()> {
        classes::labels_for(self.name(), self.classes(), network).map(drop)
    }

    /// Whether there are images of a split.
    ///
    /// # Errors
    /// If they are test images, and there are none.
    pub fn check_split(&self, split: Split) -> Result<()> {
        let there = match &self.0 {
            Kind::Read(dataset) => dataset.has_test(),
            Kind::Files(files) => files.test.is_some(),
        };
        if split != Split::Test || there { Ok(()) } else { Err(no_test(self.name())) }
    }

    /// Looks at every image, but for those of the test split.
    ///
    /// # Errors
    /// If too many images cannot be used.
    pub fn look(self) -> Result<Dataset> {
        self.look_with(&Looking::default())
    }

    /// Reads the images; keeps an index of the results, and reports progress.
    ///
    /// # Errors
    /// As [`Catalogue::look`].
    pub fn look_with(self, looking: &Looking) -> Result<Dataset> {
        match self.0 {
            Kind::Read(dataset) => Ok(*dataset),
            Kind::Files(files) => files.look(looking),
        }
    }
}

pub(super) fn no_test(name: &str) -> Error {
    Error::invalid(name, "split test", "test images", "a data set without any").and_then_do("use --split val")
}

impl Files {
    fn look(self, looking: &Looking) -> Result<Dataset> {
        let Self { origin, classes, train, val, test, val_from, warnings } = self;
        let place = train.place.clone();
        let mut notes = Notes { warnings, ..Notes::default() };
        let found = train.look(&classes, looking, &mut notes)?;
        let channels = if found.are_color() { 3 } else { 1 };
        let (train, val) = match val {
            Some(val) => (found, val.look(&classes, looking, &mut notes)?),
            None => found.hold_out(&place, &classes)?,
        };
        let sums = train.sums();
        let normalization = sums.normalization(channels, Grey::Rec601);
        let normalization =
            normalization.ok_or_else(|| Error::invalid(place.display(), "images", "some", "none"))?;
        let preprocess = Preprocess::photographs(normalization);
        let splits = [(Split::Train, &train), (Split::Val, &val)];
        let facts = Facts { sums: Some(sums), size: train.size(), hash: hash(&classes, origin.flip, splits) };
        let decoding = preprocess.decoding();
        let train = train.into_images(decoding);
        let val = val.into_images(decoding);
        notes.warnings.extend(in_both([(Split::Val, &val), (Split::Train, &train)]));
        let splits = Splits { train, val, test: None };
        Dataset::assemble(origin, classes, splits, facts, preprocess).map(|set| {
            set.with_late_test(test, looking.clone())
                .with_skipped(notes.skipped)
                .with_val_from(val_from)
                .with_warnings(notes.warnings)
        })
    }
}
