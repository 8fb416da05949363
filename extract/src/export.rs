//! Exports a sub-network into a folder: copies the weights, gathers the statistics, and verifies everything before the
//! folder gets its name.

mod formats;
mod onnx_file;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;

use base::file::{StagedFolder, check_place, write_atomically};
use kernels::Backend;
use network::checkpoint::Supernet;
use network::data::{Dataset, Preprocess, Split};
use network::elastic::SubnetWeights;
use network::eval::{Accuracy, Calibration, Evaluator};
use network::model_folder::{
    Input, MeasuredAccuracy, ModelConfig, ModelDescription, ModelFolder, ModelOrigin, SelectedOn,
    StatisticsOrigin, config_path, with_statistics,
};
use network::nn::Statistics;
use search::Candidate;
use serde_json::Value;
use space::Arch;

pub use formats::{Format, ONNX_MODEL};
pub use onnx_file::{OnnxVerification, RuntimeVerification};
pub use verify::{Verification, verify};

use crate::error::Result;

/// An export's inputs.
pub struct Request<'a> {
    /// The trained weights.
    pub supernet: &'a Supernet,
    /// The sub-network.
    pub arch: &'a Arch,
    /// The source of the batch norms' statistics.
    pub statistics: NormStatistics<'a>,
    /// The backend that computes statistics and accuracy, and verifies.
    pub backend: Backend,
    /// Share of images that a search expects to be right.
    pub predicted_top1: Option<f64>,
    /// Latency that a search expects, in milliseconds.
    pub predicted_latency_ms: Option<f64>,
    /// The images that a search selected the sub-network on, if it did.
    pub selected_on: Option<SelectedOn>,
    /// Files to write for other programs, next to the folder's own two.
    pub formats: &'a [Format],
    /// Facts that go into the configuration unchanged, such as dates.
    pub run: BTreeMap<String, Value>,
}

impl<'a> Request<'a> {
    /// A sub-network as safetensors, computed with the CPU's fastest kernels, of which nothing is expected.
    pub fn new(supernet: &'a Supernet, arch: &'a Arch, statistics: NormStatistics<'a>) -> Self {
        Self {
            supernet,
            arch,
            statistics,
            backend: Backend::detect(),
            predicted_top1: None,
            predicted_latency_ms: None,
            selected_on: None,
            formats: &[],
            run: BTreeMap::new(),
        }
    }

    /// Adds a search's expectations of the sub-network, and the images that it was selected on.
    #[must_use]
    pub fn expecting(self, best: &Candidate, selected_on: Option<SelectedOn>) -> Self {
        let predicted_top1 = best.mean(search::TOP1);
        let predicted_latency_ms = best.latency_ms();
        Self { predicted_top1, predicted_latency_ms, selected_on, ..self }
    }
}

/// Where the statistics of a sub-network's batch norms come from, and which images accuracy is counted on (those of
/// the `val` split).
#[derive(Clone, Copy)]
pub enum NormStatistics<'a> {
    /// Gathered on training images.
    Calibrated {
        /// The images.
        dataset: &'a Dataset,
        /// How many images, their batch size, and the seed that picks them.
        calibration: Calibration,
    },
    /// The largest network's, as an imported supernet holds them.
    Inherited {
        /// Without images no accuracy is counted.
        dataset: Option<&'a Dataset>,
    },
}

impl<'a> NormStatistics<'a> {
    /// Gathered on training images of this data set, with the usual calibration.
    pub fn calibrated(dataset: &'a Dataset) -> Self {
        Self::Calibrated { dataset, calibration: Calibration::default() }
    }

    fn are_inherited(&self) -> bool {
        matches!(self, Self::Inherited { .. })
    }

    fn dataset(&self) -> Option<&'a Dataset> {
        match *self {
            Self::Calibrated { dataset, .. } => Some(dataset),
            Self::Inherited { dataset } => dataset,
        }
    }
}

/// The exported folder, and its comparison with the supernet.
pub struct Exported {
    /// The folder's content.
    pub model: ModelFolder,
    /// The comparison that it passed.
    pub verification: Verification,
}

/// Exports a sub-network into `folder`, which appears only when the export is proved equal to the supernet's
/// sub-network. A folder of an earlier export is replaced.
///
/// # Errors
/// If the folder holds something else, data and space do not fit, a file cannot be written, or the comparison fails
/// ([`Error::VerificationFailed`](crate::Error::VerificationFailed)); whatever was at `folder` is then still there.
pub fn export(request: &Request, folder: &Path) -> Result<Exported> {
    check_destination(folder)?;
    let inherits = request.statistics.are_inherited();
    let dataset = request.statistics.dataset();
    let dataset = dataset.map(|dataset| request.supernet.see(dataset, inherits)).transpose()?;
    request.supernet.space.check(request.arch)?;
    formats::check_possible(&request.supernet.space, request.arch, request.formats)?;
    let mut model = assemble(request, dataset.as_ref())?;
    model.config.run = request.run.clone();
    let files = formats::contents(&model, request.formats)?;
    for (name, bytes) in &files {
        model.config.files.insert(name.to_string(), blake3::hash(bytes).to_hex().to_string());
    }
    let staged = StagedFolder::next_to(folder)?;
    model.write(&staged.path())?;
    for (name, bytes) in &files {
        write_atomically(&staged.path().join(name), bytes)?;
    }
    let verification = verify(&staged.path(), request.supernet, dataset.as_ref(), &request.backend, None)?;
    staged.put_in_place()?;
    Ok(Exported { model, verification })
}

/// Files of an earlier export next to those of its formats: its own, and a pipeline's sums of them.
const REPLACEABLE: [&str; 3] = ["config.json", "model.safetensors", "SHA256SUMS"];

/// Checks that an export may take this place: only an earlier export or an empty folder may be replaced.
///
/// # Errors
/// If something else is there, or the folder to hold it is not.
pub fn check_destination(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(check_place(folder)?);
    }
    let refuse = |reason: String| {
        let path = folder.to_path_buf();
        let next = "choose another place".to_string();
        Err(base::Error::Occupied { path, reason, next }.into())
    };
    let entries = folder.read_dir().map_err(base::Error::io("open the folder", folder))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let files = Format::ALL.iter().flat_map(|format| format.files());
    let replaceable: Vec<_> = REPLACEABLE.iter().chain(files).copied().collect();
    if let Some(other) = names.iter().find(|name| !replaceable.contains(&name.as_str())) {
        return refuse(format!("it is there and holds `{other}`, which is no part of an export"));
    }
    if names.is_empty()
        || std::fs::read_to_string(config_path(folder))
            .is_ok_and(|text: String| ModelConfig::from_json("config.json", &text).is_ok())
    {
        return Ok(());
    }
    refuse("it is there and holds no earlier export".to_string())
}

/// Gathers or inherits the statistics, copies the weights out, and counts the accuracy.
fn assemble(request: &Request, dataset: Option<&Dataset>) -> Result<ModelFolder> {
    let Request { supernet, arch, backend, .. } = request;
    let space = &supernet.space;
    let layers = space.lower(arch)?;
    // weights come out of the CPU, whatever computes with them: a check on another machine makes the same
    let subnet = SubnetWeights::new(space, &supernet.weights, &layers, &backend.on_cpu())?;
    let Gathered { statistics, origin, preprocess, accuracy } = gather(request, dataset, &subnet)?;
    let input = Input::new(arch.resolution, &preprocess);
    let measured = accuracy.map(|accuracy| MeasuredAccuracy {
        top1: accuracy.top1(),
        n: accuracy.n,
        split: Split::Val.to_string(),
        selected_on: request.selected_on.clone().filter(|selected| selected.split == Split::Val.to_string()),
    });
    let origin = ModelOrigin {
        tool: env!("CARGO_PKG_VERSION").to_string(),
        backend: backend.name().to_string(),
        supernet: supernet.hash.clone(),
        statistics: origin,
        predicted_top1: request.predicted_top1,
        predicted_latency_ms: request.predicted_latency_ms,
        measured,
        fine_tuned: Vec::new(),
    };
    let tensors = with_statistics(subnet.tensors(), &statistics)?;
    let known = supernet.classes().or(dataset.map(Dataset::classes)).map(<[String]>::to_vec);
    let classes = known.unwrap_or_else(|| (0..space.classes()).map(|class| class.to_string()).collect());
    Ok(ModelFolder::new(ModelDescription { space, arch, input, classes, origin }, tensors)?)
}

/// The statistics, and the facts that depend on their source.
struct Gathered {
    statistics: Statistics,
    origin: StatisticsOrigin,
    preprocess: Preprocess,
    accuracy: Option<Accuracy>,
}

/// `dataset` is what the supernet sees of the images that the request names.
fn gather(request: &Request, dataset: Option<&Dataset>, subnet: &SubnetWeights) -> Result<Gathered> {
    let Request { supernet, arch, backend, .. } = request;
    let space = &supernet.space;
    let weights = &supernet.weights.on(backend)?;
    let evaluator =
        |dataset, calibration| Evaluator { space, weights, dataset, calibration, backend: backend.clone() };
    match request.statistics {
        NormStatistics::Calibrated { dataset: given, calibration } => {
            let dataset = dataset.unwrap_or(given);
            let evaluator = evaluator(dataset, calibration);
            let statistics = evaluator.calibrate(arch)?;
            let source = subnet.calibrated_for(&statistics, backend)?;
            let accuracy = evaluator
                .accuracy_of(subnet.layers(), &source, arch.resolution, Split::Val)
                .map_err(|error| error.in_place(format!("arch {arch}")))?;
            let origin = StatisticsOrigin::Calibrated {
                images: calibration.images.min(dataset.train().len()),
                data: dataset.identity(),
                seed: calibration.seed,
            };
            let preprocess = dataset.preprocess().clone();
            let accuracy = Some(accuracy);
            Ok(Gathered { statistics, origin, preprocess, accuracy })
        }
        NormStatistics::Inherited { .. } => {
            let largest = supernet.statistics()?;
            let seen = dataset.map(|dataset| dataset.preprocess().clone());
            let preprocess = seen.map_or_else(|| supernet.preprocess_alone(), Ok)?;
            let accuracy = dataset.map(|dataset| {
                evaluator(dataset, Calibration::default())
                    .evaluate(arch, Some(largest), Split::Val)
                    .map(|evaluation| evaluation.accuracy())
            });
            let statistics = subnet.inherit(largest)?;
            let origin = StatisticsOrigin::Inherited;
            Ok(Gathered { statistics, origin, preprocess, accuracy: accuracy.transpose()? })
        }
    }
}
