//! An exported network on disk: `config.json` and `model.safetensors`. Loads without the supernet.
//!
//! The weights bear the names of the static networks in PyTorch's `ofa` package, batch norm statistics included;
//! `config.json` has their arch, their input and their origin.

mod evaluate;
mod origin;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::document;
use base::file::{self, write_atomically};
use candle_core::Tensor;
use kernels::Backend;
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, LayerSpec, SearchSpace};

pub use origin::{FineTuned, FineTunedFrom, MeasuredAccuracy, ModelOrigin, SelectedOn, StatisticsOrigin};

use crate::data::{Dataset, Filter, Grey, Normalization, Orient, PixelKind, Preprocess, Resize};
use crate::elastic::{running_names, statistics_to_tensors};
use crate::error::{Error, Result};
use crate::nn::{MapSource, Network, Source, Statistics};
use crate::tensor_file;

/// The `kind` in both files.
const KIND: &str = "model";
/// Version of the form that an exported sub-network is written in.
const VERSION: u32 = 1;
/// Version of the form of a network that was fine-tuned since: it says so, which older readers must not miss.
const FINE_TUNED_VERSION: u32 = 2;
/// Version of the form with the preprocessing of images, fine-tuned or not.
const SAID_VERSION: u32 = 3;
/// Version of the form of a network that takes floats, which older readers would take for pixels of 8 bits.
const FLOATS_VERSION: u32 = 4;
/// All that this code reads.
const VERSIONS: &[u32] = &[VERSION, FINE_TUNED_VERSION, SAID_VERSION, FLOATS_VERSION];

/// The images that the network takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Channels of an image.
    pub channels: usize,
    /// Height and width of an image, in pixels: a number where both are the same.
    pub resolution: Extent,
    /// Mean of each channel, of bytes / 255 or of floats as they are, to subtract.
    pub mean: Vec<f32>,
    /// Deviation of each channel, to divide by.
    pub std: Vec<f32>,
    /// Orientation of images; this and the next three fields are all present or all absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orient: Option<Orient>,
    /// Formula of grey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grey: Option<Grey>,
    /// The shown part of an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Resampling filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Kind of the values of an image.
    #[serde(default, skip_serializing_if = "PixelKind::is_bytes")]
    pub values: PixelKind,
}

impl Input {
    /// Of a network at this resolution.
    pub fn new(resolution: impl Into<Extent>, preprocess: &Preprocess) -> Self {
        let Preprocess { orient, grey, resize, filter, values, normalization } = preprocess;
        let unsaid = *preprocess == Preprocess::unsaid(normalization.clone());
        Self {
            channels: normalization.channels(),
            resolution: resolution.into(),
            mean: normalization.mean().to_vec(),
            std: normalization.std().to_vec(),
            orient: (!unsaid).then_some(*orient),
            grey: (!unsaid).then_some(*grey),
            resize: (!unsaid).then_some(*resize),
            filter: (!unsaid).then_some(*filter),
            values: *values,
        }
    }

    /// The preprocessing of images; `place` names the file.
    ///
    /// # Errors
    /// If mean or deviation is invalid, or some of the fields that belong together are missing.
    pub fn preprocess(&self, place: &str) -> Result<Preprocess> {
        let normalization = Normalization::new(self.mean.clone(), self.std.clone());
        let normalization = normalization.map_err(|error| error.in_place(place))?;
        let preprocess = match (self.orient, self.grey, self.resize, self.filter) {
            (None, None, None, None) if self.values.is_bytes() => Preprocess::unsaid(normalization),
            (Some(orient), Some(grey), Some(resize), Some(filter)) => {
                Preprocess { orient, grey, resize, filter, values: self.values, normalization }
            }
            _ => {
                let expected = "all of orient, grey, resize and filter, or none";
                return Err(Error::invalid(place, "input", expected, "some"));
            }
        };
        preprocess.check(place)?;
        Ok(preprocess)
    }

    fn is_said(&self) -> bool {
        self.orient.is_some()
    }
}

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    kind: String,
    version: u32,
    /// The sub-network.
    pub arch: Arch,
    /// The space that it is of.
    pub space: SearchSpace,
    /// The images that the network takes.
    pub input: Input,
    /// Names of the classes, in the order of the scores.
    pub classes: Vec<String>,
    /// blake3 of `model.safetensors`.
    pub model_hash: String,
    /// blake3 of each further file, for programs that are not ours, by its name in the folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Where it comes from.
    pub origin: ModelOrigin,
    /// Values that may differ between equal exports, such as dates; no hash covers them.
    pub run: BTreeMap<String, serde_json::Value>,
}

/// The document inside `model.safetensors`: enough to identify the file without its folder.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelDocument {
    kind: String,
    version: u32,
    arch: Arch,
    space: SearchSpace,
    supernet: String,
    /// blake3 of the weights that the last fine-tuning began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fine_tuned_from: Option<String>,
}

/// An exported network.
pub struct ModelFolder {
    /// Content of `config.json`.
    pub config: ModelConfig,
    /// The weights and statistics by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// All that `config.json` says of a network before it is written.
pub struct ModelDescription<'a> {
    /// The space that the network is of.
    pub space: &'a SearchSpace,
    /// The network's choices.
    pub arch: &'a Arch,
    /// The images that it takes.
    pub input: Input,
    /// Names of its classes.
    pub classes: Vec<String>,
    /// Where it comes from.
    pub origin: ModelOrigin,
}

/// Path of the configuration in a folder.
pub fn config_path(folder: &Path) -> PathBuf {
    folder.join("config.json")
}

/// Path of the weights in a folder.
pub fn weights_path(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

impl ModelFolder {
    /// A network to be written; its hash is made here.
    ///
    /// # Errors
    /// If a tensor is not f32.
    pub fn new(description: ModelDescription, tensors: BTreeMap<String, Tensor>) -> Result<Self> {
        let ModelDescription { space, arch, input, classes, origin } = description;
        let mut folder = Self {
            config: ModelConfig {
                kind: KIND.to_string(),
                version: version_of(&input, &origin),
                arch: arch.clone(),
                space: space.clone(),
                input,
                classes,
                model_hash: String::new(),
                files: BTreeMap::new(),
                origin,
                run: BTreeMap::new(),
            },
            tensors,
        };
        folder.config.model_hash = blake3::hash(&folder.weights_bytes()?).to_hex().to_string();
        Ok(folder)
    }

    fn weights_bytes(&self) -> Result<Vec<u8>> {
        let ModelConfig { arch, space, input, origin, .. } = &self.config;
        let document = ModelDocument {
            kind: KIND.to_string(),
            version: version_of(input, origin),
            arch: arch.clone(),
            space: space.clone(),
            supernet: origin.supernet.clone(),
            fine_tuned_from: origin.fine_tuned.last().map(|last| last.from.model.clone()),
        };
        tensor_file::to_bytes(Path::new("model.safetensors"), &self.tensors, &document)
    }

    /// Writes both files into a folder that is there.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_atomically(&weights_path(folder), &self.weights_bytes()?)?;
        let value = serde_json::to_value(&self.config).expect("plain data");
        let text = format!("{value:#}\n");
        Ok(write_atomically(&config_path(folder), text.as_bytes())?)
    }

    /// Reads a folder and checks that its files belong together.
    ///
    /// # Errors
    /// If a file is missing, broken, of another version, or changed since the export.
    pub fn read(folder: &Path) -> Result<Self> {
        let model = Self::open(folder)?;
        let path = weights_path(folder);
        let hash = tensor_file::hash(&path)?;
        if hash != model.config.model_hash {
            return Err(Error::invalid(path.display(), "blake3", &model.config.model_hash, hash)
                .and_then_do("the file was changed after the export; export again"));
        }
        model.check_weights(&path.display().to_string())?;
        Ok(model)
    }

    /// Whether the tensors are those of the sub-network, all and no others, with variances that can be.
    ///
    /// # Errors
    /// Names the tensor; `place` says whose it is.
    pub fn check_weights(&self, place: &str) -> Result<()> {
        let layers = self.config.space.lower(&self.config.arch)?;
        let mut wanted: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for spec in layers.iter().flat_map(LayerSpec::weights) {
            for name in running_names(&spec) {
                wanted.insert(name, spec.shape.clone());
            }
            wanted.insert(spec.name, spec.shape);
        }
        for (name, shape) in &wanted {
            let expected = || format!("a tensor {shape:?}");
            let tensor =
                self.tensors.get(name).ok_or_else(|| Error::invalid(place, name, expected(), "none"))?;
            if tensor.dims() != shape.as_slice() {
                return Err(Error::invalid(place, name, expected(), format!("{:?}", tensor.dims())));
            }
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            let negative = values.into_iter().find(|value| *value < 0.0);
            if let Some(value) = negative.filter(|_| name.ends_with("running_var")) {
                return Err(Error::invalid(place, name, "variances of at least 0", value));
            }
        }
        match self.tensors.keys().find(|name| !wanted.contains_key(*name)) {
            Some(name) => Err(Error::invalid(place, name, "no such tensor in this sub-network", "one")),
            None => Ok(()),
        }
    }

    /// Reads a folder without checking whether its weights were changed: for callers that compare them.
    ///
    /// # Errors
    /// If a file is missing, broken or of another version.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = config_path(folder);
        let weights = weights_path(folder);
        let text = file::read_text(&config)?;
        let config = ModelConfig::from_json(&config.display().to_string(), &text)?;
        let bytes = file::read(&weights)?;
        Self::from_parts(config, &weights.display().to_string(), &bytes)
    }

    /// A folder of a configuration and the bytes of its weights; `place` names them in messages.
    ///
    /// # Errors
    /// If the weights are broken, of another version, or another sub-network's.
    pub fn from_parts(config: ModelConfig, place: &str, bytes: &[u8]) -> Result<Self> {
        let file = tensor_file::from_bytes(place, bytes)?;
        let form = "the metadata of a model's weights";
        let weights: ModelDocument = document::read_one_of(place, &file.document, KIND, VERSIONS, form)?;
        if (&weights.arch, &weights.space) != (&config.arch, &config.space) {
            let named = |arch: &Arch, space: &SearchSpace| format!("{arch} of space {}", space.name());
            let expected = named(&config.arch, &config.space);
            let got = named(&weights.arch, &weights.space);
            return Err(Error::invalid(place, "sub-network", expected, got)
                .and_then_do("config.json belongs to other weights; export again"));
        }
        check_form(place, weights.version, "fine_tuned_from", weights.fine_tuned_from.is_some())?;
        Ok(Self { config, tensors: file.tensors })
    }

    /// The network, ready for [`Pass::Inference`](crate::nn::Pass::Inference).
    ///
    /// # Errors
    /// If a weight is missing or has another shape than the sub-network's.
    pub fn network(&self, backend: &Backend) -> Result<Network> {
        let layers = self.config.space.lower(&self.config.arch)?;
        let builder = MapSource::builder(self.tensors.clone());
        Network::new(&layers, &Source::new(builder, backend, self.config.space.batch_norm_epsilon()))
    }

    /// The preprocessing of images.
    ///
    /// # Errors
    /// Never for a folder that was read: it was checked.
    pub fn preprocess(&self) -> Result<Preprocess> {
        self.config.input.preprocess("config.json")
    }

    /// The images as this network sees them, with labels in the order of its scores.
    ///
    /// # Errors
    /// If the classes are not the network's, or the channels that it takes cannot be made of those of the images.
    pub fn see(&self, dataset: &Dataset) -> Result<Dataset> {
        dataset.labeled_as(&self.config.classes)?.seen_as(self.preprocess()?)
    }
}

impl ModelConfig {
    /// Reads the text of a `config.json`; `place` names it in messages.
    ///
    /// # Errors
    /// If it is broken, of another kind or version, or its parts contradict each other.
    pub fn from_json(place: &str, text: &str) -> Result<Self> {
        let advice = "give a folder that `extract export` wrote";
        let form = "a model's configuration in JSON";
        let config: Self =
            document::read_one_of(place, text, KIND, VERSIONS, form).map_err(|error| error.or_do(advice))?;
        let fine_tuned = &config.origin.fine_tuned;
        check_form(place, config.version, "origin.fine_tuned", !fine_tuned.is_empty())?;
        config.space.check(&config.arch).map_err(|error| error.in_place(place))?;
        let Input { channels, resolution, mean, std, .. } = &config.input;
        let checks = [
            ("input.channels", config.space.input_channels(), *channels),
            ("input.mean", *channels, mean.len()),
            ("input.std", *channels, std.len()),
            ("classes", config.space.classes(), config.classes.len()),
        ];
        if config.arch.resolution != *resolution {
            return Err(Error::invalid(place, "input.resolution", config.arch.resolution, resolution));
        }
        for (field, expected, got) in checks {
            if expected != got {
                return Err(Error::invalid(place, field, expected, got));
            }
        }
        if let Some(name) = config.files.keys().find(|name| !is_plain_name(name)) {
            return Err(Error::invalid(place, "files", "names of files in the folder", name));
        }
        config.input.preprocess(place)?;
        if config.input.values.is_bytes() == (config.version == FLOATS_VERSION) {
            let field = format!("input.values in version {}", config.version);
            let floats = "floats";
            let bytes = "no such field";
            let (expected, got) =
                if config.version == FLOATS_VERSION { (floats, bytes) } else { (bytes, floats) };
            return Err(Error::invalid(place, field, expected, got));
        }
        if config.input.is_said() != (config.version >= SAID_VERSION) {
            let expected = if config.input.is_said() { "none" } else { "orient, grey, resize and filter" };
            let field = format!("input in version {}", config.version);
            return Err(Error::invalid(
                place,
                field,
                expected,
                if config.input.is_said() { "some" } else { "none" },
            ));
        }
        check_share(place, "origin.measured", config.origin.measured.as_ref())?;
        for FineTuned { from, .. } in fine_tuned {
            check_share(place, "origin.fine_tuned.from.measured", from.measured.as_ref())?;
            check_share(place, "origin.fine_tuned.from.counted", Some(&from.counted))?;
        }
        Ok(config)
    }
}

/// The version that a network of this input and origin is written in.
fn version_of(input: &Input, origin: &ModelOrigin) -> u32 {
    if !input.values.is_bytes() {
        return FLOATS_VERSION;
    }
    match (input.is_said(), origin.fine_tuned.is_empty()) {
        (true, _) => SAID_VERSION,
        (false, true) => VERSION,
        (false, false) => FINE_TUNED_VERSION,
    }
}

/// Whether a document says that its network was fine-tuned in the version that has a word for it, and in no other.
fn check_form(place: &str, version: u32, field: &str, fine_tuned: bool) -> Result<()> {
    if version >= SAID_VERSION || fine_tuned == (version == FINE_TUNED_VERSION) {
        return Ok(());
    }
    let expected = if fine_tuned { "none" } else { "one" };
    let got = if fine_tuned { "one" } else { "none" };
    Err(Error::invalid(place, field, format!("{expected} in version {version}"), got))
}

fn check_share(place: &str, field: &str, accuracy: Option<&MeasuredAccuracy>) -> Result<()> {
    match accuracy {
        Some(MeasuredAccuracy { top1, .. }) if !(0.0..=1.0).contains(top1) => {
            Err(Error::invalid(place, format!("{field}.top1"), "a share from 0 to 1", top1))
        }
        _ => Ok(()),
    }
}

/// Whether a name is of a file that lies in the folder itself.
fn is_plain_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

/// Copies of the weights, and the statistics under their names in PyTorch: the tensors of a [`ModelFolder`].
///
/// # Errors
/// If a tensor cannot be copied, or statistics are not `[2, C]`.
pub fn with_statistics(
    weights: &BTreeMap<String, Tensor>,
    statistics: &Statistics,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (name, tensor) in weights {
        tensors.insert(name.clone(), tensor.copy()?.contiguous()?);
    }
    tensors.extend(statistics_to_tensors(statistics)?);
    Ok(tensors)
}
