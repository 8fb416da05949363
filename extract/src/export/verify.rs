//! Checks that an exported folder is the supernet's sub-network: weights bit for bit, logits bit for bit at the same batch
//! size, and one image through the reference kernels; `model.onnx` number by number and by running it; further files by
//! their hashes and the sub-network they name.

use std::path::Path;

use base::random::rng_for;
use candle_core::{Device, Tensor};
use kernels::Backend;
use network::checkpoint::Supernet;
use network::data::{Dataset, eval_batches};
use network::elastic::SubnetWeights;
use network::model_folder::{ModelConfig, ModelFolder, StatisticsOrigin, weights_path};
use network::nn::{FoldedNetwork, Network, Pass, Source, Statistics};
use rand::Rng;
use space::{LayerSpec, cost};

use super::formats::{self, ONNX_MODEL};
use super::onnx_file::{OnnxFile, OnnxVerification};
use crate::error::{Error, Result};
use crate::onnx::OnnxRuntime;

#[cfg(test)]
mod tests;

/// A verification's report.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Verification {
    /// Largest difference of a logit between export and supernet; 0 where the check passed.
    pub max_abs_difference: f32,
    /// Largest difference of a logit between the kernels used and the reference, relative to the largest logit.
    pub reference_difference: f32,
    /// Largest difference of a logit between the network and the same with its batch norms folded into its weights, as
    /// it is deployed, relative to the largest logit.
    pub folded_difference: f32,
    /// Images that were compared.
    pub inputs: usize,
    /// The verification of `model.onnx`, if the folder has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnx: Option<OnnxVerification>,
}

/// Largest accepted difference from the reference kernels, relative to the largest logit: about a hundred f32 roundings.
const REFERENCE_TOLERANCE: f32 = 1e-3;

/// Largest accepted change of a logit by folding, relative to the largest: a batch norm's roundings are about 1e-7 each.
const FOLDED_TOLERANCE: f32 = 1e-4;

/// Batch sizes of the random inputs.
const BATCHES: [usize; 2] = [1, 5];

/// Real images, where there is a data set.
const REAL_IMAGES: usize = 16;

/// Compares an exported folder with the sub-network of `supernet` that it says it is, and its `model.onnx`, if it has one,
/// with the folder's network; by `runtime` too, where one is given.
///
/// # Errors
/// [`Error::VerificationFailed`] with the first thing that differs; other errors if a file cannot be read, or if there is a
/// runtime and nothing for it to run.
pub fn verify(
    folder: &Path,
    supernet: &Supernet,
    dataset: Option<&Dataset>,
    backend: &Backend,
    runtime: Option<&dyn OnnxRuntime>,
) -> Result<Verification> {
    let model = ModelFolder::open(folder)?;
    let failed = |what: &str, expected: &str, got: &str| Error::VerificationFailed {
        path: folder.to_path_buf(),
        what: what.to_string(),
        expected: expected.to_string(),
        got: got.to_string(),
    };
    check_origin(&model.config, supernet, &failed)?;
    let config = &model.config;
    let space = &supernet.space;
    let layers = space.lower(&config.arch)?;
    let subnet = SubnetWeights::new(space, &supernet.weights, &layers, &backend.on_cpu())?;
    let statistics = compare_weights(&model, &subnet, &failed)?;
    if config.origin.statistics == StatisticsOrigin::Inherited {
        compare_inherited(&statistics, supernet, &subnet, &failed)?;
    }
    let hash = network::tensor_file::hash(&weights_path(folder))?;
    if hash != config.model_hash {
        return Err(failed("blake3 of model.safetensors", &config.model_hash, &hash));
    }
    formats::check(folder, &model, &failed)?;
    let onnx = OnnxFile::open(folder, &model)?;
    if onnx.is_none() && runtime.is_some() {
        let error = base::Error::invalid(folder.display(), "files", ONNX_MODEL, "none");
        return Err(error.and_then_do("export with --format onnx").into());
    }
    let elastic = Network::new(&layers, &supernet_source(&subnet, &statistics, backend)?)?;
    let batches = batches(&model, dataset)?;
    let (mut verification, logits) = compare_logits(&model, &elastic, &batches, backend, &failed)?;
    if let Some(onnx) = onnx {
        verification.onnx = Some(onnx.verify(folder, &batches, cost(&layers).macs, &logits, runtime)?);
    }
    Ok(verification)
}

/// The supernet's views; for a GPU copies of them, which its products take for what the export's are: how far apart rows
/// lie decides how some are summed.
fn supernet_source(
    subnet: &SubnetWeights,
    statistics: &Statistics,
    backend: &Backend,
) -> Result<Source<'static>> {
    Ok(match backend.gpu() {
        Some(_) => subnet.calibrated_for(statistics, backend)?,
        None => subnet.calibrated(statistics)?,
    })
}

/// Checks that the folder names this supernet, and was not fine-tuned since.
fn check_origin(
    config: &ModelConfig,
    supernet: &Supernet,
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<()> {
    if let Some(last) = config.origin.fine_tuned.last() {
        let got = format!(
            "one that was fine-tuned since ({} steps on {}, from model {}), and is the supernet's no longer",
            last.steps, last.data, last.from.model
        );
        return Err(failed("origin.fine_tuned", "the sub-network as it was exported", &got));
    }
    let space = &supernet.space;
    if config.space.fingerprint() != space.fingerprint() {
        return Err(failed("space", space.name(), config.space.name()));
    }
    if config.origin.supernet != supernet.hash {
        return Err(failed("origin.supernet", &supernet.hash, &config.origin.supernet));
    }
    Ok(())
}

/// Compares the logits of the exported network with the supernet's bit for bit, with its folded form's, and for the first
/// batch with those of the reference kernels; returns them batch by batch.
fn compare_logits(
    model: &ModelFolder,
    elastic: &Network,
    batches: &[Tensor],
    backend: &Backend,
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<(Verification, Vec<Vec<f32>>)> {
    let extracted = model.network(backend)?;
    let folded = FoldedNetwork::new(&extracted)?;
    let mut folded_difference = 0.0f32;
    let mut inputs = 0;
    let mut known = Vec::with_capacity(batches.len());
    for images in batches {
        inputs += images.dim(0)?;
        let expected = logits(elastic, images)?;
        let got = logits(&extracted, images)?;
        if let Some(index) = (0..expected.len()).find(|&i| expected[i].to_bits() != got[i].to_bits()) {
            let what = format!("logit {index} of a batch of {}", images.dim(0)?);
            return Err(failed(&what, &expected[index].to_string(), &got[index].to_string()));
        }
        // not `max`, which would drop a NaN
        let apart = difference(&expected, &values(&folded.forward(images)?)?);
        folded_difference =
            if apart > folded_difference || apart.is_nan() { apart } else { folded_difference };
        known.push(got);
    }
    if folded_difference > FOLDED_TOLERANCE || folded_difference.is_nan() {
        let expected = format!("within {FOLDED_TOLERANCE} of the unfolded network");
        return Err(failed("logits of the folded network", &expected, &folded_difference.to_string()));
    }
    let reference_difference = compare_with_reference(model, &batches[0], &known[0], failed)?;
    let verification =
        Verification { max_abs_difference: 0.0, reference_difference, folded_difference, inputs, onnx: None };
    Ok((verification, known))
}

/// The difference of the logits from those of the reference kernels.
fn compare_with_reference(
    model: &ModelFolder,
    images: &Tensor,
    got: &[f32],
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<f32> {
    let apart = difference(&logits(&model.network(&Backend::reference())?, images)?, got);
    if apart > REFERENCE_TOLERANCE || apart.is_nan() {
        let expected = format!("within {REFERENCE_TOLERANCE} of the reference kernels");
        return Err(failed("logits", &expected, &apart.to_string()));
    }
    Ok(apart)
}

/// Compares every weight, and returns the statistics, which the supernet has only if they are inherited.
fn compare_weights(
    model: &ModelFolder,
    subnet: &SubnetWeights,
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<Statistics> {
    let mut rest = model.tensors.clone();
    for (name, expected) in subnet.tensors() {
        let got = rest.remove(name).ok_or_else(|| failed(name, "a tensor of this name", "none"))?;
        compare_tensors(name, expected, &got, failed)?;
    }
    let mut statistics = Statistics::new();
    for layer in subnet.layers() {
        for norm in norms(layer) {
            let [mean, variance] = ["running_mean", "running_var"].map(|statistic| {
                let name = format!("{norm}.{statistic}");
                rest.remove(&name).ok_or_else(|| failed(&name, "statistics of this name", "none"))
            });
            statistics.insert(norm, Tensor::stack(&[mean?, variance?], 0)?);
        }
    }
    match rest.keys().next() {
        Some(name) => Err(failed(name, "no such tensor", "one")),
        None => Ok(statistics),
    }
}

/// Compares the statistics with those that the supernet holds of its largest network.
fn compare_inherited(
    statistics: &Statistics,
    supernet: &Supernet,
    subnet: &SubnetWeights,
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<()> {
    for (norm, expected) in subnet.inherit(supernet.statistics()?)? {
        compare_tensors(&norm, &expected, &statistics[&norm], failed)?;
    }
    Ok(())
}

/// Checks that two tensors are equal bit for bit.
fn compare_tensors(
    name: &str,
    expected: &Tensor,
    got: &Tensor,
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<()> {
    if got.dims() != expected.dims() {
        return Err(failed(name, &format!("{:?}", expected.dims()), &format!("{:?}", got.dims())));
    }
    let expected = values(expected)?;
    let got = values(got)?;
    if let Some(index) = (0..expected.len()).find(|&i| expected[i].to_bits() != got[i].to_bits()) {
        let what = format!("{name}[{index}]");
        return Err(failed(&what, &expected[index].to_string(), &got[index].to_string()));
    }
    Ok(())
}

/// Names of a layer's batch norms.
fn norms(layer: &LayerSpec) -> Vec<String> {
    layer.weights().iter().filter_map(|weight| weight.batch_norm().map(str::to_string)).collect()
}

/// Random images, and real ones if there is a data set.
fn batches(model: &ModelFolder, dataset: Option<&Dataset>) -> Result<Vec<Tensor>> {
    let channels = model.config.input.channels;
    let resolution = model.config.input.resolution;
    let mut batches = Vec::new();
    for count in BATCHES {
        let mut rng = rng_for("verification", 0, &[count as u64]);
        let length = count * channels * resolution.plane();
        let pixels: Vec<f32> = (0..length).map(|_| rng.random_range(-2.0..2.0)).collect();
        batches.push(Tensor::from_vec(
            pixels,
            (count, channels, resolution.height, resolution.width),
            &Device::Cpu,
        )?);
    }
    if let Some(dataset) = dataset {
        let dataset = model.see(dataset)?;
        let mut real = eval_batches(dataset.val(), dataset.preprocess(), resolution, REAL_IMAGES);
        batches.extend(real.next().transpose()?.map(|batch| batch.inputs));
    }
    Ok(batches)
}

/// The largest difference of a logit relative to the largest expected one; NaN if one is.
pub(super) fn difference(expected: &[f32], got: &[f32]) -> f32 {
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |largest, logit| largest.max(logit.abs()));
    let apart = expected.iter().zip(got).map(|(a, b)| (a - b).abs() / largest);
    apart.fold(0.0, |worst, apart| if apart > worst || apart.is_nan() { apart } else { worst })
}

fn logits(network: &Network, images: &Tensor) -> Result<Vec<f32>> {
    values(&network.forward(images, Pass::Inference)?)
}

pub(super) fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}
