//! The images that a network takes and the meaning of its scores, stored with the weights so that no data folder decides them.

use super::{Provenance, Supernet};
use crate::data::{Catalogue, Dataset, Normalization, PixelKind, Preprocess};
use crate::error::{Error, Result};

/// The images that a supernet takes, and the meaning of its scores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interface {
    /// Preprocessing of images; files written before 0.2 have none.
    pub preprocess: Option<Preprocess>,
    /// Names of the classes in the order of the scores; of imported weights they are not known.
    pub classes: Option<Vec<String>>,
}

impl Interface {
    /// The interface of weights trained on this data set.
    pub fn of(dataset: &Dataset) -> Self {
        Self { preprocess: Some(dataset.preprocess().clone()), classes: Some(dataset.classes().to_vec()) }
    }

    /// Checks the numbers of channels and classes; `place` names the file.
    pub(super) fn check(&self, place: &str, channels: usize, classes: usize) -> Result<()> {
        if let Some(preprocess) = &self.preprocess {
            preprocess.check(place)?;
            if preprocess.channels() != channels {
                let field = "preprocess.normalisation: channels";
                return Err(Error::invalid(place, field, channels, preprocess.channels()));
            }
        }
        match &self.classes {
            Some(names) if names.len() != classes => {
                Err(Error::invalid(place, "number of class names", classes, names.len()))
            }
            _ => Ok(()),
        }
    }
}

impl Supernet {
    /// The images as this supernet sees them, with labels in the order of its scores. A file without preprocessing means
    /// whole images as they are stored; they are normalized by the training images at hand, or where statistics of the
    /// authors' training are inherited by ImageNet's mean and deviation.
    ///
    /// # Errors
    /// If the classes are not the supernet's, or the channels that it takes cannot be made of those of the images.
    pub fn see(&self, dataset: &Dataset, inherits_statistics: bool) -> Result<Dataset> {
        dataset.check_fits(&self.space)?;
        let seen = dataset.seen_as(match &self.interface.preprocess {
            Some(preprocess) => preprocess.clone(),
            None if inherits_statistics && self.space.input_channels() == 3 => self.preprocess_alone()?,
            None if self.is_imported() => dataset.preprocess_unsaid(&self.space)?,
            // who trained before files said it saw images
            None => Preprocess { values: PixelKind::Bytes, ..dataset.preprocess_unsaid(&self.space)? },
        })?;
        self.interface.classes.as_ref().map_or(Ok(seen.clone()), |classes| seen.labeled_as(classes))
    }

    /// Whether the classes of a data set are the supernet's; known before its images are read.
    ///
    /// # Errors
    /// Says which class is missing, or how many there are.
    pub fn check_classes(&self, catalogue: &Catalogue) -> Result<()> {
        catalogue.check_fits(&self.space)?;
        self.interface.classes.as_ref().map_or(Ok(()), |classes| catalogue.check_classes(classes))
    }

    /// Preprocessing of images where there is no data set.
    ///
    /// # Errors
    /// If the file does not say it, and the network takes no color images.
    pub fn preprocess_alone(&self) -> Result<Preprocess> {
        match (&self.interface.preprocess, self.space.input_channels()) {
            (Some(preprocess), _) => Ok(preprocess.clone()),
            (None, 3) => Ok(Preprocess::unsaid(Normalization::imagenet())),
            (None, channels) => Err(Error::invalid("images", "channels", 3, channels)
                .and_then_do("say with --data which images the network takes, for their normalization")),
        }
    }

    /// The names of the classes, where they are known.
    pub fn classes(&self) -> Option<&[String]> {
        self.interface.classes.as_deref()
    }

    /// Whether another toolkit trained the weights.
    pub fn is_imported(&self) -> bool {
        matches!(self.provenance, Provenance::Imported(_))
    }
}
