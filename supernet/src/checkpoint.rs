//! Shared weights and the state of a training in one safetensors file.
//!
//! A *supernet* holds the weights of every sub-network; a *teacher* is the same after the full phase; a
//! *checkpoint* holds the optimizer's velocities and the next step besides. The space lies in the file, so that
//! whoever has the file needs nothing else.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::data::Dataset;
use crate::document::check_version;
use crate::elastic::SharedWeights;
use crate::error::{Error, Result};
use crate::file;
use crate::space::SearchSpace;
use crate::tensor_file;

/// Version of the form that this code writes and reads.
const VERSION: u32 = 1;

/// Prefix of the velocities' names.
const VELOCITY: &str = "velocity.";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Weights of a finished training.
    Supernet,
    /// Weights after the full phase.
    Teacher,
    /// Weights, velocities and the next step.
    Checkpoint,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of the tool that wrote the file.
    pub tool: String,
    /// Kernels that computed the weights; other kernels round differently.
    pub kernels: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Name and hash of the training data.
    pub data: String,
    /// Hash of the plan: phases, batch, learning rates.
    pub plan: String,
    /// Steps taken so far.
    pub step: u64,
    /// Hash of the teacher's file, once there is one.
    pub teacher: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: Kind,
    version: u32,
    space: SearchSpace,
    provenance: Provenance,
}

/// Weights with their space and their origin.
pub struct Supernet {
    /// What can be chosen.
    pub space: SearchSpace,
    /// The shared weights.
    pub weights: SharedWeights,
    /// Where they come from.
    pub provenance: Provenance,
    /// blake3 of the file, in hexadecimal.
    pub hash: String,
}

/// State of a training between two steps.
pub struct Checkpoint {
    /// Weights, and the next step in the provenance.
    pub supernet: Supernet,
    /// The optimizer's velocity of each weight.
    pub velocities: BTreeMap<String, Tensor>,
}

/// Writes weights without training state.
///
/// # Errors
/// If the file cannot be written; an old one is then still there.
pub fn write_weights(
    path: &Path,
    kind: Kind,
    space: &SearchSpace,
    weights: &SharedWeights,
    provenance: Provenance,
) -> Result<()> {
    let document = Document { kind, version: VERSION, space: space.clone(), provenance };
    tensor_file::write(path, weights.tensors(), &document)
}

/// Writes weights and training state.
///
/// # Errors
/// If the file cannot be written; an old one is then still there.
pub fn write_checkpoint(
    path: &Path,
    space: &SearchSpace,
    weights: &SharedWeights,
    velocities: &BTreeMap<String, Tensor>,
    provenance: Provenance,
) -> Result<()> {
    let mut tensors = weights.tensors().clone();
    tensors.extend(velocities.iter().map(|(name, tensor)| (format!("{VELOCITY}{name}"), tensor.clone())));
    let document = Document { kind: Kind::Checkpoint, version: VERSION, space: space.clone(), provenance };
    tensor_file::write(path, &tensors, &document)
}

impl Supernet {
    /// Whether these are the images that the weights were trained on; on others accuracy means little.
    pub fn trained_on(&self, dataset: &Dataset) -> bool {
        // a folder may have been renamed since
        self.provenance.data.rsplit(' ').next() == Some(dataset.hash())
    }

    /// Reads a supernet or a teacher.
    ///
    /// # Errors
    /// If the file is broken, of another kind or version, or its tensors are not its space's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = file::read(path)?;
        Self::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// As [`Supernet::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let (supernet, kind, velocities) = read(place, bytes)?;
        if kind == Kind::Checkpoint || !velocities.is_empty() {
            return Err(Error::invalid(place, "kind", "a supernet", "a training's checkpoint")
                .and_then_do("finish the training with `supernet train --resume`"));
        }
        Ok(supernet)
    }
}

impl Checkpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file is broken, of another kind or version, or its tensors are not its space's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = file::read(path)?;
        Self::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let (supernet, kind, velocities) = read(place, bytes)?;
        if kind != Kind::Checkpoint {
            return Err(Error::invalid(place, "kind", "a checkpoint", format!("{kind:?}")));
        }
        let checked = SharedWeights::from_tensors(&supernet.space, velocities, place)?;
        Ok(Self { supernet, velocities: checked.tensors().clone() })
    }
}

fn read(place: &str, bytes: &[u8]) -> Result<(Supernet, Kind, BTreeMap<String, Tensor>)> {
    let file = tensor_file::from_bytes(place, bytes)?;
    let document = read_document(place, &file.document)?;
    let (mut weights, mut velocities) = (BTreeMap::new(), BTreeMap::new());
    for (name, tensor) in file.tensors {
        match name.strip_prefix(VELOCITY) {
            Some(name) => velocities.insert(name.to_string(), tensor),
            None => weights.insert(name, tensor),
        };
    }
    let Document { kind, space, provenance, .. } = document;
    let weights = SharedWeights::from_tensors(&space, weights, place)?;
    Ok((Supernet { space, weights, provenance, hash: file.hash }, kind, velocities))
}

fn read_document(place: &str, text: &str) -> Result<Document> {
    #[derive(Deserialize)]
    struct Front {
        version: u32,
    }
    let unreadable = |error| Error::invalid(place, "metadata", "a supernet's", error);
    let front: Front = serde_json::from_str(text).map_err(unreadable)?;
    check_version(place, front.version, VERSION)?;
    serde_json::from_str(text).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng_for;
    use crate::space::preset;

    fn provenance() -> Provenance {
        Provenance {
            tool: "0.1.0".to_string(),
            kernels: "reference".to_string(),
            seed: 7,
            data: "digits".to_string(),
            plan: "p".to_string(),
            step: 12,
            teacher: None,
        }
    }

    #[test]
    fn each_kind_round_trips_and_refuses_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let velocities = weights.zeros_like().expect("zeros");
        let [plain, full] = ["plain", "full"].map(|name| folder.path().join(name));
        write_weights(&plain, Kind::Supernet, &space, &weights, provenance()).expect("written");
        write_checkpoint(&full, &space, &weights, &velocities, provenance()).expect("written");
        let supernet = Supernet::read(&plain).expect("read");
        assert_eq!((&supernet.space, &supernet.provenance), (&space, &provenance()));
        let checkpoint = Checkpoint::read(&full).expect("read");
        assert_eq!(checkpoint.velocities.len(), velocities.len());
        let sum = |tensors: &BTreeMap<String, Tensor>| {
            tensors
                .values()
                .map(|t| t.sum_all().and_then(|s| s.to_scalar::<f32>()).expect("a sum"))
                .sum::<f32>()
        };
        assert_eq!(sum(supernet.weights.tensors()), sum(checkpoint.supernet.weights.tensors()));
        let error = Supernet::read(&full).err().expect("refused").to_string();
        assert!(error.contains("supernet train --resume"), "{error}");
        assert!(Checkpoint::read(&plain).is_err());
    }
}
