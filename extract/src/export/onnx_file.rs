//! The `model.onnx` of an exported folder: its content, and the check that it computes the same as the folder's network.
//!
//! The file is decoded and compared with what is written for the folder's weights, number by number; then it is run from
//! its own bytes, so that the comparison does not rest on the writer alone.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use base::file;
use candle_core::Tensor;
use network::model_folder::ModelFolder;
use serde::Serialize;

use super::formats::ONNX_MODEL;
use super::verify::{difference, values};
use crate::error::{Error, Result};
use crate::onnx::{self, OnnxModel, OnnxRuntime};

/// Largest accepted difference of the logits of `model.onnx`, relative to the largest of a batch: as for those of the
/// folded network, for the weights are the same and only sums are taken in another order. Seen are 1e-7 to 1e-6.
const TOLERANCE: f32 = 1e-4;

/// The report on `model.onnx`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OnnxVerification {
    /// Weights and biases that were compared, bit for bit.
    pub weights: usize,
    /// Images that were compared.
    pub inputs: usize,
    /// Largest difference between a logit that the decoded file computes and the network's, relative to the largest.
    pub max_relative_difference: f32,
    /// The comparison with a runtime, if one was given.
    pub runtime: Option<RuntimeVerification>,
}

/// The comparison with another runtime that runs `model.onnx`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuntimeVerification {
    /// Name and version.
    pub name: String,
    /// Largest difference of a logit from the network's, relative to the largest.
    pub max_relative_difference: f32,
}

/// The bytes of the file.
pub(super) fn contents(model: &ModelFolder) -> Result<Vec<u8>> {
    let config = &model.config;
    let layers = config.space.lower(&config.arch)?;
    onnx::model_for_any_batch(&layers, &model.tensors, config.space.batch_norm_epsilon(), properties(model))
}

/// The model's metadata: enough to prepare its images and to name its classes.
fn properties(model: &ModelFolder) -> BTreeMap<String, String> {
    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("plain data")
    }
    let config = &model.config;
    // a file of before there was a word for it has none, and is still what its folder says
    let input = config.input.orient.map(|_| ("input", json(&config.input)));
    let properties = [
        ("arch", config.arch.to_string()),
        ("space", config.space.name().to_string()),
        ("resolution", config.input.resolution.to_string()),
        ("mean", json(&config.input.mean)),
        ("std", json(&config.input.std)),
        ("classes", json(&config.classes)),
        ("model_hash", config.model_hash.clone()),
    ];
    properties.into_iter().chain(input).map(|(key, value)| (key.to_string(), value)).collect()
}

/// Multiply-accumulates that the interpreter's plain loops are given: 13 s of them, at 1.5 GMAC a second.
const MOST_MACS: u64 = 20_000_000_000;

/// A file that holds what is written for its folder's weights.
pub(super) struct OnnxFile {
    bytes: Vec<u8>,
    model: OnnxModel,
}

impl OnnxFile {
    /// Reads the file of a folder, if there is one, and compares it.
    ///
    /// # Errors
    /// [`Error::VerificationFailed`] with the first thing that differs.
    pub(super) fn open(folder: &Path, model: &ModelFolder) -> Result<Option<Self>> {
        let path = folder.join(ONNX_MODEL);
        if !path.exists() {
            return Ok(None);
        }
        Self::from_bytes(folder, model, file::read(&path)?).map(Some)
    }

    fn from_bytes(folder: &Path, model: &ModelFolder, bytes: Vec<u8>) -> Result<Self> {
        let expected = OnnxModel::from_bytes("the model that is written", &contents(model)?)?;
        let decoded = OnnxModel::from_bytes(ONNX_MODEL, &bytes).map_err(unverified(folder))?;
        decoded.compare(&expected).map_err(unverified(folder))?;
        Ok(Self { bytes, model: decoded })
    }

    /// Runs the file on batches of images whose logits are known: by the interpreter on the first, and on as many more as
    /// [`MOST_MACS`] allow for a network of so many `macs`; by a runtime on all.
    ///
    /// # Errors
    /// [`Error::VerificationFailed`] if a logit is too far from the known one.
    pub(super) fn verify(
        &self,
        folder: &Path,
        batches: &[Tensor],
        macs: u64,
        logits: &[Vec<f32>],
        runtime: Option<&dyn OnnxRuntime>,
    ) -> Result<OnnxVerification> {
        let mut got = Vec::with_capacity(batches.len());
        let mut inputs = 0;
        for images in batches {
            let with_these = inputs + images.dim(0)?;
            if inputs > 0 && macs.saturating_mul(with_these as u64) > MOST_MACS {
                break;
            }
            inputs = with_these;
            got.push(self.model.run(images.dims(), &values(images)?).map_err(unverified(folder))?);
        }
        let max_relative_difference = compare(folder, "logits", logits, &got)?;
        let runtime = match runtime {
            None => None,
            Some(runtime) => {
                let name = runtime.describe();
                let got = runtime.run_model(&self.bytes, batches).map_err(unverified(folder))?;
                let max_relative_difference = compare(folder, &format!("logits by {name}"), logits, &got)?;
                Some(RuntimeVerification { name, max_relative_difference })
            }
        };
        let weights = self.model.initializers();
        Ok(OnnxVerification { weights, inputs, max_relative_difference, runtime })
    }
}

/// The largest difference between logits, batch by batch.
fn compare(folder: &Path, what: &str, expected: &[Vec<f32>], got: &[Vec<f32>]) -> Result<f32> {
    let failed = |expected: String, got: String| Error::VerificationFailed {
        path: folder.to_path_buf(),
        what: format!("{ONNX_MODEL}: {what}"),
        expected,
        got,
    };
    let mut worst = 0.0f32;
    for (expected, got) in expected.iter().zip(got) {
        if expected.len() != got.len() {
            return Err(failed(format!("{} numbers", expected.len()), got.len().to_string()));
        }
        let apart = difference(expected, got);
        if apart > TOLERANCE || apart.is_nan() {
            return Err(failed(format!("within {TOLERANCE} of the network"), apart.to_string()));
        }
        worst = worst.max(apart);
    }
    Ok(worst)
}

/// A file that cannot be read or run has failed the verification, as one that differs has.
fn unverified(folder: &Path) -> impl Fn(Error) -> Error {
    let path = folder.to_path_buf();
    move |error| match error {
        Error::Network(inner) => match *inner {
            network::Error::Base(base::Error::Invalid { place, field, expected, got, .. }) => {
                Error::VerificationFailed {
                    path: path.clone(),
                    what: format!("{place}: {field}"),
                    expected,
                    got,
                }
            }
            other => other.into(),
        },
        other => other,
    }
}
