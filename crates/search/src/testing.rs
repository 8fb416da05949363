//! Small spaces, limits, and all sub-networks of a space by brute force, for tests of this crate and of its users.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use space::{Arch, Encoded, Encoder, GeneRow, SearchSpace, preset, sampler};

use crate::accuracy_search::{SearchReport, climb};
use crate::candidate::Candidate;
use crate::error::Result;
use crate::estimator::{Estimator, Predictor};
use crate::index::{CostIndex, Costs};
use crate::metric::{Fidelity, LATENCY, Limits, Metric, MetricValue};
use crate::objective::Objective;
use crate::pareto;
use crate::quantity::Quantity;
use crate::rows::GeneRows;
use crate::strategies::climbers::SearchConfig;

/// 800 sub-networks: few enough to try them all.
///
/// # Panics
/// Never, for the preset is valid.
pub fn small() -> SearchSpace {
    let text = preset("tiny").expect("a preset").to_toml();
    let text = text
        .replace("kernel = [3, 5, 7]", "kernel = [3, 7]")
        .replace("expand = [3, 4, 6]", "expand = [3, 6]");
    SearchSpace::from_toml("small.toml", &text).expect("a space")
}

/// A space of 10^19 sub-networks.
///
/// # Panics
/// Never, for the preset is valid.
pub fn vast() -> SearchSpace {
    preset("ofa-mbv3-w1.0").expect("a preset").at_resolutions(&[160, 192, 224]).expect("listed")
}

/// All sub-networks.
pub fn all(index: &CostIndex) -> Vec<Arch> {
    index.genome().all().iter().map(|row| index.space().arch(row)).collect()
}

/// A latency limit at a share of the way from the least latency to that of the largest sub-network.
///
/// # Panics
/// Never, for the largest sub-network is one of the space.
pub fn limit(index: &CostIndex, share: f64) -> Limits {
    let least = index.least(Quantity::Latency).1.latency_upper_us;
    let most = index.costs(&sampler::largest(index.space())).expect("legal").latency_upper_us;
    Limits::on(LATENCY, least + share * (most - least))
}

/// The result of climbers for a seed, with the default settings.
///
/// # Errors
/// As [`climb`].
pub fn climb_from(
    index: &CostIndex,
    objective: &dyn Objective,
    limits: &Limits,
    seed: u64,
) -> Result<SearchReport> {
    let config = SearchConfig { seed, ..SearchConfig::default() };
    climb(index, objective, limits, &config, &AtomicBool::new(false))
}

/// Checks, on a space that is small enough to try all of it, that every seed finds the best sub-network under a tight, a
/// middling and a loose limit.
///
/// # Panics
/// If one does not.
pub fn assert_every_seed_finds_the_best(index: &CostIndex, objective: &dyn Objective) {
    let everything = all(index);
    assert_eq!(everything.len(), 2 * 20 * 20);
    let accuracies = objective.predict(&everything).expect("legal");
    for share in [0.1, 0.4, 0.8] {
        let limits = limit(index, share);
        let costs = |arch: &Arch| -> Costs { index.costs(arch).expect("legal") };
        let feasible = everything
            .iter()
            .zip(&accuracies)
            .filter(|(arch, _)| costs(arch).of(Quantity::Latency) <= limits.of(LATENCY).expect("set"));
        let (best, _) = feasible
            .max_by(|a, b| a.1.total_cmp(b.1).then(costs(b.0).latency_us.total_cmp(&costs(a.0).latency_us)))
            .expect("feasible");
        for seed in 0..20 {
            let report = climb_from(index, objective, &limits, seed).expect("feasible");
            assert_eq!(report.best.arch, *best, "limit {share}, seed {seed}");
        }
    }
}

/// The front of accuracy against latency of all sub-networks of a space.
///
/// # Panics
/// If the objective is of another space.
pub fn exact_front(index: &CostIndex, objective: &dyn Objective) -> Vec<Candidate> {
    let everything = all(index);
    let values = objective.predict(&everything).expect("legal");
    let pairs = everything.iter().zip(&values);
    pareto::front(
        pairs.map(|(arch, value)| index.candidate(arch.clone(), *value, &index.costs(arch).expect("legal"))),
    )
}

/// The front that a search under a loose limit finds.
///
/// # Panics
/// If the objective is of another space.
pub fn found_front(index: &CostIndex, objective: &dyn Objective) -> Vec<Candidate> {
    let config = SearchConfig { front_limits: 8, ..SearchConfig::default() };
    let limits = limit(index, 1.0);
    climb(index, objective, &limits, &config, &AtomicBool::new(false)).expect("feasible").front
}

/// The best accuracy that each of ten seeds finds, and the best known one: over all of them and one search with a wide
/// budget.
///
/// # Panics
/// If the limits cannot be kept.
pub fn ten_seeds_and_the_best(
    index: &CostIndex,
    objective: &dyn Objective,
    limits: &Limits,
) -> (Vec<f64>, f64) {
    let accuracy = |config: SearchConfig| {
        climb(index, objective, limits, &config, &AtomicBool::new(false)).expect("feasible").best.accuracy()
    };
    let found: Vec<f64> =
        (0..10).map(|seed: u64| accuracy(SearchConfig { seed, ..SearchConfig::default() })).collect();
    let candidates = 2_000_000;
    let patience = usize::MAX;
    let wide = accuracy(SearchConfig { seed: 1000, candidates, patience, ..SearchConfig::default() });
    let best = found.iter().copied().fold(wide, f64::max);
    (found, best)
}

/// The same objective for a search that may not see its slopes.
pub struct Opaque<'a>(pub &'a dyn Objective);

impl Objective for Opaque<'_> {
    fn encoder(&self) -> &Encoder {
        self.0.encoder()
    }

    fn predict_encoded(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        self.0.predict_encoded(encoded)
    }
}

/// A predictor that counts its estimates, is cheaper at lower fidelity, and stops the search after a number of them.
pub struct Counting<'a> {
    inner: Predictor<'a>,
    estimated: AtomicUsize,
    most: usize,
}

impl<'a> Counting<'a> {
    /// A predictor that stops the search after `most` estimates.
    pub fn new(inner: Predictor<'a>, most: usize) -> Self {
        Self { inner, estimated: AtomicUsize::new(0), most }
    }

    /// Number of estimates so far.
    pub fn estimated(&self) -> usize {
        self.estimated.load(Ordering::Relaxed)
    }
}

impl Estimator for Counting<'_> {
    fn metrics(&self) -> &[Metric] {
        self.inner.metrics()
    }

    fn price(&self, _row: &GeneRow, fidelity: Fidelity) -> f64 {
        fidelity.share()
    }

    fn has_fidelities(&self) -> bool {
        true
    }

    fn estimate(&self, rows: &GeneRows, fidelity: Fidelity, stop: &AtomicBool) -> Result<Vec<MetricValue>> {
        let mut values = self.inner.estimate(rows, fidelity, stop)?;
        let before = self.estimated();
        if before + values.len() > self.most {
            stop.store(true, Ordering::Relaxed);
            values.truncate(self.most - before);
        }
        self.estimated.fetch_add(values.len(), Ordering::Relaxed);
        Ok(values)
    }

    fn relaxed(&self) -> Option<&Predictor<'_>> {
        Some(&self.inner)
    }
}

#[cfg(test)]
pub(crate) use of_tables::{index_of, priced};

/// Costs by a latency table.
#[cfg(test)]
mod of_tables {
    use latency::{LatencyKind, LatencyModel, LatencyTable};
    use space::{LayerSpec, SearchSpace};

    use crate::error::Result;
    use crate::index::{CostIndex, Latencies, Microseconds};
    use crate::prices::{Column, Prices};
    use crate::quantity::Quantity;

    struct Model<'a>(LatencyModel<'a>);

    impl Latencies for Model<'_> {
        fn layer(&self, layer: &LayerSpec) -> Result<Microseconds> {
            Ok(microseconds(self.0.layer(layer)?))
        }

        fn constant(&self) -> Microseconds {
            microseconds(self.0.constant())
        }
    }

    fn microseconds(latency: latency::Latency) -> Microseconds {
        Microseconds { expected: latency.us, upper: latency.high_us }
    }

    /// The costs of a space with the latencies of a table that has all its layers.
    pub(crate) fn index_of(space: &SearchSpace, table: &LatencyTable) -> CostIndex {
        let model = Model(LatencyModel::of_kind(table, space, LatencyKind::Undisturbed));
        CostIndex::new(space, Some(&model)).expect("covered")
    }

    /// Limits on an index's quantities.
    pub(crate) fn priced<'a>(index: &'a CostIndex, limits: &[(Quantity, f64)]) -> Prices<'a> {
        limits.iter().fold(
            Prices::new(vec![index]),
            |prices: Prices<'a>, &(quantity, most): &(Quantity, f64)| {
                prices.within(Column { index: 0, quantity }, most)
            },
        )
    }
}
