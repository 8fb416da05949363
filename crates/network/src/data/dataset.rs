//! A data set as a whole: its splits, the names of its classes, and the preprocessing of its images.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base::random::{permutation, rng_for};
use space::SearchSpace;

use super::catalogue::{Catalogue, no_test};
use super::classes::{check_count, labels_for};
use super::image_set::{ImageSet, Normalization};
use super::images::Images;
use super::look::{Listed, Notes, in_both, left_out};
use super::looking::Looking;
use super::passed_over::Contents;
use super::pixels::{PixelKind, Pixels};
use super::preprocess::{Grey, Preprocess};
use super::sums::ChannelSums;
use super::task::Task;
use super::{DatasetOrigin, Skipped, Split, Splits, folder};
use crate::error::{Error, Result};

/// Statistics of the images.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Sums of training images in files; for images in memory they are computed on request.
    pub sums: Option<ChannelSums>,
    /// Height, or the usual shorter side where images differ.
    pub size: usize,
    pub hash: String,
}

/// A data set: images in two or three splits, the names of their classes, and how a network is to see them. Copies share
/// the images.
#[derive(Debug, Clone)]
pub struct Dataset {
    origin: DatasetOrigin,
    classes: Vec<String>,
    splits: Splits,
    facts: Facts,
    preprocess: Preprocess,
    /// Source of the names and of the flip, in words.
    told_by: String,
    /// Where validation images come from, in words.
    val_from: String,
    /// Whether the folder's name alone made a flip legal, before the data decided.
    flip_by_name: bool,
    /// Place of test images that are read on request only.
    late_test: Option<Late>,
    /// Settings for reading them.
    looking: Looking,
    /// The classes by name as they were listed, and the label of each today.
    late_classes: Vec<String>,
    late_labels: Vec<u32>,
    looked_at: OnceLock<LateImages>,
    skipped: Vec<Skipped>,
    warnings: Vec<String>,
}

/// Test images that are read on request only.
#[derive(Debug, Clone)]
pub(super) enum Late {
    Folder(PathBuf),
    Files(Listed),
}

/// Test images once they were read.
#[derive(Debug, Clone)]
struct LateImages {
    images: Images,
    skipped: Vec<Skipped>,
    warnings: Vec<String>,
}

impl Dataset {
    /// Opens the data set that `spec` names: `digits` (embedded), `idx:FOLDER` (files of MNIST's format), `folder:FOLDER`
    /// (image files, one folder per class), `list:FILE.csv` (image files that a list names) or `npy:FOLDER` (numpy arrays, one
    /// folder per class).
    ///
    /// # Errors
    /// If the form is unknown, or the files are missing or malformed.
    ///
    /// ```
    /// let digits = network::data::Dataset::open("digits")?;
    /// assert_eq!((digits.train().len(), digits.channels()), (1071, 1));
    /// # Ok::<(), network::error::Error>(())
    /// ```
    pub fn open(spec: &str) -> Result<Self> {
        Self::open_with(spec, None)
    }

    /// Opens a data set with `dataset_toml` in place of the `dataset.toml` that may lie in the folder.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(spec: &str, dataset_toml: Option<&Path>) -> Result<Self> {
        Catalogue::open(spec, dataset_toml)?.look()
    }

    /// A data set of these splits; computes the normalization from the training images, and the hash.
    ///
    /// # Errors
    /// If the images are not all in memory and of one shape, or a label has no class name.
    pub fn new(origin: DatasetOrigin, classes: Vec<String>, splits: Splits) -> Result<Self> {
        let sets = splits.in_memory(&origin.name)?;
        let (_, train) = sets[0];
        let shape = train.shape();
        for (split, set) in &sets {
            if set.shape() != shape {
                let field = format!("shape of the {split} images");
                let expected = format!("{shape:?} as in train");
                return Err(Error::invalid(&origin.name, field, expected, format!("{:?}", set.shape())));
            }
            if set.kind() != train.kind() {
                let expected = format!("{} as in train", train.kind());
                return Err(Error::invalid(&origin.name, format!("{split} images"), expected, set.kind()));
            }
        }
        let facts = Facts { sums: None, size: shape[0], hash: hash(&sets) };
        let normalization = Normalization::of(train);
        let preprocess = match train.kind() {
            PixelKind::Bytes => Preprocess::whole(normalization),
            PixelKind::Floats => Preprocess::array(normalization),
        };
        Self::assemble(origin, classes, splits, facts, preprocess)
    }

    pub(super) fn assemble(
        origin: DatasetOrigin,
        classes: Vec<String>,
        splits: Splits,
        facts: Facts,
        preprocess: Preprocess,
    ) -> Result<Self> {
        for (split, images) in splits.present() {
            if let Some(label) = images.labels().iter().find(|label| **label as usize >= classes.len()) {
                let expected = format!("below the number of classes, {}", classes.len());
                return Err(Error::invalid(&origin.name, format!("labels of {split}"), expected, label));
            }
        }
        let late_classes = classes.clone();
        let flip_by_name = origin.flip;
        let late_labels = (0..classes.len() as u32).collect();
        Ok(Self {
            origin,
            classes,
            splits,
            facts,
            preprocess,
            told_by: String::new(),
            val_from: String::new(),
            flip_by_name,
            late_test: None,
            looking: Looking::default(),
            late_classes,
            late_labels,
            looked_at: OnceLock::new(),
            skipped: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// The task that networks learn on the images.
    pub fn task(&self) -> Task {
        Task::Classify
    }

    /// The best preprocessing for a network of a space that is trained on these images: photographs, which are image files,
    /// and all images for the spaces of once-for-all as torchvision evaluates them; others whole. Mean and
    /// deviation are those of the training images.
    ///
    /// # Errors
    /// If the channels that the space wants cannot be made of those of the images.
    pub fn preprocess_for(&self, space: &SearchSpace) -> Result<Preprocess> {
        let normalization = self.counted(space.input_channels(), Grey::Rec601)?;
        if self.train().kind() == PixelKind::Floats {
            return Ok(Preprocess::array(normalization));
        }
        let photographs = !self.train().in_memory() || space.name().starts_with("ofa-");
        Ok(if photographs {
            Preprocess::photographs(normalization)
        } else {
            Preprocess::whole(normalization)
        })
    }

    /// The preprocessing of a file of weights that has none: the whole image as it is stored, normalized by the training
    /// images at hand.
    ///
    /// # Errors
    /// As [`Dataset::preprocess_for`].
    pub fn preprocess_unsaid(&self, space: &SearchSpace) -> Result<Preprocess> {
        let normalization = self.counted(space.input_channels(), Grey::Rec709)?;
        Ok(match self.train().kind() {
            PixelKind::Bytes => Preprocess::unsaid(normalization),
            PixelKind::Floats => Preprocess::array(normalization),
        })
    }

    /// Mean and deviation of the training images converted to `channels` channels.
    fn counted(&self, channels: usize, grey: Grey) -> Result<Normalization> {
        let wrong = || {
            let expected = "1 or 3, or those of the images";
            Error::invalid(format!("data {}", self.name()), "channels", expected, channels)
        };
        match (&self.splits.train, &self.facts.sums) {
            (Images::Pixels(set), _) if set.shape()[2] == channels => Ok(Normalization::of(set)),
            (Images::Pixels(set), _) => {
                let set = set.with_channels(channels, grey).ok_or_else(wrong)?;
                Ok(Normalization::of(&set))
            }
            (Images::Files(_), Some(sums)) => sums.normalization(channels, grey).ok_or_else(wrong),
            (Images::Files(_), None) => Err(wrong()),
        }
    }

    /// The same images with the preprocessing of a network.
    ///
    /// # Errors
    /// If its channels cannot be made of those of the images, or the values are of another kind.
    pub fn seen_as(&self, preprocess: Preprocess) -> Result<Self> {
        let place = format!("data {}", self.name());
        let decoding = preprocess.decoding();
        preprocess.check(&place)?;
        if preprocess.values != self.train().kind() {
            let expected = format!("{} for the network", preprocess.values);
            return Err(Error::invalid(place, "values", expected, self.train().kind())
                .and_then_do("give data of the kind that it was trained on"));
        }
        let views =
            (preprocess.resize, preprocess.filter) == (self.preprocess.resize, self.preprocess.filter);
        let seen = |images: &Images| images.decoded_as(&place, decoding, views);
        let splits = Splits {
            train: seen(&self.splits.train)?,
            val: seen(&self.splits.val)?,
            test: self.splits.test.as_ref().map(seen).transpose()?,
        };
        // test images that were looked at before are looked at again, for they would be decoded otherwise
        Ok(Self { splits, preprocess, looked_at: OnceLock::new(), ..self.clone() })
    }

    /// The same images with labels that follow `classes`, the names in the order of a network's scores.
    ///
    /// Where one of them has numbers for names, from 0 on in order, and the other has none of these, that order counts.
    ///
    /// # Errors
    /// If the names are not the same, whatever their order.
    pub fn labeled_as(&self, classes: &[String]) -> Result<Self> {
        if self.classes == classes {
            return Ok(self.clone());
        }
        let labels = labels_for(self.name(), &self.classes, classes)?;
        let relabelled = |images: &Images| images.relabelled(&labels);
        let splits = Splits {
            train: relabelled(&self.splits.train),
            val: relabelled(&self.splits.val),
            test: self.splits.test.as_ref().map(relabelled),
        };
        let late_labels = self.late_labels.iter().map(|label| labels[*label as usize]).collect();
        Ok(Self {
            splits,
            classes: classes.to_vec(),
            late_labels,
            looked_at: OnceLock::new(),
            ..self.clone()
        })
    }

    /// The data set with at most `most` validation images, drawn with a constant seed: a quicker, coarser evaluation.
    #[must_use]
    pub fn with_val_images(&self, most: usize) -> Self {
        let val = at_most(&self.splits.val, most, "validation images");
        Self { splits: Splits { val, ..self.splits.clone() }, ..self.clone() }
    }

    /// The data set with at most `most` training images, drawn with a constant seed; fewer are some of more.
    #[must_use]
    pub fn with_train_images(&self, most: usize) -> Self {
        let train = at_most(&self.splits.train, most, "training images");
        Self { splits: Splits { train, ..self.splits.clone() }, ..self.clone() }
    }

    pub(super) fn told_by(self, told_by: String, flip_by_name: bool) -> Self {
        Self { told_by, flip_by_name, ..self }
    }

    pub(super) fn with_val_from(self, val_from: impl Into<String>) -> Self {
        Self { val_from: val_from.into(), ..self }
    }

    /// A description in a line or two: numbers of images and classes, and the sources of validation images, of class
    /// names and of the flip.
    pub fn in_words(&self) -> String {
        let told_by = match self.told_by.as_str() {
            "" => String::new(),
            told_by => {
                let flip = if self.flip() { "mirrored in training" } else { "not mirrored" };
                format!("\n  class names and flip ({flip}) from {told_by}")
            }
        };
        format!("data {}: {}{told_by}", self.name(), self.summary())
    }

    fn summary(&self) -> String {
        let train = self.train().len();
        let val = self.val().len();
        let classes = self.classes.len();
        let from = if self.val_from.is_empty() { String::new() } else { format!(" ({})", self.val_from) };
        let looked_at = self.looked_at.get().map(|late| &late.images);
        let test = match (self.splits.test.as_ref().or(looked_at), &self.late_test) {
            (Some(images), _) => format!("{} test", images.len()),
            (None, Some(_)) => "test not opened".to_string(),
            (None, None) => "no test".to_string(),
        };
        format!("{train} train, {val} val{from}, {test} images of {classes} classes")
    }

    /// Source of the class names and of the flip, in words; empty where it is obvious.
    pub fn names_and_flip_from(&self) -> &str {
        &self.told_by
    }

    pub(crate) fn flip_by_name(&self) -> bool {
        self.flip_by_name
    }

    pub(super) fn with_warnings(self, warnings: Vec<String>) -> Self {
        Self { warnings, ..self }
    }

    /// Warnings: images that are left out, files that are skipped, images that are in two splits. Once test
    /// images were read, their warnings follow.
    pub fn warnings(&self) -> Vec<String> {
        let late = self.looked_at.get();
        let late = late.map(|late| left_out(&late.skipped).into_iter().chain(late.warnings.clone()));
        let own = left_out(&self.skipped).into_iter().chain(self.warnings.clone());
        own.chain(late.into_iter().flatten()).collect()
    }

    pub(super) fn with_late_test(self, late_test: Option<Late>, looking: Looking) -> Self {
        Self { late_test, looking, ..self }
    }

    pub(super) fn with_skipped(self, skipped: Vec<Skipped>) -> Self {
        Self { skipped, ..self }
    }

    /// Unusable images, which are left out: of training and validation, and of test once it was read.
    pub fn skipped(&self) -> Vec<&Skipped> {
        let late = self.looked_at.get().into_iter().flat_map(|late| &late.skipped);
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

    pub(super) fn has_test(&self) -> bool {
        self.splits.test.is_some() || self.late_test.is_some()
    }

    fn test(&self) -> Result<&Images> {
        let known = self.looked_at.get().map(|late| &late.images);
        if let Some(images) = self.splits.test.as_ref().or(known) {
            return Ok(images);
        }
        let late = self.late_test.as_ref().ok_or_else(|| no_test(self.name()))?;
        let looked = self.look_at_test(late)?;
        Ok(&self.looked_at.get_or_init(|| looked).images)
    }

    fn look_at_test(&self, late: &Late) -> Result<LateImages> {
        let classes = &self.late_classes;
        let mut notes = Notes::default();
        let listed = match late {
            Late::Folder(folder) => {
                folder::list_split(Split::Test, folder, Contents::Images, classes, &mut notes.warnings)?
            }
            Late::Files(listed) => listed.clone(),
        };
        let found = listed.look(classes, &self.looking, &mut notes)?;
        let images = found.into_images(self.preprocess.decoding()).relabelled(&self.late_labels);
        let Notes { skipped, mut warnings } = notes;
        for (split, others) in self.splits.present() {
            warnings.extend(in_both([(Split::Test, &images), (split, others)]));
        }
        Ok(LateImages { images, skipped, warnings })
    }

    /// Preprocessing of the images.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Mean and deviation that they are normalized by.
    pub fn normalization(&self) -> &Normalization {
        &self.preprocess.normalization
    }

    /// Channels of every image as a network sees it.
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

    /// One line: where the images come from and under which license.
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

    /// Whether the images have the classes that a space is made for. (Channels follow the space: grey becomes three equal
    /// ones, colors become grey.)
    ///
    /// # Errors
    /// Says how many there are, and should be.
    pub fn check_fits(&self, space: &SearchSpace) -> Result<()> {
        check_count(self.name(), self.classes.len(), space)
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
        match set.all_pixels() {
            Pixels::Bytes(bytes) => {
                hasher.update(bytes);
            }
            Pixels::Floats(values) => {
                hasher.update(b"f32");
                for values in values.chunks(4096) {
                    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    hasher.update(&bytes);
                }
            }
        }
        let labels: Vec<u8> = set.labels().iter().flat_map(|label| label.to_le_bytes()).collect();
        hasher.update(&labels);
    }
    hasher.finalize().to_hex().to_string()
}

/// At most `most` images and at least one, in their order, drawn with the constant seed of a purpose.
fn at_most(images: &Images, most: usize, purpose: &str) -> Images {
    let count = images.len();
    if most >= count {
        return images.clone();
    }
    let mut places = permutation(count, &mut rng_for(purpose, 0, &[count as u64]));
    places.truncate(most.max(1));
    places.sort_unstable();
    images.only(&places)
}
