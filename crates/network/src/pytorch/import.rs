//! A supernet's shared weights from a file with the names of PyTorch's `ofa` package.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use space::{SearchSpace, WeightRole};

use super::StateDict;
use super::ofa_names::spellings;
use crate::arena::ArenaPart;
use crate::elastic::{SharedWeights, running_names, shared_parts, statistics_from_tensors};
use crate::error::{Error, Result};
use crate::nn::Statistics;

/// PyTorch's counter next to a batch norm's statistics, which nothing here needs.
const COUNTER: &str = "num_batches_tracked";

/// Names that a message lists at most.
const LISTED: usize = 3;

/// A file's content for a space.
pub struct Import {
    /// The shared weights.
    pub weights: SharedWeights,
    /// Statistics of the largest network's batch norms; `None` where the file has none.
    pub statistics: Option<Statistics>,
    /// Kernel-transform matrices that the file held.
    pub matrices_read: usize,
    /// Matrices that are the identity, as before training, for the file has none: one of a static network.
    pub matrices_identity: usize,
    /// Tensors that nothing here needs: PyTorch's counters of batches.
    pub dropped: usize,
}

/// A tensor that the space has.
struct Wanted {
    name: String,
    shape: Vec<usize>,
    kind: Kind,
    /// Whether it depends on the classes.
    of_classes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Weight,
    Matrix,
    Statistic,
}

/// Takes the weights of a space out of a file; every tensor of the file must have its place.
///
/// # Errors
/// If tensors are missing, left over, spelt twice, of another shape, or not finite. The message names some and the
/// space.
pub fn import(space: &SearchSpace, state: &StateDict) -> Result<Import> {
    let mut wanted = wanted(space);
    let mut found = find(&wanted, state)?;
    let held = |kind| wanted.iter().any(|wanted| wanted.kind == kind && found.contains_key(&wanted.name));
    let matrices = held(Kind::Matrix);
    let statistics = held(Kind::Statistic);
    let identities: Vec<Wanted> =
        wanted.extract_if(.., |wanted| wanted.kind == Kind::Matrix && !matrices).collect();
    wanted.retain(|wanted| wanted.kind != Kind::Statistic || statistics);
    check_names(space, state, &wanted, &found)?;
    check_shapes(space, state, &wanted, &found)?;
    let mut weights = BTreeMap::new();
    let mut running = BTreeMap::new();
    for Wanted { name, kind, .. } in &wanted {
        let tensor = state.tensor(&found.remove(name).expect("its name was checked"))?;
        let of_kind = if *kind == Kind::Statistic { &mut running } else { &mut weights };
        of_kind.insert(name.clone(), tensor);
    }
    for Wanted { name, shape, .. } in &identities {
        weights.insert(name.clone(), Tensor::eye(shape[0], DType::F32, &Device::Cpu)?);
    }
    let read = wanted.iter().filter(|wanted| wanted.kind == Kind::Matrix).count();
    Ok(Import {
        weights: SharedWeights::from_tensors(space, weights, state.place())?,
        statistics: statistics_from_tensors(space, running, state.place())?,
        matrices_read: read,
        matrices_identity: identities.len(),
        dropped: state.names().filter(|name| name.ends_with(COUNTER)).count(),
    })
}

fn wanted(space: &SearchSpace) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for ArenaPart { spec, of_classes } in shared_parts(space) {
        for name in running_names(&spec) {
            let shape = spec.shape.clone();
            wanted.push(Wanted { name, shape, kind: Kind::Statistic, of_classes });
        }
        let kind = if spec.role == WeightRole::KernelTransform { Kind::Matrix } else { Kind::Weight };
        wanted.push(Wanted { name: spec.name, shape: spec.shape, kind, of_classes });
    }
    wanted
}

/// The file's name for each of our names that it has.
fn find(wanted: &[Wanted], state: &StateDict) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for Wanted { name, .. } in wanted {
        let mut there = spellings(name).into_iter().filter(|spelling| state.get(spelling).is_some());
        let Some(first) = there.next() else { continue };
        if let Some(second) = there.next() {
            let got = format!("{first} and {second}");
            return Err(Error::invalid(state.place(), name, "one tensor", got)
                .and_then_do("remove the one that is not meant, and save the file again"));
        }
        found.insert(name.clone(), first);
    }
    Ok(found)
}

/// Whether everything is there and nothing else.
fn check_names(
    space: &SearchSpace,
    state: &StateDict,
    wanted: &[Wanted],
    found: &BTreeMap<String, String>,
) -> Result<()> {
    let missing: Vec<_> =
        wanted.iter().map(|wanted| wanted.name.as_str()).filter(|name| !found.contains_key(*name)).collect();
    let used: BTreeSet<_> = found.values().map(String::as_str).collect();
    let left: Vec<_> =
        state.names().filter(|name| !used.contains(name) && !name.ends_with(COUNTER)).collect();
    if missing.is_empty() && left.is_empty() {
        return Ok(());
    }
    let parts = [("missing", missing), ("no part of it", left)];
    let told = parts.iter().filter(|(_, names)| !names.is_empty());
    let told: Vec<_> =
        told.map(|(what, names)| format!("{} {what} ({})", names.len(), some(names))).collect();
    let expected = format!("the {} tensors of space {}", wanted.len(), space.name());
    Err(Error::invalid(state.place(), "names", expected, told.join(", "))
        .and_then_do("give the space that the file was trained in with --space"))
}

/// The first few names.
fn some(names: &[&str]) -> String {
    let more = if names.len() > LISTED { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(LISTED)].join(", "))
}

fn check_shapes(
    space: &SearchSpace,
    state: &StateDict,
    wanted: &[Wanted],
    found: &BTreeMap<String, String>,
) -> Result<()> {
    let shape = |wanted: &Wanted| state.get(&found[&wanted.name]).map(|tensor| tensor.shape().to_vec());
    let others: Vec<_> =
        wanted.iter().filter(|wanted| shape(wanted).as_ref() != Some(&wanted.shape)).collect();
    let Some(first) = others.first() else { return Ok(()) };
    let expected = format!("shape {:?} in space {}", first.shape, space.name());
    let mut got = format!("{:?}", shape(first).unwrap_or_default());
    if others.len() > 1 {
        got = format!("{got}, and {} more of other shapes", others.len() - 1);
    }
    let classes = others.iter().all(|wanted| wanted.of_classes);
    let advice = if classes {
        "the file has other classes: write the space with `supernet space NAME --toml`, set its `classes`, and give it"
    } else {
        "the file is another space's, such as one of another width: give its space with --space"
    };
    Err(Error::invalid(state.place(), &first.name, expected, got).and_then_do(advice))
}
