//! From a supernet to a folder that is shipped: weights copied out, statistics gathered, everything verified
//! before the folder has its name.

mod formats;
mod verify;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::Value;
use supernet::checkpoint::Supernet;
use supernet::data::{Dataset, Split};
use supernet::elastic::SubnetWeights;
use supernet::eval::{Calibration, Judge};
use supernet::file::{StagedFolder, write_atomically};
use supernet::kernels::Kernels;
use supernet::model_folder::{
    Input, MeasuredAccuracy, ModelConfig, ModelFolder, Origin, StatisticsOrigin, config_path,
};
use supernet::nn::Statistics;
use supernet::space::Arch;

pub use formats::{Format, ONNX_MODEL};
pub use verify::{Verification, verify};

use crate::error::Result;

/// What to export.
pub struct Request<'a> {
    /// The trained weights.
    pub supernet: &'a Supernet,
    /// The sub-network.
    pub arch: &'a Arch,
    /// Images to calibrate with, and to count accuracy on (its `val` split).
    pub dataset: &'a Dataset,
    /// How to calibrate.
    pub calibration: Calibration,
    /// What computes.
    pub kernels: Kernels,
    /// Share of images that a search expects to be right.
    pub predicted_top1: Option<f64>,
    /// Latency that a search expects, in milliseconds.
    pub predicted_latency_ms: Option<f64>,
    /// What to write for other programs, beside the folder's own two files.
    pub formats: &'a [Format],
}

/// What an export wrote, and how it compares with the supernet.
pub struct Exported {
    /// The folder's content.
    pub model: ModelFolder,
    /// The comparison that it passed.
    pub verification: Verification,
}

/// Exports a sub-network into `folder`, which appears only when the export is proved equal to the supernet's
/// sub-network. A folder of an earlier export is replaced; `run` goes into the configuration as it is.
///
/// # Errors
/// If the folder holds something else, data and space do not fit, a file cannot be written, or the comparison fails
/// ([`Error::VerificationFailed`](crate::Error::VerificationFailed)); whatever was at `folder` is then still there.
pub fn export(request: &Request, folder: &Path, run: BTreeMap<String, Value>) -> Result<Exported> {
    check_destination(folder)?;
    request.dataset.check_fits(&request.supernet.space)?;
    request.supernet.space.check(request.arch)?;
    let mut model = assemble(request)?;
    model.config.run = run;
    let files = formats::contents(&model, request.formats)?;
    let hash = |bytes: &Vec<u8>| blake3::hash(bytes).to_hex().to_string();
    model.config.files = files.iter().map(|(name, bytes)| (name.to_string(), hash(bytes))).collect();
    let staged = StagedFolder::beside(folder)?;
    model.write(&staged.path())?;
    for (name, bytes) in &files {
        write_atomically(&staged.path().join(name), bytes)?;
    }
    let verification = verify(&staged.path(), request.supernet, Some(request.dataset), request.kernels)?;
    staged.put_in_place()?;
    Ok(Exported { model, verification })
}

/// What an earlier export may hold beside the files of its formats: its own, and sums that a pipeline made of them.
const REPLACEABLE: [&str; 3] = ["config.json", "model.safetensors", "SHA256SUMS"];

/// Only an earlier export by itself or an empty folder may be replaced.
fn check_destination(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let refuse = |reason: String| {
        let (path, next) = (folder.to_path_buf(), "choose another place".to_string());
        Err(supernet::Error::Occupied { path, reason, next }.into())
    };
    let entries = folder.read_dir().map_err(supernet::Error::io("open the folder", folder))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let files = Format::ALL.iter().flat_map(|format| format.files());
    let replaceable: Vec<_> = REPLACEABLE.iter().chain(files).copied().collect();
    if let Some(other) = names.iter().find(|name| !replaceable.contains(&name.as_str())) {
        return refuse(format!("it is there and holds `{other}`, which is no part of an export"));
    }
    let ours = |text: String| ModelConfig::from_json("config.json", &text).is_ok();
    if names.is_empty() || std::fs::read_to_string(config_path(folder)).is_ok_and(ours) {
        return Ok(());
    }
    refuse("it is there and holds no earlier export".to_string())
}

/// Calibrates, copies the weights out, and counts the accuracy.
fn assemble(request: &Request) -> Result<ModelFolder> {
    let Request { supernet, arch, dataset, calibration, kernels, .. } = *request;
    let judge = Judge { space: &supernet.space, weights: &supernet.weights, dataset, calibration, kernels };
    let statistics = judge.calibrate(arch)?;
    let layers = supernet.space.lower(arch)?;
    let subnet = SubnetWeights::new(&supernet.space, &supernet.weights, &layers, kernels)?;
    let source = subnet.calibrated(&statistics)?;
    let accuracy = judge.accuracy_of(&layers, &source, arch.resolution, Split::Val)?;
    let normalisation = dataset.normalisation();
    let input = Input {
        channels: supernet.space.input_channels(),
        resolution: arch.resolution,
        mean: normalisation.mean().to_vec(),
        std: normalisation.std().to_vec(),
    };
    let origin = Origin {
        tool: env!("CARGO_PKG_VERSION").to_string(),
        kernels: kernels.name().to_string(),
        supernet: supernet.hash.clone(),
        statistics: StatisticsOrigin::Calibrated {
            images: calibration.images.min(dataset.train().len()),
            data: dataset.identity(),
            seed: calibration.seed,
        },
        predicted_top1: request.predicted_top1,
        predicted_latency_ms: request.predicted_latency_ms,
        measured: Some(MeasuredAccuracy {
            top1: accuracy.top1(),
            n: accuracy.n,
            split: Split::Val.to_string(),
        }),
    };
    let tensors = with_statistics(subnet.tensors(), &statistics)?;
    Ok(ModelFolder::new((&supernet.space, arch), tensors, input, dataset.classes().to_vec(), origin)?)
}

/// Copies of the weights, and the statistics under their names in PyTorch.
fn with_statistics(
    weights: &BTreeMap<String, Tensor>,
    statistics: &Statistics,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (name, tensor) in weights {
        tensors.insert(name.clone(), tensor.copy()?.contiguous()?);
    }
    for (name, tensor) in statistics {
        tensors.insert(format!("{name}.running_mean"), tensor.get(0)?.contiguous()?);
        tensors.insert(format!("{name}.running_var"), tensor.get(1)?.contiguous()?);
    }
    Ok(tensors)
}
