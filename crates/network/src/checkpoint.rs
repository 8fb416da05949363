//! Shared weights and the state of a training in one safetensors file.
//!
//! A *supernet* holds the weights of every sub-network; a *teacher* is the same after the full phase; a
//! *checkpoint* holds the optimizer's state and the next step besides. A supernet that was imported may hold
//! statistics of its largest network's batch norms. The space lies in the file, so that the file is enough by
//! itself.

mod interface;
mod optimizer;
mod validated;

use std::collections::BTreeMap;
use std::path::Path;

use base::document::check_one_of;
use base::file;
use candle_core::Device;
use kernels::Backend;
use serde::{Deserialize, Serialize};
use space::SearchSpace;

pub use interface::Interface;
pub use optimizer::{ADAMW, AVERAGE, NESTEROV, OptimizerState, POLICY};
pub use validated::{BestValidation, ValidationProgress};

use crate::data::{Dataset, Preprocess};
use crate::elastic::{SharedWeights, is_running, statistics_from_tensors, statistics_to_tensors};
use crate::error::{Error, Result};
use crate::nn::Statistics;
use crate::pytorch::Container;
use crate::tensor_file;
use optimizer::{Found, Said};

/// Version of the form that names an optimizer, in checkpoints whose optimizer is not Nesterov's, or whose network takes
/// floats, which older readers would take for pixels of 8 bits.
const LATEST: u32 = 4;
/// Version of the form with the network's preprocessing.
const VERSION: u32 = 3;
/// Version of files without it.
const UNSAID: u32 = 2;
/// All that this code reads; the first is of before there were imported supernets.
const VERSIONS: &[u32] = &[1, UNSAID, VERSION, LATEST];

/// Kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Weights of a finished training.
    Supernet,
    /// Weights after the full phase.
    Teacher,
    /// Weights, the optimizer's state and the next step.
    Checkpoint,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Provenance {
    /// They were trained with this toolkit.
    Trained(Training),
    /// They were trained with another, and read from its file.
    Imported(ImportSource),
}

/// The training that made weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Version of the tool that wrote the file.
    pub tool: String,
    /// Kernels that computed the weights; other kernels round differently.
    #[serde(rename = "kernels")]
    pub backend: String,
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
    /// The weights that the run began with, unless they were fresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartedFrom>,
    /// Results of the validations within the phase; only in checkpoints of runs that validate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationProgress>,
}

/// Weights that a run began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartedFrom {
    /// blake3 of their file.
    pub weights: String,
    /// Whether the classifier was made afresh, for other classes than theirs.
    pub fresh_classifier: bool,
}

/// The file of imported weights. Seed, data and steps of their training are not known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportSource {
    /// Version of the tool that read the file.
    pub tool: String,
    /// The file's name, without its folder.
    pub file: String,
    /// blake3 of the file, in hexadecimal.
    pub blake3: String,
    /// Container of the file.
    pub container: Container,
    /// Kernel-transform matrices that the file held.
    pub matrices_read: usize,
    /// Matrices that are the identity, for the file held none.
    pub matrices_identity: usize,
    /// Entry of the file that was requested by name; `None` where the usual one was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// One of `provenance` and `imported` is there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    kind: Kind,
    version: u32,
    space: SearchSpace,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provenance: Option<Training>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imported: Option<ImportSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preprocess: Option<Preprocess>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    optimizer: Option<Said>,
}

impl Document {
    fn new(kind: Kind, space: &SearchSpace, provenance: Provenance, interface: &Interface) -> Self {
        let (provenance, imported) = match provenance {
            Provenance::Trained(training) => (Some(training), None),
            Provenance::Imported(imported) => (None, Some(imported)),
        };
        let Interface { preprocess, classes } = interface.clone();
        let floats = preprocess.as_ref().is_some_and(|preprocess| !preprocess.values.is_bytes());
        let version = match preprocess.is_some() || classes.is_some() {
            _ if floats => LATEST,
            true => VERSION,
            false => UNSAID,
        };
        let space = space.clone();
        let optimizer = None;
        Self { kind, version, space, provenance, imported, preprocess, classes, optimizer }
    }

    /// The document of a checkpoint, which names an optimizer that is not Nesterov's.
    fn with_optimizer(self, optimizer: &OptimizerState) -> Self {
        match optimizer.said() {
            Some(said) => Self { version: LATEST, optimizer: Some(said), ..self },
            None => self,
        }
    }

    /// Version 4 is of documents that name an optimizer or take floats, and no other is.
    fn check_version(&self, place: &str) -> Result<()> {
        let floats = self.preprocess.as_ref().is_some_and(|preprocess| !preprocess.values.is_bytes());
        match (self.version == LATEST, self.optimizer.is_some() || floats) {
            (true, false) => {
                Err(Error::invalid(place, "optimizer", "one in version 4, or values = floats", "none"))
            }
            (false, true) => {
                Err(Error::invalid(place, "version", "4 for an optimizer or floats", self.version))
            }
            _ => Ok(()),
        }
    }
}

/// Weights with their space and their origin.
pub struct Supernet {
    /// The search space.
    pub space: SearchSpace,
    /// The shared weights.
    pub weights: SharedWeights,
    /// Statistics of the largest network's batch norms; an imported supernet may have them.
    pub statistics: Option<Statistics>,
    /// Where they come from.
    pub provenance: Provenance,
    /// The images that it takes, and the meaning of its scores.
    pub interface: Interface,
    /// blake3 of the file, in hexadecimal.
    pub hash: String,
}

impl Supernet {
    /// The supernet with its weights on the device of this backend.
    ///
    /// # Errors
    /// If there is no room for them.
    pub fn on(self, backend: &Backend) -> Result<Self> {
        Ok(Self { weights: self.weights.on(backend)?, ..self })
    }
}

/// State of a training between two steps.
pub struct Checkpoint {
    /// Weights as they are so far.
    pub supernet: Supernet,
    /// The training so far, and the next step.
    pub training: Training,
    /// The optimizer's state.
    pub optimizer: OptimizerState,
}

/// Shared weights to be written, with the space and the interface that their file names.
#[derive(Clone, Copy)]
pub struct DescribedWeights<'a> {
    /// The search space.
    pub space: &'a SearchSpace,
    /// The images that the network takes, and its classes.
    pub interface: &'a Interface,
    /// The tensors.
    pub weights: &'a SharedWeights,
}

/// Writes weights without training state.
///
/// # Errors
/// If the file cannot be written; an old one is then still there.
pub fn write_weights(path: &Path, kind: Kind, described: DescribedWeights, training: Training) -> Result<()> {
    let DescribedWeights { space, interface, weights } = described;
    let document = Document::new(kind, space, Provenance::Trained(training), interface);
    tensor_file::write(path, weights.tensors(), &document)
}

/// Writes a supernet that was read from another tool's file.
///
/// # Errors
/// If the file cannot be written; an old one is then still there.
pub fn write_imported(
    path: &Path,
    described: DescribedWeights,
    statistics: Option<&Statistics>,
    imported: ImportSource,
) -> Result<()> {
    let DescribedWeights { space, interface, weights } = described;
    let mut tensors = weights.arena().on(&Device::Cpu)?.tensors().clone();
    if let Some(statistics) = statistics {
        tensors.extend(statistics_to_tensors(statistics)?);
    }
    let document = Document::new(Kind::Supernet, space, Provenance::Imported(imported), interface);
    tensor_file::write(path, &tensors, &document)
}

/// Writes weights and training state.
///
/// # Errors
/// If the file cannot be written; an old one is then still there.
pub fn write_checkpoint(
    path: &Path,
    described: DescribedWeights,
    optimizer: &OptimizerState,
    training: Training,
) -> Result<()> {
    let DescribedWeights { space, interface, weights } = described;
    let mut tensors = weights.arena().on(&Device::Cpu)?.tensors().clone();
    tensors.extend(optimizer.named());
    let document = Document::new(Kind::Checkpoint, space, Provenance::Trained(training), interface);
    tensor_file::write(path, &tensors, &document.with_optimizer(optimizer))
}

impl Supernet {
    /// Whether these are the images that the weights were trained on; on others accuracy means little. Of an imported
    /// supernet that is not known.
    pub fn trained_on(&self, dataset: &Dataset) -> Option<bool> {
        match &self.provenance {
            Provenance::Trained(training) => Some(training.trained_on(dataset)),
            Provenance::Imported(_) => None,
        }
    }

    /// The statistics of the largest network's batch norms.
    ///
    /// # Errors
    /// If the file has none.
    pub fn statistics(&self) -> Result<&Statistics> {
        self.statistics.as_ref().ok_or_else(|| {
            let got = match self.provenance {
                Provenance::Trained(_) => {
                    "none: it was trained with this toolkit, which gathers them for each export"
                }
                Provenance::Imported(_) => "none: the file that it was imported from had none",
            };
            Error::invalid("supernet", "running statistics of its batch norms", "some", got)
                .and_then_do("calibrate on images instead: leave out --inherit-bn")
        })
    }

    /// Reads a supernet or a teacher.
    ///
    /// # Errors
    /// If the file is broken, of another kind or version, or its tensors are not its space's.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = file::read(path)?;
        Self::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Reads the weights of a supernet, a teacher or a checkpoint.
    ///
    /// # Errors
    /// If the file is broken, of another kind or version, or its tensors are not its space's.
    pub fn read_any(path: &Path) -> Result<Self> {
        Ok(read(&path.display().to_string(), &file::read(path)?)?.supernet)
    }

    /// Reads a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// As [`Supernet::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let Read { supernet, kind, state, said } = read(place, bytes)?;
        if kind == Kind::Checkpoint || !state.is_empty() || said.is_some() {
            return Err(Error::invalid(place, "kind", "a supernet", "a training's checkpoint")
                .and_then_do("finish the training with `supernet train --resume`"));
        }
        Ok(supernet)
    }
}

impl Training {
    /// Whether these are the images that the weights were trained on.
    pub fn trained_on(&self, dataset: &Dataset) -> bool {
        // a folder may have been renamed since
        self.data.rsplit(' ').next() == Some(dataset.hash())
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
        let Read { supernet, kind, state, said } = read(place, bytes)?;
        if kind != Kind::Checkpoint {
            return Err(Error::invalid(place, "kind", "a checkpoint", format!("{kind:?}")));
        }
        let Provenance::Trained(training) = supernet.provenance.clone() else {
            return Err(Error::invalid(place, "provenance", "a training's", "an import's"));
        };
        let optimizer = state.checked(said, &supernet.space, training.step, place)?;
        Ok(Self { supernet, training, optimizer })
    }
}

/// Content of a file of any kind. The state of the optimizer is not checked.
struct Read {
    supernet: Supernet,
    kind: Kind,
    state: Found,
    said: Option<Said>,
}

fn read(place: &str, bytes: &[u8]) -> Result<Read> {
    let file = tensor_file::from_bytes(place, bytes)?;
    let document = read_document(place, &file.document)?;
    document.check_version(place)?;
    let mut weights = BTreeMap::new();
    let mut state = Found::default();
    let mut running = BTreeMap::new();
    for (name, tensor) in file.tensors {
        match state.take(name, tensor) {
            Some((name, tensor)) if is_running(&name) => running.insert(name, tensor),
            Some((name, tensor)) => weights.insert(name, tensor),
            None => None,
        };
    }
    let Document { kind, space, provenance, imported, preprocess, classes, optimizer: said, .. } = document;
    let interface = Interface { preprocess, classes };
    interface.check(place, space.input_channels(), space.classes())?;
    let provenance = match (provenance, imported) {
        (Some(training), None) => Provenance::Trained(training),
        (None, Some(imported)) => Provenance::Imported(imported),
        _ => return Err(Error::invalid(place, "metadata", "one of provenance and imported", "none or both")),
    };
    let weights = SharedWeights::from_tensors(&space, weights, place)?;
    let statistics = statistics_from_tensors(&space, running, place)?;
    let supernet = Supernet { space, weights, statistics, provenance, interface, hash: file.hash };
    Ok(Read { supernet, kind, state, said })
}

fn read_document(place: &str, text: &str) -> Result<Document> {
    #[derive(Deserialize)]
    struct Front {
        // another kind of file may have any version
        #[serde(rename = "kind")]
        _kind: Kind,
        version: u32,
    }
    let unreadable = |error| Error::invalid(place, "metadata", "a supernet's", error);
    let front: Front = serde_json::from_str(text).map_err(unreadable)?;
    check_one_of(place, front.version, VERSIONS)?;
    serde_json::from_str(text).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;
    use candle_core::Tensor;
    use space::preset;

    pub(super) fn training() -> Training {
        Training {
            tool: "0.1.0".to_string(),
            backend: "reference".to_string(),
            seed: 7,
            data: "digits".to_string(),
            plan: "p".to_string(),
            step: 12,
            teacher: None,
            start: None,
            validation: None,
        }
    }

    fn at_rest(weights: &SharedWeights) -> OptimizerState {
        let velocities = weights.arena().zeros_like().expect("zeros").tensors().clone();
        let tensors = [("velocity".to_string(), velocities)].into();
        OptimizerState { kind: NESTEROV.to_string(), tensors, steps: BTreeMap::new() }
    }

    /// A checkpoint of fresh weights and an optimizer's state, with something changed.
    pub(super) fn checkpoint_bytes(
        optimizer: fn(&BTreeMap<String, Tensor>) -> OptimizerState,
        change: impl Fn(&mut serde_json::Value, &mut BTreeMap<String, Tensor>),
    ) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("checkpoint");
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let state = optimizer(weights.tensors());
        let interface = Interface::default();
        let described = DescribedWeights { space: &space, interface: &interface, weights: &weights };
        write_checkpoint(&path, described, &state, training()).expect("written");
        let mut file = tensor_file::read(&path).expect("whole");
        let mut document = serde_json::from_str(&file.document).expect("JSON");
        change(&mut document, &mut file.tensors);
        tensor_file::to_bytes(&path, &file.tensors, &document).expect("bytes")
    }

    #[test]
    fn each_kind_round_trips_and_refuses_the_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let state = at_rest(&weights);
        let seen = Interface::of(&Dataset::open("digits").expect("embedded"));
        let [plain, full] = ["plain", "full"].map(|name| folder.path().join(name));
        let described = DescribedWeights { space: &space, interface: &seen, weights: &weights };
        write_weights(&plain, Kind::Supernet, described, training()).expect("written");
        write_checkpoint(&full, described, &state, training()).expect("written");
        let supernet = Supernet::read(&plain).expect("read");
        assert_eq!((&supernet.space, &supernet.provenance), (&space, &Provenance::Trained(training())));
        assert!(supernet.statistics().is_err());
        assert_eq!(supernet.interface, seen);
        let checkpoint = Checkpoint::read(&full).expect("read");
        assert_eq!(checkpoint.training, training());
        let OptimizerState { kind, tensors, steps } = &checkpoint.optimizer;
        assert_eq!((kind.as_str(), steps.len()), (NESTEROV, 0));
        assert_eq!(tensors["velocity"].len(), weights.tensors().len());
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

    #[test]
    fn an_imported_supernet_keeps_its_statistics() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("imported");
        let space = preset("tiny").expect("a preset");
        let weights = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let layers = space.lower(&space::sampler::largest(&space)).expect("legal");
        let mut statistics = Statistics::new();
        for spec in layers.iter().flat_map(space::LayerSpec::weights) {
            if let Some(norm) = spec.batch_norm() {
                let values =
                    Tensor::ones((2, spec.shape[0]), candle_core::DType::F32, &candle_core::Device::Cpu);
                statistics.insert(norm.to_string(), values.expect("a tensor"));
            }
        }
        let imported = ImportSource {
            tool: "0.1.0".to_string(),
            file: "net.pth".to_string(),
            blake3: "0".repeat(64),
            container: Container::Legacy,
            matrices_read: 0,
            matrices_identity: 4,
            key: None,
        };
        let interface = Interface::default();
        let described = DescribedWeights { space: &space, interface: &interface, weights: &weights };
        let write = |statistics: Option<&Statistics>| {
            write_imported(&path, described, statistics, imported.clone()).expect("written");
            Supernet::read(&path)
        };
        let supernet = write(Some(&statistics)).expect("read");
        assert_eq!(supernet.provenance, Provenance::Imported(imported.clone()));
        let read = supernet.statistics().expect("some");
        assert_eq!(read.keys().collect::<Vec<_>>(), statistics.keys().collect::<Vec<_>>());
        let refused = write(None).expect("read").statistics().expect_err("refused").to_string();
        assert!(refused.contains("had none; calibrate on images instead"), "{refused}");
        let (name, _) = statistics.pop_first().expect("some");
        let error = write(Some(&statistics)).err().expect("refused").to_string();
        assert!(error.contains(&format!("{name}.running_mean: expected a tensor")), "{error}");
        assert!(Checkpoint::read(&path).is_err());
    }
}
