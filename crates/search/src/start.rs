//! The beginning of a search: sub-networks that keep all limits, or a proof that none does.
//!
//! Knows nothing of accuracies.

use space::{Index, Step, Steps};

use super::bound::Bound;
use super::genes;
use super::prices::Prices;
use super::quantity::Quantity;
use crate::error::{Error, Nearest, Result};

/// A sub-network at each resolution that keeps all limits, where one is found.
///
/// # Errors
/// [`Error::InfeasibleTogether`] if the bound rules out every resolution, [`Error::NotFound`] if it does not and
/// nothing was found.
pub(super) fn starts(prices: &Prices<'_>) -> Result<Vec<Vec<Index>>> {
    let mut bounds = Vec::new();
    let mut starts = Vec::new();
    let mut missed = Vec::new();
    for resolution in 0..prices.first().resolutions() {
        let bound = Bound::of(prices, resolution);
        let (violation, genes) = feasible(prices, resolution, &bound);
        if violation == 0.0 {
            starts.push(genes);
        } else {
            missed.push(genes);
            bounds.push(bound);
        }
    }
    if starts.is_empty() { Err(refusal(prices, &bounds, &missed)) } else { Ok(starts) }
}

/// The row that breaks the limits least at a resolution, by steepest descent from the bound's minimizers and from the
/// row with the least of each quantity.
fn feasible(prices: &Prices<'_>, resolution: usize, bound: &Bound) -> (f64, Vec<Index>) {
    let limited =
        prices.iter().flat_map(|priced| priced.limits.iter().map(|(quantity, _)| (priced.index, *quantity)));
    let least = limited.map(|(index, quantity)| index.least_at(resolution, quantity));
    let smallest = prices.first().least_at(resolution, Quantity::Macs);
    let mut starts: Vec<_> = least.chain([smallest]).collect();
    if prices.limits().count() > 1 {
        starts.extend(bound.minimizers.iter().cloned());
    }
    let ends = starts.into_iter().map(|start| descend(prices, start));
    ends.min_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1))).expect("at least one start")
}

pub(super) fn descend(prices: &Prices<'_>, mut row: Vec<Index>) -> (f64, Vec<Index>) {
    let mut steps = Steps::default();
    let mut least = prices.violation(&row);
    while least > 0.0 {
        genes::steps(prices.space(), &row, &[], &mut steps);
        let mut best: Option<(f64, Step)> = None;
        for &step in &steps.steps {
            let mut next = row.clone();
            steps.apply(prices.genome(), step, &mut next);
            let violation = prices.violation(&next);
            if violation < best.map_or(least, |best| best.0) {
                best = Some((violation, step));
            }
        }
        let Some((violation, step)) = best else { break };
        steps.apply(prices.genome(), step, &mut row);
        least = violation;
    }
    (least, row)
}

/// The error that the limits cannot be kept, or that nothing was found, with the closest row.
fn refusal(prices: &Prices<'_>, bounds: &[Bound], missed: &[Vec<Index>]) -> Error {
    let excess = |genes: &Vec<Index>| prices.factor(genes);
    let closest = missed.iter().min_by(|a, b| excess(a).total_cmp(&excess(b)).then_with(|| a.cmp(b)));
    let closest = closest.expect("a checked space has a resolution");
    let arch = prices.space().arch(closest);
    let weakest = bounds.iter().min_by(|a, b| a.factor.total_cmp(&b.factor)).expect("as many");
    let limits = prices.to_string();
    if weakest.is_proof() {
        let value = excess(closest);
        let text = format!("{:.4} times as large", (1e4 * value).ceil() / 1e4);
        let nearest = Box::new(Nearest { quantity: "all limits".to_string(), value, text, arch });
        let multipliers = weakest.multipliers.iter();
        let parts = multipliers.map(|(column, share)| format!("{share:.2} {}", prices.label(*column)));
        let sum = parts.collect::<Vec<_>>().join(" + ");
        let of = if prices.limit_memory() { " among sub-networks that keep the memory" } else { "" };
        let weights = sum + of;
        return Error::InfeasibleTogether { limits, weights, factor: weakest.factor, nearest };
    }
    Error::NotFound { limits, closest: Box::new(arch), got: prices.describe(closest) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::index::{CostIndex, Costs};
    use crate::testing::{all, index_of, priced};
    use latency::testing::made_up;
    use latency::{LatencyTable, Row};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use space::{SearchSpace, preset, sampler};

    /// A device on which big layers tend to be the fast ones.
    fn conflicting(space: &SearchSpace, seed: u64) -> CostIndex {
        let table = made_up(space);
        let mut rows = BTreeMap::new();
        for (key, row) in table.rows() {
            let mut rng =
                ChaCha8Rng::seed_from_u64(seed ^ u64::from(blake3::hash(key.as_bytes()).as_bytes()[0]));
            let us = 1e3 / row.us.powf(rng.random_range(0.3..1.0));
            rows.insert(key.clone(), Row { us, interval_us: Some([us, 1.05 * us]), ..*row });
        }
        let device = table.device.clone();
        let engine = table.engine.clone();
        let table =
            LatencyTable::new("conflicting.json", device, engine, "none", rows).expect("checked numbers");
        index_of(space, &table)
    }

    fn limits<'a>(index: &'a CostIndex, costs: &Costs, share: f64, which: usize) -> Prices<'a> {
        let limited = Quantity::ALL.into_iter().filter(|quantity| match quantity {
            Quantity::Latency | Quantity::Macs => true,
            Quantity::Params => which % 2 == 1,
            Quantity::Memory => which % 4 >= 2,
        });
        let limited = limited.map(|quantity| (quantity, share * costs.of(quantity)));
        priced(index, &limited.collect::<Vec<_>>())
    }

    /// The factor for all limits with which costs keep them.
    fn factor(prices: &Prices<'_>, costs: &Costs) -> f64 {
        prices.limits().map(|(column, limit)| costs.of(column.quantity) / limit).fold(0.0, f64::max)
    }

    /// Counts of attempts and results.
    #[derive(Debug, Default)]
    struct Tally {
        feasible: usize,
        found: usize,
        infeasible: usize,
        proved: usize,
    }

    impl Tally {
        fn count(&mut self, everything: &[Costs], limits: &Prices<'_>) {
            let least = everything.iter().map(|costs| factor(limits, costs)).fold(f64::INFINITY, f64::min);
            let kept = least <= 1.0;
            if kept {
                self.feasible += 1
            } else {
                self.infeasible += 1
            }
            match starts(limits) {
                Ok(starts) => {
                    assert!(starts.iter().all(|genes| limits.keeps(genes)));
                    self.found += 1;
                }
                Err(Error::InfeasibleTogether { factor, nearest, .. }) => {
                    assert!(!kept, "a wrong proof for {limits}");
                    let bounded = limits.limit_memory() || factor <= least + 1e-9;
                    assert!(bounded && least <= nearest.value + 1e-9, "{factor} {least} {nearest:?}");
                    self.proved += 1;
                }
                Err(Error::NotFound { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Whether costs are at most the limits, and below one of them.
    fn beats(costs: &Costs, prices: &Prices<'_>) -> bool {
        prices.limits().all(|(column, value)| costs.of(column.quantity) <= value)
            && prices.limits().any(|(column, value)| costs.of(column.quantity) < value)
    }

    /// The place of costs that no other is better than in each limited quantity.
    fn on_the_edge(index: &CostIndex, everything: &[Costs], which: usize, rng: &mut ChaCha8Rng) -> usize {
        let mut at = rng.random_range(0..everything.len());
        while let Some(better) =
            everything.iter().position(|costs| beats(costs, &limits(index, &everything[at], 1.0, which)))
        {
            at = better;
        }
        at
    }

    #[test]
    fn on_a_conflicting_device_what_is_feasible_is_found_and_no_proof_is_wrong() {
        let space = preset("tiny").expect("a preset");
        let mut random = Tally::default();
        let mut edge = Tally::default();
        for device in 0..5 {
            let index = conflicting(&space, device);
            let everything: Vec<Costs> =
                all(&index).iter().map(|arch| index.costs(arch).expect("legal")).collect();
            assert_eq!(everything.len(), 16_200);
            let mut rng = ChaCha8Rng::seed_from_u64(device);
            for problem in 0..100 {
                let of = &everything[rng.random_range(0..everything.len())];
                let limits = limits(&index, of, rng.random_range(0.8..1.02), problem);
                if limits.check_each().is_ok() {
                    random.count(&everything, &limits);
                }
            }
            // the only sub-network that keeps its limits, or one of few
            for problem in 0..20 {
                let at = on_the_edge(&index, &everything, problem, &mut rng);
                edge.count(&everything, &limits(&index, &everything[at], 1.0, problem));
            }
        }
        println!("{random:?} {edge:?}");
        assert!(random.found == random.feasible && random.feasible >= 30, "{random:?}");
        assert!(random.proved > 30 && 10 * random.proved >= 9 * random.infeasible, "{random:?}");
        assert!(edge.feasible == 100 && edge.found == 100, "{edge:?}");
    }

    /// 3 spaces, each with an ordinary and a conflicting device, x 50 problems.
    #[test]
    fn four_limits_at_once_are_kept() {
        let ofa =
            preset("ofa-mbv3-w1.0").expect("a preset").at_resolutions(&[128, 176, 224]).expect("listed");
        let spaces = [preset("tiny").expect("a preset"), preset("fashion").expect("a preset"), ofa];
        let mut kept = 0;
        for space in &spaces {
            let ordinary = index_of(space, &made_up(space));
            for index in [ordinary, conflicting(space, 7)] {
                let mut rng = ChaCha8Rng::seed_from_u64(9);
                for _ in 0..50 {
                    let costs = index.costs(&sampler::random(space, &mut rng)).expect("legal");
                    let limits = limits(&index, &costs, rng.random_range(1.0..1.05), 3);
                    assert_eq!(limits.limits().count(), 4);
                    kept += usize::from(starts(&limits).is_ok());
                }
            }
        }
        assert_eq!(kept, 300);
    }
}
