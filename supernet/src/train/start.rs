//! The first weights of a run: fresh, or those of an imported supernet, an earlier run or a teacher, for the same
//! classes or for others.

use std::path::Path;

use base::random::rng_for;
use kernels::Backend;
use network::checkpoint::{StartedFrom, Supernet};
use network::data::{Dataset, Normalization, PixelKind, Preprocess, Resize};
use network::elastic::SharedWeights;
use space::{Arch, SearchSpace};

use super::recipe::Recipe;
use crate::error::{Error, Result};

/// The first weights of a run, as given.
pub enum Start {
    /// Fresh weights, drawn from the seed.
    Fresh,
    /// Weights of a file.
    Supernet(Box<Given>),
}

/// Weights read from a file.
pub struct Given {
    supernet: Supernet,
    /// Name of the file, for messages.
    place: String,
}

/// The first weights of a run, and their origin for its files.
pub(crate) struct First {
    pub weights: SharedWeights,
    /// Origin of the weights, unless they are fresh.
    pub from: Option<StartedFrom>,
}

impl Start {
    /// Reads a supernet, a teacher or a checkpoint; from a run's folder its supernet, else its teacher, else its
    /// checkpoint.
    ///
    /// # Errors
    /// If there is no such file, or it is broken.
    pub fn read(path: &Path) -> Result<Self> {
        let names = ["supernet.safetensors", "teacher.safetensors", "checkpoint.safetensors"];
        let file = match path.is_dir() {
            true => names.map(|name| path.join(name)).into_iter().find(|file| file.is_file()),
            false => Some(path.to_path_buf()),
        };
        let file = file.ok_or_else(|| {
            Error::invalid(path.display(), "files", names.join(" or "), "none")
                .and_then_do("give a file of weights")
        })?;
        let place = file.display().to_string();
        Ok(Self::Supernet(Box::new(Given { supernet: Supernet::read_any(&file)?, place })))
    }

    /// The start of a run that trains one sub-network of `space` alone: of given weights those of the sub-network, made by
    /// the kernels of `backend` on the CPU.
    ///
    /// # Errors
    /// If the weights are of another space, classes and resolutions apart, or the sub-network does not lie in it.
    pub fn only(self, space: &SearchSpace, arch: &Arch, backend: &Backend) -> Result<Self> {
        self.space_for(Some(space.clone()), space.classes())?;
        let Self::Supernet(given) = self else { return Ok(Self::Fresh) };
        let Given { supernet, place } = *given;
        // a network takes inputs of any size, so that the weights' space need not list the resolution
        let whole = supernet.space.at_resolutions_of(space)?;
        let weights = supernet.weights.only(&whole, arch, &backend.on_cpu())?;
        let space = whole.only(arch)?;
        let supernet = Supernet { space, weights, statistics: None, ..supernet };
        Ok(Self::Supernet(Box::new(Given { supernet, place })))
    }

    /// The space of a run on images of `classes` classes: the `given` space, or that of the weights with this number
    /// of classes. A given space may differ from that of the weights in classes and resolutions only.
    ///
    /// # Errors
    /// If the given space differs in something else, or there is neither.
    pub fn space_for(&self, given: Option<SearchSpace>, classes: usize) -> Result<SearchSpace> {
        match (self, given) {
            (Self::Supernet(weights), given) => weights.space_for(given, classes),
            (Self::Fresh, Some(given)) => Ok(given),
            (Self::Fresh, None) => {
                Err(Error::invalid("start", "space", "one to draw fresh weights for", "none")
                    .and_then_do("give a space, or weights to start from"))
            }
        }
    }

    /// The images as the supernet sees them: preprocessed as for the given weights, or as suits the space; `resize`
    /// overrides the resizing. If the classes are those of the weights, they are labeled in the weights' order.
    ///
    /// # Errors
    /// If the channels that the network takes cannot be made of those of the images.
    pub fn see(&self, dataset: &Dataset, space: &SearchSpace, resize: Option<Resize>) -> Result<Dataset> {
        let preprocess = match self {
            Self::Fresh => dataset.preprocess_for(space)?,
            Self::Supernet(given) => given.preprocess(dataset)?,
        };
        let preprocess = match resize {
            Some(resize) => Preprocess { resize, ..preprocess },
            None => preprocess,
        };
        preprocess.check(&format!("data {}", dataset.name()))?;
        let seen = dataset.seen_as(preprocess)?;
        let classes = self.given().and_then(|supernet| supernet.interface.classes.as_ref());
        Ok(classes.and_then(|classes| seen.labeled_as(classes).ok()).unwrap_or(seen))
    }

    /// The recipe adapted to this start, for images from [`Start::see`].
    pub(super) fn recipe(&self, recipe: &Recipe, dataset: &Dataset) -> Recipe {
        match self {
            Self::Fresh => recipe.from_scratch(),
            Self::Supernet(given) => recipe.starting(!given.keeps_classifier(dataset)),
        }
    }

    /// The first weights; given weights get a fresh classifier if the classes of the images differ from theirs.
    pub(crate) fn weights(&self, space: &SearchSpace, dataset: &Dataset, seed: u64) -> Result<First> {
        let Self::Supernet(given) = self else {
            let weights = SharedWeights::new(space, &mut rng_for("weights", seed, &[]))?;
            return Ok(First { weights, from: None });
        };
        let fresh_classifier = !given.keeps_classifier(dataset);
        let mut weights = given.supernet.weights.detached()?;
        if fresh_classifier {
            weights = weights.with_fresh_classifier(space, &mut rng_for("classifier", seed, &[]))?;
        }
        let from = StartedFrom { weights: given.supernet.hash.clone(), fresh_classifier };
        Ok(First { weights, from: Some(from) })
    }

    /// The supernet that was read, if any.
    pub fn given(&self) -> Option<&Supernet> {
        match self {
            Self::Fresh => None,
            Self::Supernet(given) => Some(&given.supernet),
        }
    }
}

impl Given {
    fn space_for(&self, given: Option<SearchSpace>, classes: usize) -> Result<SearchSpace> {
        let own = &self.supernet.space;
        let Some(given) = given else { return Ok(own.with_classes(classes)?) };
        let adapted = own.with_classes(given.classes())?;
        if adapted.fingerprint_at_any_resolution() == given.fingerprint_at_any_resolution() {
            return Ok(given);
        }
        let expected =
            format!("the space of {}, {}, except for classes and resolutions", self.place, own.name());
        let place = format!("space {}", given.name());
        Err(Error::invalid(place, "choices and sizes", expected, "others")
            .and_then_do("leave out --space to use that of the weights"))
    }

    /// The preprocessing that the weights were trained with.
    fn preprocess(&self, dataset: &Dataset) -> Result<Preprocess> {
        let space = &self.supernet.space;
        Ok(match &self.supernet.interface.preprocess {
            Some(preprocess) => preprocess.clone(),
            None if self.supernet.is_imported() && space.input_channels() == 3 => {
                Preprocess::photographs(Normalization::imagenet())
            }
            None if self.supernet.is_imported() => dataset.preprocess_unsaid(space)?,
            // trainings older than this field used bytes
            None => Preprocess { values: PixelKind::Bytes, ..dataset.preprocess_unsaid(space)? },
        })
    }

    /// Whether the images (from [`Start::see`]) have the network's classes, so that its classifier is kept.
    fn keeps_classifier(&self, dataset: &Dataset) -> bool {
        match &self.supernet.interface.classes {
            Some(classes) => dataset.classes() == classes,
            None => dataset.classes().len() == self.supernet.space.classes(),
        }
    }
}
