//! Chooses the whole sub-networks to measure.

use std::collections::{BTreeMap, BTreeSet};

use base::random::rng_for;
use rand::Rng;
use space::{Arch, End, SearchSpace, cost};

use super::plan_file::NetworkLayer;
use crate::error::Result;

/// Sub-networks to choose each measured one from, so that they can be spread evenly over MACs.
const CANDIDATES_EACH: usize = 10;

/// Random sub-networks of a space, spread evenly over MACs, each with its layers.
///
/// # Errors
/// None for a checked space.
pub(super) fn networks(
    space: &SearchSpace,
    count: usize,
    seed: u64,
) -> Result<BTreeMap<Arch, Vec<NetworkLayer>>> {
    let mut all = BTreeMap::new();
    let mut macs = Vec::new();
    for arch in candidate_archs(space, count * CANDIDATES_EACH, seed) {
        let layers = space.lower(&arch)?;
        macs.push((arch.clone(), cost(&layers).macs as f64));
        all.insert(arch, layers.iter().map(NetworkLayer::of).collect());
    }
    let chosen: BTreeSet<Arch> = stratified(&macs, count).into_iter().collect();
    all.retain(|arch, _| chosen.contains(arch));
    Ok(all)
}

/// Random sub-networks; a third of them led towards the smallest one by as many genes as chance decides, a third
/// towards the largest, so that the ends of the range are among them.
fn candidate_archs(space: &SearchSpace, count: usize, seed: u64) -> BTreeSet<Arch> {
    let mut rng = rng_for("latency candidates", seed, &[]);
    let genome = space.genome();
    let ends = [End::Smallest, End::Largest].map(|end| genome.corner(|_| end));
    let mut archs = BTreeSet::new();
    for index in 0..count {
        let mut row = genome.random(&mut rng);
        if let Some(end) = ends.get(index % 3) {
            let times = rng.random_range(0..8);
            for _ in 0..times {
                genome.cross(&mut row, end, &mut rng);
            }
        }
        archs.insert(space.arch(&row));
    }
    archs
}

/// So many of the candidates, spread evenly over the range of their costs: the range is cut into as many equal
/// strata, and the one nearest to the middle of each is taken that is not taken yet.
pub fn stratified(costs: &[(Arch, f64)], count: usize) -> Vec<Arch> {
    let mut left: Vec<&(Arch, f64)> = costs.iter().collect();
    left.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    let (Some(first), Some(last)) = (left.first(), left.last()) else { return Vec::new() };
    let low = first.1;
    let width = (last.1 - first.1) / count.max(1) as f64;
    let mut chosen = Vec::new();
    for stratum in 0..count.min(left.len()) {
        let middle = low + (stratum as f64 + 0.5) * width;
        let distance = |index: &usize| (left[*index].1 - middle).abs();
        let nearest = (0..left.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        chosen.push(left.remove(nearest.expect("as many candidates as requested")).0.clone());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strata_are_even() {
        let arch = |kernel: usize| format!("r8:k{kernel}e3").parse::<Arch>().expect("an arch");
        // most candidates are in the middle, as random sub-networks are
        let latencies: Vec<_> =
            (0..1000).map(|i| (arch(i), 100.0 + 50.0 * ((i as f64 - 500.0) / 500.0).powi(3))).collect();
        let chosen = stratified(&latencies, 10);
        let of = |arch: &Arch| latencies.iter().find(|(other, _)| other == arch).expect("a candidate").1;
        for (index, arch) in chosen.iter().enumerate() {
            let stratum = 50.0 + 10.0 * index as f64;
            assert!((stratum..=stratum + 10.0).contains(&of(arch)), "{index}: {}", of(arch));
        }
        assert_eq!(stratified(&latencies[..3], 10).len(), 3);
        assert!(stratified(&[], 10).is_empty());
    }
}
