//! Reads the file of a predictor that another program wrote.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};
use supernet::{Error, file};

use super::AccuracyEstimator;
use super::import::PredictorFile;
use crate::error::Result;
use supernet::space::SearchSpace;

impl AccuracyEstimator {
    /// [`AccuracyEstimator::import`] of a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`AccuracyEstimator::import`].
    pub fn import_file(space: &SearchSpace, path: &Path, resolutions: &[usize]) -> Result<Self> {
        let bytes = file::read(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::import_bytes(space, (&path.display().to_string(), &name), &bytes, resolutions)
    }

    /// The same of a file's bytes; `place` names them in messages, `name` in the estimator.
    ///
    /// # Errors
    /// As [`AccuracyEstimator::import_file`].
    pub fn import_bytes(
        space: &SearchSpace,
        (place, name): (&str, &str),
        bytes: &[u8],
        resolutions: &[usize],
    ) -> Result<Self> {
        let (tensors, blake3) = (named_tensors(place, bytes)?, blake3::hash(bytes).to_hex().to_string());
        let file = PredictorFile { place, name, blake3: &blake3, tensors: &tensors };
        Self::import(space, file, resolutions)
    }
}

/// The one place that knows which containers a predictor may lie in: safetensors, whatever its metadata.
fn named_tensors(place: &str, bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let broken = |error| {
        Error::invalid(place, "content", "a whole safetensors file", error)
            .and_then_do("save the predictor's state_dict with safetensors.torch.save_file")
    };
    let mut tensors = BTreeMap::new();
    for (name, view) in SafeTensors::deserialize(bytes).map_err(broken)?.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(Error::invalid(place, name, "f32 values", format!("{:?}", view.dtype())).into());
        }
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let values: Vec<f32> = view.data().chunks_exact(4).map(value).collect();
        tensors.insert(name.to_string(), Tensor::from_vec(values, view.shape(), &Device::Cpu)?);
    }
    Ok(tensors)
}
