//! A data set as a whole: its splits, the names of its classes, and how a network sees its images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::about::About;
use super::image_set::{ImageSet, Normalisation};
use super::images::Images;
use super::preprocess::{Grey, Preprocess};
use super::sums::ChannelSums;
use super::{Origin, Skipped, Split, Splits, digits, folder, idx, numbered_classes};
use crate::error::{Error, Result};
use crate::random::{permutation, rng_for};
use crate::space::SearchSpace;

const FORMS: &str = "digits, idx:FOLDER or folder:FOLDER";

/// What was counted over the images.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// Of training images in files; those of images in memory are counted when they are asked for.
    pub sums: Option<ChannelSums>,
    /// Height, or the usual shorter side where images differ.
    pub size: usize,
    pub hash: String,
}

/// A data set: images in two or three splits, the names of their classes, and how a network is to see them. Copies share
/// the images.
#[derive(Debug, Clone)]
pub struct Dataset {
    origin: Origin,
    classes: Vec<String>,
    splits: Splits,
    facts: Facts,
    preprocess: Preprocess,
    /// What names and flip were taken from, in words.
    told_by: String,
    /// Where validation images come from, in words.
    val_from: &'static str,
    /// Whether a flip was held to be legal by the folder's name, before the data were asked.
    flip_by_name: bool,
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
        Self::open_with(spec, None)
    }

    /// The same, with what `dataset_toml` says of it in place of the `dataset.toml` that may lie in the folder.
    ///
    /// # Errors
    /// As [`Dataset::open`].
    pub fn open_with(spec: &str, dataset_toml: Option<&Path>) -> Result<Self> {
        let about = |folder: &str| About::read(Path::new(folder), dataset_toml);
        match spec.split_once(':') {
            None if spec == "digits" => digits::open(),
            Some(("idx", folder)) if !folder.is_empty() => idx::open(Path::new(folder), about),
            Some(("folder", folder)) if !folder.is_empty() => folder::open(Path::new(folder), about),
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
        let facts = Facts { sums: None, size: shape[0], hash: hash(&sets) };
        let preprocess = Preprocess::whole(Normalisation::of(train));
        Self::assemble(origin, classes, splits, facts, preprocess)
    }

    pub(super) fn assemble(
        origin: Origin,
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
        let (late_test, looked_at, skipped) = (None, OnceLock::new(), Vec::new());
        let (told_by, flip_by_name) = (String::new(), origin.flip);
        Ok(Self {
            origin,
            classes,
            splits,
            facts,
            preprocess,
            told_by,
            val_from: "",
            flip_by_name,
            late_test,
            looked_at,
            skipped,
        })
    }

    /// How images of this kind are best seen by a network of a space that is trained on them: photographs, which are
    /// image files, and all images for the spaces of once-for-all as torchvision evaluates them; others whole. Mean and
    /// deviation are those of the training images.
    ///
    /// # Errors
    /// If the channels that the space wants cannot be made of those of the images.
    pub fn preprocess_for(&self, space: &SearchSpace) -> Result<Preprocess> {
        let normalisation = self.counted(space.input_channels(), Grey::Rec601)?;
        let photographs = !self.train().in_memory() || space.name().starts_with("ofa-");
        Ok(if photographs {
            Preprocess::photographs(normalisation)
        } else {
            Preprocess::whole(normalisation)
        })
    }

    /// What a file of weights means that says nothing of it: the whole image as it is stored, normalised by the training
    /// images at hand.
    ///
    /// # Errors
    /// As [`Dataset::preprocess_for`].
    pub fn preprocess_unsaid(&self, space: &SearchSpace) -> Result<Preprocess> {
        Ok(Preprocess::unsaid(self.counted(space.input_channels(), Grey::Rec709)?))
    }

    /// Mean and deviation of the training images in so many channels.
    fn counted(&self, channels: usize, grey: Grey) -> Result<Normalisation> {
        let wrong = || {
            let expected = "1 or 3, or those of the images";
            Error::invalid(format!("data {}", self.name()), "channels", expected, channels)
        };
        match (&self.splits.train, &self.facts.sums) {
            (Images::Pixels(set), _) => {
                let set = set.with_channels(channels, grey).ok_or_else(wrong)?;
                Ok(Normalisation::of(&set))
            }
            (Images::Files(_), Some(sums)) => sums.normalisation(channels, grey).ok_or_else(wrong),
            (Images::Files(_), None) => Err(wrong()),
        }
    }

    /// The same images as a network sees them that was made for this.
    ///
    /// # Errors
    /// If its channels cannot be made of those of the images.
    pub fn seen_as(&self, preprocess: Preprocess) -> Result<Self> {
        let (place, decoding) = (format!("data {}", self.name()), preprocess.decoding());
        preprocess.check(&place)?;
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
    pub fn labelled_as(&self, classes: &[String]) -> Result<Self> {
        if self.classes == classes {
            return Ok(self.clone());
        }
        let place = || format!("data {} for the network", self.name());
        if classes.len() != self.classes.len() {
            return Err(Error::invalid(place(), "classes", classes.len(), self.classes.len()).and_then_do(
                "give images of its classes, or make a new classifier: `supernet train --start` or `finetune --new-head`",
            ));
        }
        let numbered = numbered_classes(classes.len());
        let numbers = self.classes == numbered || classes == numbered;
        let at: BTreeMap<&String, u32> = match numbers && !share_names(&self.classes, classes) {
            // numbers instead of names say the order
            true => self.classes.iter().zip(0..).collect(),
            false => classes.iter().zip(0..).collect(),
        };
        let labels = self.classes.iter().enumerate().map(|(index, name)| {
            at.get(name).copied().ok_or_else(|| {
                let missing = classes.iter().find(|class| !self.classes.contains(class));
                let expected =
                    missing.map_or("another".to_string(), |class| format!("`{class}` or another of its"));
                Error::invalid(place(), format!("class {}", index + 1), expected, format!("`{name}`"))
                    .and_then_do("name the classes as the network does")
            })
        });
        let labels = labels.collect::<Result<Vec<u32>>>()?;
        let splits = Splits {
            train: self.splits.train.relabelled(&labels),
            val: self.splits.val.relabelled(&labels),
            test: self.splits.test.as_ref().map(|images| images.relabelled(&labels)),
        };
        Ok(Self { splits, classes: classes.to_vec(), looked_at: OnceLock::new(), ..self.clone() })
    }

    /// The same with at most so many validation images, drawn with a constant seed: a quicker, coarser judgement.
    #[must_use]
    pub fn with_val_images(&self, most: usize) -> Self {
        let count = self.val().len();
        if most >= count {
            return self.clone();
        }
        let mut places = permutation(count, &mut rng_for("validation images", 0, &[count as u64]));
        places.truncate(most.max(1));
        places.sort_unstable();
        let splits = Splits { val: self.splits.val.only(&places), ..self.splits.clone() };
        Self { splits, ..self.clone() }
    }

    pub(super) fn told_by(self, told_by: String, flip_by_name: bool) -> Self {
        Self { told_by, flip_by_name, ..self }
    }

    pub(super) fn with_val_from(self, val_from: &'static str) -> Self {
        Self { val_from, ..self }
    }

    /// What it is, in a line or two: numbers of images and classes, where validation images come from, and what the names
    /// of the classes and the flip were taken from.
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
        let (train, val, classes) = (self.train().len(), self.val().len(), self.classes.len());
        let from = if self.val_from.is_empty() { String::new() } else { format!(" ({})", self.val_from) };
        let looked_at = self.looked_at.get().map(|(images, _)| images);
        let test = match (self.splits.test.as_ref().or(looked_at), &self.late_test) {
            (Some(images), _) => format!("{} test", images.len()),
            (None, Some(_)) => "test not opened".to_string(),
            (None, None) => "no test".to_string(),
        };
        format!("{train} train, {val} val{from}, {test} images of {classes} classes")
    }

    /// What the names of the classes and the flip were taken from, in words; empty where the data set needs no telling.
    pub fn names_and_flip_from(&self) -> &str {
        &self.told_by
    }

    pub(crate) fn flip_by_name(&self) -> bool {
        self.flip_by_name
    }

    pub(super) fn with_late_test(self, late_test: Option<PathBuf>) -> Self {
        Self { late_test, ..self }
    }

    pub(super) fn with_skipped(self, skipped: Vec<Skipped>) -> Self {
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
        let looked = folder::open_test(folder, &self.classes, self.preprocess.decoding())?;
        Ok(&self.looked_at.get_or_init(|| looked).0)
    }

    /// How a network sees the images.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Mean and deviation that they are normalised by.
    pub fn normalisation(&self) -> &Normalisation {
        &self.preprocess.normalisation
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

    /// Whether the images have the classes that a space is made for. (Channels follow the space: grey becomes three equal
    /// ones, colours become grey.)
    ///
    /// # Errors
    /// Says how many there are, and should be.
    pub fn check_fits(&self, space: &SearchSpace) -> Result<()> {
        let (expected, got) = (space.classes(), self.classes().len());
        if expected == got {
            return Ok(());
        }
        let place = format!("data {} for space {}", self.name(), space.name());
        let advice = "give --start FILE, which makes a classifier for other classes from trained weights, choose another \
                      space, or write one in TOML (`supernet space tiny --toml` shows the form)";
        Err(Error::invalid(place, "classes", expected, got).and_then_do(advice))
    }
}

fn share_names(one: &[String], other: &[String]) -> bool {
    let names: BTreeSet<_> = one.iter().collect();
    other.iter().any(|name| names.contains(name))
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
