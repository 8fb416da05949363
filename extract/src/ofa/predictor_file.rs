//! Reads the file of a predictor that another program wrote.

use std::collections::BTreeMap;
use std::path::Path;

use base::file;
use network::pytorch::StateDict;
use space::SearchSpace;

use super::predictor::PredictorFile;
use crate::accuracy::AccuracyEstimator;
use crate::error::Result;

impl AccuracyEstimator {
    /// [`AccuracyEstimator::import`] of what `torch.save` wrote, or of a safetensors file with the same names.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`AccuracyEstimator::import`].
    pub fn import_file(space: &SearchSpace, path: &Path, resolutions: &[usize]) -> Result<Self> {
        let bytes = file::read(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::import_bytes(space, &path.display().to_string(), &name, &bytes, resolutions)
    }

    /// [`AccuracyEstimator::import_file`] from bytes; `place` names them in messages, `name` in the estimator.
    ///
    /// # Errors
    /// As [`AccuracyEstimator::import_file`].
    pub fn import_bytes(
        space: &SearchSpace,
        place: &str,
        name: &str,
        bytes: &[u8],
        resolutions: &[usize],
    ) -> Result<Self> {
        let state = StateDict::from_bytes(place, bytes)?;
        let tensors = state
            .names()
            .map(|name: &str| Ok((name.to_string(), state.tensor(name)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let file = PredictorFile { place, name, blake3: &state.hash(), tensors: &tensors };
        Self::import(space, file, resolutions)
    }
}
