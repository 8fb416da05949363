//! Running statistics of the largest network's batch norms, and the part of them that a sub-network inherits.
//!
//! They are no shared weights: gathered for the largest network, they fit no other as well as statistics that are
//! gathered for it. Whoever inherits them says so.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use space::{SearchSpace, WeightSpec};

use super::shared::{check_finite, shared_specs};
use super::subnet::SubnetWeights;
use crate::error::{Error, Result};
use crate::nn::Statistics;

/// Last parts of the names of a batch norm's statistics in a file, in the order of their rows in [`Statistics`].
const RUNNING: [&str; 2] = ["running_mean", "running_var"];

/// Names in a file of a batch norm's statistics, where this is its scale; none for other weights.
pub(crate) fn running_names(spec: &WeightSpec) -> Vec<String> {
    spec.batch_norm().map(|norm| RUNNING.map(|last| format!("{norm}.{last}")).to_vec()).unwrap_or_default()
}

/// Whether a tensor of this name in a file holds statistics.
pub(crate) fn is_running(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, last)| RUNNING.contains(&last))
}

/// The statistics under their names in a file, which are PyTorch's.
///
/// # Errors
/// If they are not `[2, C]`.
pub fn statistics_to_tensors(statistics: &Statistics) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (norm, tensor) in statistics {
        // a GPU's come one by one, and go back in one piece
        let tensor = tensor.to_device(&Device::Cpu)?;
        for (row, last) in RUNNING.iter().enumerate() {
            tensors.insert(format!("{norm}.{last}"), tensor.get(row)?.contiguous()?);
        }
    }
    Ok(tensors)
}

/// Checks statistics from a file: those of every batch norm of the largest network and no others; `None` if there
/// are none at all.
///
/// # Errors
/// Names the tensor; `place` says whose it is.
pub(crate) fn statistics_from_tensors(
    space: &SearchSpace,
    mut tensors: BTreeMap<String, Tensor>,
    place: &str,
) -> Result<Option<Statistics>> {
    if tensors.is_empty() {
        return Ok(None);
    }
    let mut statistics = Statistics::new();
    for spec in shared_specs(space) {
        let Some(norm) = spec.batch_norm() else { continue };
        let mut rows = Vec::new();
        for name in running_names(&spec) {
            let wanted = || format!("a tensor {:?} for space {}", spec.shape, space.name());
            let tensor =
                tensors.remove(&name).ok_or_else(|| Error::invalid(place, &name, wanted(), "none"))?;
            if tensor.dims() != spec.shape.as_slice() {
                return Err(Error::invalid(place, &name, wanted(), format!("{:?}", tensor.dims())));
            }
            check_finite(&tensor, place, &name)?;
            rows.push(tensor);
        }
        check_variances(&rows[1], place, norm)?;
        statistics.insert(norm.to_string(), Tensor::stack(&rows, 0)?);
    }
    match tensors.keys().next() {
        Some(name) => {
            Err(Error::invalid(place, name, format!("no such tensor in space {}", space.name()), "one"))
        }
        None => Ok(Some(statistics)),
    }
}

fn check_variances(tensor: &Tensor, place: &str, norm: &str) -> Result<()> {
    match tensor.to_vec1::<f32>()?.into_iter().find(|value| *value < 0.0) {
        Some(value) => {
            let name = format!("{norm}.{}", RUNNING[1]);
            Err(Error::invalid(place, name, "variances of at least 0", value))
        }
        None => Ok(()),
    }
}

impl SubnetWeights<'_> {
    /// The part of the largest network's statistics that lies under this sub-network's channels, as views.
    ///
    /// # Errors
    /// If a batch norm has none.
    pub fn inherit(&self, largest: &Statistics) -> Result<Statistics> {
        let mut inherited = Statistics::new();
        for layer in self.layers() {
            for spec in layer.weights() {
                let Some(norm) = spec.batch_norm() else { continue };
                let shared = format!("{}{}", layer.shared_name(), &norm[layer.name.len()..]);
                let found = largest.get(&shared);
                let found =
                    found.ok_or_else(|| Error::invalid("statistics", &shared, "a batch norm's", "none"))?;
                inherited.insert(norm.to_string(), found.narrow(1, 0, spec.shape[0])?);
            }
        }
        Ok(inherited)
    }
}
