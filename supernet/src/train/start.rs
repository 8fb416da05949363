//! Weights that a run begins with: an imported supernet, an earlier run, a teacher; for the same classes or for others.

use std::path::Path;

use base::random::rng_for;
use network::checkpoint::Supernet;
use network::data::{Dataset, Normalisation, Preprocess};
use network::elastic::SharedWeights;
use space::SearchSpace;

use crate::error::{Error, Result};

/// What a run begins with.
pub struct Start {
    supernet: Supernet,
    /// Name of the file, for messages.
    place: String,
}

impl Start {
    /// Reads a supernet, a teacher or a checkpoint; of a run's folder its supernet, else its teacher, else its checkpoint.
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
        Ok(Self { supernet: Supernet::read_any(&file)?, place })
    }

    /// The supernet that was read.
    pub fn supernet(&self) -> &Supernet {
        &self.supernet
    }

    /// The space of a run on images of so many classes: the one that is `given`, which may differ in classes and resolutions only, or
    /// that of the weights, with these classes.
    ///
    /// # Errors
    /// If the given space differs in something else.
    pub fn space_for(&self, given: Option<&SearchSpace>, classes: usize) -> Result<SearchSpace> {
        let own = &self.supernet.space;
        let Some(given) = given else { return Ok(own.with_classes(classes)?) };
        let wanted = own.with_classes(given.classes())?;
        if wanted.fingerprint_at_any_resolution() != given.fingerprint_at_any_resolution() {
            let expected =
                format!("the space of {}, {}, but for classes and resolutions", self.place, own.name());
            return Err(Error::invalid(
                format!("space {}", given.name()),
                "choices and sizes",
                expected,
                "others",
            )
            .and_then_do("leave out --space: then it is that of the weights"));
        }
        Ok(given.clone())
    }

    /// The images as the weights were trained to see them; and whether their classes are the network's, so that its
    /// classifier stays.
    ///
    /// # Errors
    /// If the channels that the network takes cannot be made of those of the images.
    pub fn see(&self, dataset: &Dataset) -> Result<(Dataset, bool)> {
        let (space, interface) = (&self.supernet.space, &self.supernet.interface);
        let seen = dataset.seen_as(match &interface.preprocess {
            Some(preprocess) => preprocess.clone(),
            None if self.supernet.is_imported() && space.input_channels() == 3 => {
                Preprocess::photographs(Normalisation::imagenet())
            }
            None => dataset.preprocess_unsaid(space)?,
        })?;
        Ok(match &interface.classes {
            Some(classes) => match seen.labelled_as(classes) {
                Ok(labelled) => (labelled, true),
                Err(_) => (seen, false),
            },
            None => {
                let same = seen.classes().len() == space.classes();
                (seen, same)
            }
        })
    }

    /// The weights to begin with; a fresh classifier where the classes are others.
    pub(super) fn weights(
        &self,
        space: &SearchSpace,
        keeps_classifier: bool,
        seed: u64,
    ) -> Result<SharedWeights> {
        let weights = self.supernet.weights.detached()?;
        if keeps_classifier {
            return Ok(weights);
        }
        Ok(weights.with_fresh_classifier(space, &mut rng_for("classifier", seed, &[]))?)
    }
}
