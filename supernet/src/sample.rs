//! Accuracies of random sub-networks on validation images: the data of an accuracy estimator.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use base::random::rng_for;
use kernels::Backend;
use network::accuracy_file::{AccuracyFile, AccuracyHeader, AccuracyRow};
use network::checkpoint::Supernet;
use network::data::{Dataset, Split};
use network::eval::{Calibration, Evaluator};
use space::{Arch, SearchSpace, sampler};

use crate::error::Result;

/// Number of sub-networks to draw, and settings of their evaluation.
#[derive(Clone, Debug)]
pub struct SampleConfig {
    /// Number of sub-networks: 300.
    pub count: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Calibration of each sub-network.
    pub calibration: Calibration,
    /// The backend: the CPU's fastest.
    pub backend: Backend,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { count: 300, seed: 0, calibration: Calibration::default(), backend: Backend::detect() }
    }
}

/// Evaluates random sub-networks on validation images, preprocessed as for the supernet; the rows are in memory.
///
/// # Errors
/// If the images do not fit the supernet, or a sub-network has no accuracy.
pub fn sample(supernet: &Supernet, dataset: &Dataset, config: &SampleConfig) -> Result<AccuracyFile> {
    let SampleConfig { count, seed, calibration, backend } = config;
    let dataset = &supernet.see(dataset, false)?;
    let space = &supernet.space;
    let weights = &supernet.weights.on(backend)?;
    let evaluator =
        Evaluator { space, weights, dataset, calibration: *calibration, backend: backend.clone() };
    let never = AtomicBool::new(false);
    let mut rows = Vec::new();
    for arch in drawn(space, *count, *seed) {
        rows.extend(accuracy_row(&evaluator, arch, &never)?);
    }
    Ok(AccuracyHeader::new(supernet, dataset, *calibration).with_rows(rows))
}

/// Distinct sub-networks, the largest and the smallest first, which bound the accuracies to expect.
pub fn drawn(space: &SearchSpace, count: usize, seed: u64) -> Vec<Arch> {
    let mut rng = rng_for("accuracy rows", seed, &[]);
    let mut seen = BTreeSet::new();
    let mut drawn = Vec::new();
    let ends = [sampler::largest(space), sampler::smallest(space)];
    let randoms = std::iter::repeat_with(|| sampler::random(space, &mut rng));
    // a space may have fewer sub-networks than requested: the tries are bounded
    for arch in ends.into_iter().chain(randoms).take(count.saturating_mul(100)) {
        if drawn.len() == count {
            break;
        }
        if seen.insert(arch.clone()) {
            drawn.push(arch);
        }
    }
    drawn
}

/// The row of one sub-network on validation images; `None` when `stop` is set meanwhile.
///
/// # Errors
/// If the data set does not fit the space, or the sub-network has no accuracy.
pub fn accuracy_row(evaluator: &Evaluator<'_>, arch: Arch, stop: &AtomicBool) -> Result<Option<AccuracyRow>> {
    let accuracy = evaluator.accuracy_unless(stop, &arch, Split::Val)?;
    Ok(accuracy.map(|accuracy| {
        let top1 = accuracy.top1();
        let n = accuracy.n as u64;
        AccuracyRow { arch, top1, split: Split::Val, n }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_come_first_and_none_comes_twice() {
        let space = space::preset("tiny").expect("a preset");
        let archs = drawn(&space, 50, 1);
        assert_eq!(archs[..2], [sampler::largest(&space), sampler::smallest(&space)]);
        assert_eq!(archs.iter().collect::<BTreeSet<_>>().len(), 50);
        assert_eq!(drawn(&space, 20, 1), archs[..20], "a longer list begins with a shorter one");
        assert_ne!(drawn(&space, 50, 2), archs);
    }
}
