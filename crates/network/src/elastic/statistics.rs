//! Running statistics of the largest network's batch norms, and the part of them that a sub-network inherits.
//!
//! They are not shared weights: statistics of the largest network fit no other as well as its own would. A
//! file whose statistics are inherited records it.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use space::{SearchSpace, WeightSpec};

use super::shared::{check_finite, shared_specs};
use super::subnet::SubnetWeights;
use crate::error::{Error, Result};
use crate::nn::Statistics;

/// Last parts of the names of a batch norm's statistics in a file, in the order of their rows in [`Statistics`].
const RUNNING: [&str; 2] = ["running_mean", "running_var"];

/// Names in a file of the statistics of the batch norm whose scale this is; none for other weights.
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

/// Checks statistics from a file: of every batch norm of the largest network and no other; `None` if there are none.
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

#[cfg(test)]
mod tests {
    use base::random::rng_for;
    use kernels::Backend;
    use space::{preset, sampler};

    use super::*;
    use crate::elastic::SharedWeights;
    use crate::nn::testing::{noise, tensor, values};

    const NORM: &str = "blocks.1.conv.depth_conv.bn";

    /// Statistics of every batch norm of the largest network, each with values of its own.
    fn statistics(space: &SearchSpace) -> Statistics {
        let specs = shared_specs(space);
        let norms = specs.iter().filter_map(|spec| Some((spec.batch_norm()?, spec.shape[0])));
        norms.map(|(norm, channels)| (norm.to_string(), noise(norm, &[2, channels], 0.4, 1.0))).collect()
    }

    #[test]
    fn they_come_back_from_their_tensors() {
        let space = preset("tiny").expect("a preset");
        let expected = statistics(&space);
        let tensors = statistics_to_tensors(&expected).expect("two rows each");
        assert_eq!(tensors.len(), 2 * expected.len());
        assert!(tensors.keys().all(|name| is_running(name)));
        assert_eq!(
            values(&tensors[&format!("{NORM}.running_var")]),
            values(&expected[NORM].get(1).expect("a row"))
        );
        let read = statistics_from_tensors(&space, tensors, "x").expect("all are there").expect("some");
        assert_eq!(read.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(read.iter().all(|(norm, tensor)| values(tensor) == values(&expected[norm])));
        assert!(statistics_from_tensors(&space, BTreeMap::new(), "x").expect("none is no error").is_none());
    }

    #[test]
    fn tensors_that_are_no_statistics_of_the_space_are_refused() {
        let space = preset("tiny").expect("a preset");
        let tensors = statistics_to_tensors(&statistics(&space)).expect("two rows each");
        let channels = tensors[&format!("{NORM}.running_var")].dims()[0];
        let variances = |value: f32| {
            let mut all = vec![1.0; channels];
            all[channels - 1] = value;
            tensor(&[channels], &all)
        };
        for (name, other, expected) in [
            ("running_mean", None, format!("expected a tensor [{channels}] for space tiny, got none")),
            (
                "running_var",
                Some(tensor(&[1], &[1.0])),
                format!("expected a tensor [{channels}] for space tiny, got [1]"),
            ),
            ("running_var", Some(variances(f32::NAN)), "expected finite values, got NaN".to_string()),
            ("running_var", Some(variances(-0.5)), "expected variances of at least 0, got -0.5".to_string()),
            (
                "running_max",
                Some(variances(1.0)),
                "expected no such tensor in space tiny, got one".to_string(),
            ),
        ] {
            let name = format!("{NORM}.{name}");
            let mut tensors = tensors.clone();
            match other {
                Some(other) => drop(tensors.insert(name.clone(), other)),
                None => drop(tensors.remove(&name)),
            }
            let error = statistics_from_tensors(&space, tensors, "x").expect_err("refused").to_string();
            assert!(error.starts_with(&format!("x: {name}: {expected}")), "{error}");
        }
    }

    #[test]
    fn a_sub_network_inherits_the_leading_channels() {
        let space = preset("tiny").expect("a preset");
        let largest = statistics(&space);
        let shared = SharedWeights::new(&space, &mut rng_for("weights", 1, &[])).expect("weights");
        let layers = space.lower(&sampler::smallest(&space)).expect("legal");
        let subnet = SubnetWeights::new(&space, &shared, &layers, &Backend::detect()).expect("its weights");
        let inherited = subnet.inherit(&largest).expect("all are there");
        let rows: Vec<Vec<f32>> = inherited[NORM].to_vec2().expect("two rows");
        let all: Vec<Vec<f32>> = largest[NORM].to_vec2().expect("two rows");
        assert!(rows[0].len() < all[0].len());
        assert_eq!(rows, all.iter().map(|row| row[..rows[0].len()].to_vec()).collect::<Vec<_>>());
        let error = subnet.inherit(&Statistics::new()).expect_err("none").to_string();
        assert!(error.contains("expected a batch norm's, got none"), "{error}");
    }
}
