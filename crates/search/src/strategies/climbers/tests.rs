use latency::testing::made_up as made_up_table;
use latency::{LatencyTable, Row};
use space::{Encoded, Encoder, SearchSpace, preset, sampler};

use super::*;
use crate::Error;
use crate::genes::GeneFeatures;
use crate::testing::{
    Opaque, all, assert_every_seed_finds_the_best, climb_from, exact_front, found_front, index_of, limit,
    small, ten_seeds_and_the_best, vast,
};
use crate::{CostIndex, LATENCY, Limits, Objective, Quantity, SyntheticObjective, climb};
use rand::Rng;
use rayon::prelude::*;
use std::sync::atomic::AtomicBool;

/// A row with another latency, known exactly.
fn row_of(us: f64, row: &Row) -> Row {
    Row { us, interval_us: Some([us, us]), ..*row }
}

/// Costs by a made-up table, and a rugged landscape.
fn parts(space: &SearchSpace) -> (CostIndex, Rugged) {
    (index_of(space, &made_up_table(space)), Rugged::new(space, 5, 0.5))
}

/// The parameters' defaults are the settings' defaults.
#[test]
fn both_lists_of_defaults_are_the_same() {
    let (index, _) = parts(&small());
    let problem = Problem::new(index.space(), &[&index], &["macs"], &Limits::default()).expect("checked");
    let parameters = Parameters::new("climbers", PARAMETERS, &Default::default()).expect("defaults");
    assert_eq!(SearchConfig::of(&problem, &parameters).expect("defaults"), SearchConfig::default());
}

#[test]
fn the_optimum_is_found_for_every_seed() {
    let (index, estimator) = parts(&small());
    assert_every_seed_finds_the_best(&index, &estimator);
}

#[test]
fn the_same_seed_finds_the_same_at_any_thread_count() {
    let (index, estimator) = parts(&preset("fashion").expect("a preset"));
    let limits = limit(&index, 0.3).and("macs", 1.5e6);
    let at = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let config = SearchConfig { candidates: 5000, front_limits: 2, ..SearchConfig::default() };
        let stop = AtomicBool::new(false);
        pool.install(|| climb(&index, &estimator, &limits, &config, &stop).expect("feasible"))
    };
    let report = at(1);
    assert_eq!(report, at(2));
    assert!(
        report
            .front
            .iter()
            .all(|c| c.latency_upper_ms().expect("known") * 1e3 <= limits.of(LATENCY).expect("set") + 1e-6)
    );
    assert!(report.front.len() > 5 && report.front.last().expect("a front").arch == report.best.arch);
    assert!(report.best.count("macs") <= 1_500_000);
}

#[test]
fn limits_that_cannot_be_kept_are_told_apart() {
    let (index, estimator) = parts(&small());
    let tight = Limits::on(LATENCY, 1.0);
    assert!(matches!(climb_from(&index, &estimator, &tight, 0), Err(Error::Infeasible { .. })));

    // on a device where big layers are the fast ones, the fastest network is not the smallest
    let table = made_up_table(&small());
    let rows = table.rows().iter().map(|(key, row)| (key.clone(), row_of(1e3 / row.us, row))).collect();
    let device = table.device.clone();
    let engine = table.engine.clone();
    let table = LatencyTable::new("inverted.json", device, engine, "none", rows).expect("checked numbers");
    let index = index_of(&small(), &table);
    let least = |quantity| index.least(quantity).1.of(quantity);
    let latency = least(Quantity::Latency);
    let macs = least(Quantity::Macs);
    for (limits, alone) in [
        (Limits::on(LATENCY, latency), true),
        (Limits::on("macs", macs), true),
        (Limits::on(LATENCY, latency).and("macs", macs), false),
    ] {
        match climb_from(&index, &estimator, &limits, 0) {
            Ok(report) => assert!(alone && report.best.count("macs") > 0),
            Err(Error::InfeasibleTogether { factor, nearest, .. }) => {
                assert!(!alone && factor > 1.0 && nearest.value >= factor);
            }
            Err(Error::NotFound { closest, .. }) => {
                small().check(&closest).expect("the closest is a sub-network");
                assert!(!alone);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_stop_returns_the_best_so_far_and_another_space_is_refused() {
    let (index, estimator) = parts(&small());
    let limits = limit(&index, 0.5);
    let stopped = AtomicBool::new(true);
    let report = climb(&index, &estimator, &limits, &SearchConfig::default(), &stopped).expect("feasible");
    assert!(report.interrupted && report.candidates > 0);
    let tiny = preset("tiny").expect("a preset");
    let other = index_of(&tiny, &made_up_table(&tiny));
    let error = climb_from(&other, &estimator, &Limits::default(), 0).expect_err("another space").to_string();
    assert!(error.contains("estimator: space: expected tiny"), "{error}");
}

#[test]
fn work_is_bounded_by_the_number_of_candidates() {
    let (index, rugged) = parts(&preset("fashion").expect("a preset"));
    let config = SearchConfig { candidates: 3000, patience: usize::MAX, ..SearchConfig::default() };
    let spent = |objective: &dyn Objective| {
        let report = climb(&index, objective, &limit(&index, 0.4), &config, &AtomicBool::new(false));
        report.expect("feasible").candidates
    };
    let round = 8 * 300;
    // annealing may end before its share is spent, climbs alone do not
    let annealed = spent(&rugged);
    let climbed = spent(&Opaque(&rugged));
    assert!(annealed < 3000 + round, "{annealed}");
    assert!((3000..3000 + round).contains(&climbed), "{climbed}");
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let (index, estimator) = parts(&small());
    let good = SearchConfig::default();
    for (config, field) in [
        (SearchConfig { population: 0, ..good.clone() }, "population"),
        (SearchConfig { annealed: -0.1, ..good.clone() }, "annealed"),
        (SearchConfig { mutated: 1.5, ..good.clone() }, "mutated"),
        (SearchConfig { gene_probability: f64::NAN, ..good.clone() }, "gene_probability"),
    ] {
        let result = climb(&index, &estimator, &Limits::default(), &config, &AtomicBool::new(false));
        assert!(result.expect_err(field).to_string().contains(field));
    }
}

/// Gains of features, and of pairs of them, which make hills and valleys.
struct Rugged {
    encoder: Encoder,
    gains: Vec<f32>,
    pairs: Vec<(usize, usize, f32)>,
}

impl Rugged {
    fn new(space: &SearchSpace, seed: u64, strength: f32) -> Self {
        let encoder = Encoder::new(space);
        let additive = SyntheticObjective::new(space, seed);
        let mut single = Encoded::default();
        (0..encoder.len() as u32).for_each(|feature| single.push([feature]));
        let gains = additive.predict_encoded(&single).expect("its features");
        let mut rng = numbered_rng(seed, 2);
        let mut pairs = Vec::new();
        for right in 0..encoder.len() {
            for left in 0..right {
                pairs.push((left, right, 0.004 * strength * rng.random_range(-1.0..1.0f32)));
            }
        }
        Self { encoder, gains, pairs }
    }
}

impl Objective for Rugged {
    fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    fn predict_encoded(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for features in encoded.iter() {
            let mut on = vec![false; self.gains.len()];
            features.iter().for_each(|feature| on[*feature as usize] = true);
            let alone: f32 = features.iter().map(|feature| self.gains[*feature as usize]).sum();
            let pairs = self.pairs.iter().filter(|(left, right, _)| on[*left] && on[*right]);
            values.push(0.4 + alone + pairs.map(|(_, _, gain)| gain).sum::<f32>());
        }
        Ok(values)
    }

    fn slopes(&self, encoded: &Encoded) -> Result<Option<Vec<f32>>> {
        let mut rows = Vec::new();
        for features in encoded.iter() {
            let mut slopes = self.gains.clone();
            let mut on = vec![0.0; self.gains.len()];
            features.iter().for_each(|feature| on[*feature as usize] = 1.0);
            for (left, right, gain) in &self.pairs {
                slopes[*left] += gain * on[*right];
                slopes[*right] += gain * on[*left];
            }
            rows.extend(slopes);
        }
        Ok(Some(rows))
    }
}

/// 5 ruggednesses x 6 landscapes x 4 limits x 3 seeds, with slopes and without.
#[test]
fn on_tiny_no_run_misses_the_best_of_all() {
    let tiny = preset("tiny").expect("a preset");
    let index = index_of(&tiny, &made_up_table(&tiny));
    let everything = all(&index);
    assert_eq!(everything.len(), 16_200);
    let latencies: Vec<f64> =
        everything.iter().map(|arch| index.costs(arch).expect("legal").latency_upper_us).collect();
    let landscapes: Vec<(f32, u64)> = [0.0, 0.5, 1.0, 2.0, 4.0]
        .into_iter()
        .flat_map(|rugged| (0..6).map(move |seed| (rugged, seed)))
        .collect();
    let missed = landscapes.into_par_iter().map(|(rugged, landscape)| {
        let objective = Rugged::new(&tiny, landscape, rugged);
        let values = objective.predict(&everything).expect("legal");
        let mut missed = 0;
        for share in [0.1, 0.3, 0.5, 0.8] {
            let limits = limit(&index, share);
            let most = limits.of(LATENCY).expect("set");
            let feasible = values.iter().zip(&latencies).filter(|(_, latency)| **latency <= most);
            let best = feasible.map(|(value, _)| *value).fold(f32::NEG_INFINITY, f32::max);
            let opaque = Opaque(&objective);
            let ways: [&dyn Objective; 2] = [&objective, &opaque];
            for (seed, objective) in (0..3).flat_map(|seed| ways.map(|objective| (seed, objective))) {
                let config = SearchConfig { seed, ..SearchConfig::default() };
                let report = climb(&index, objective, &limits, &config, &AtomicBool::new(false));
                let found = objective.predict(&[report.expect("feasible").best.arch]).expect("legal")[0];
                missed += usize::from(found < best);
            }
        }
        missed
    });
    assert_eq!(missed.sum::<usize>(), 0, "of 720 runs");
}

/// Latencies in whole numbers of a unit, few enough to try each sum.
fn coarse(space: &SearchSpace, units: f64) -> CostIndex {
    let table = made_up_table(space);
    let largest = space.lower(&sampler::largest(space)).expect("legal");
    let sum: f64 = largest.iter().map(|layer| table.layer(layer).expect("covered").us).sum();
    let rows = table.rows().iter().map(|(key, row)| {
        let whole = (row.us / sum * units).round().max(1.0);
        (key.clone(), row_of(whole, row))
    });
    let rows = rows.collect();
    let device = table.device.clone();
    let engine = table.engine.clone();
    let table = LatencyTable::new("coarse.json", device, engine, "none", rows).expect("checked numbers");
    index_of(space, &table)
}

/// The greatest sums of gains within each latency up to `most`, by dynamic programming over the blocks of each depth.
fn best_sums(index: &CostIndex, objective: &Rugged, most: usize) -> Vec<f64> {
    let genome = index.genome();
    let features = GeneFeatures::new(index.space(), objective.encoder()).expect("the same");
    let of = |row: &space::GeneRow| {
        let gains = features.of(row).map(|feature| f64::from(objective.gains[feature as usize]));
        (index.costs_of(row).latency_upper_us.round() as usize, 0.4 + gains.sum::<f64>())
    };
    // the additional cost and gain of another row, which costs as much or more
    let added = |from: (usize, f64), to: (usize, f64)| (to.0 - from.0, to.1 - from.1);
    let all_with = |sums: &[f64], steps: &[(usize, f64)]| {
        let mut next = vec![f64::NEG_INFINITY; most + 1];
        for &(latency, gain) in steps {
            for at in latency..=most {
                next[at] = next[at].max(sums[at - latency] + gain);
            }
        }
        next
    };
    let named = |name: String| genome.find(&name).expect("a gene");
    let mut best = vec![f64::NEG_INFINITY; most + 1];
    for resolution in 0..index.resolutions() {
        // the shallowest, of blocks that cost least
        let base = index.least_at(resolution, crate::Quantity::Latency);
        let (constant, front) = of(&base);
        let mut sums = vec![f64::NEG_INFINITY; most + 1];
        sums[constant] = front;
        for stage in (1..).take_while(|stage| genome.find(&format!("s{stage}.depth")).is_some()) {
            let depth = named(format!("s{stage}.depth"));
            let mut ends = vec![f64::NEG_INFINITY; most + 1];
            for (value, listed) in genome.genes()[depth].values.iter().enumerate() {
                let blocks: usize = listed.to_string().parse().expect("a depth");
                let mut row = base.clone();
                row[depth] = value as Index;
                let mut of_depth = sums.clone();
                for block in 1..=blocks {
                    let [kernel, expand] =
                        ["kernel", "expand"].map(|what| named(format!("s{stage}.b{block}.{what}")));
                    let choices: Vec<_> = (0..genome.genes()[kernel].values.len())
                        .flat_map(|k| (0..genome.genes()[expand].values.len()).map(move |e| [k, e]))
                        .map(|[k, e]| {
                            (row[kernel], row[expand]) = (k as Index, e as Index);
                            (of(&row), row.clone())
                        })
                        .collect();
                    let least = choices.iter().min_by_key(|choice| choice.0.0).expect("a choice").clone();
                    row = least.1;
                    let steps: Vec<_> = choices.iter().map(|choice| added(least.0, choice.0)).collect();
                    of_depth = all_with(&of_depth, &steps);
                }
                let deeper = [added((constant, front), of(&row))];
                let of_depth = all_with(&of_depth, &deeper);
                ends.iter_mut().zip(&of_depth).for_each(|(end, sum)| *end = end.max(*sum));
            }
            sums = ends;
        }
        best.iter_mut().zip(&sums).for_each(|(best, sum)| *best = best.max(*sum));
    }
    (1..=most).for_each(|at| best[at] = best[at].max(best[at - 1]));
    best
}

/// 2 spaces x 6 shares of latency x 8 landscapes x 3 seeds.
#[test]
fn what_adds_up_is_found_as_by_dynamic_programming() {
    let ofa = preset("ofa-mbv3-w1.0").expect("a preset").at_resolutions(&[128, 176, 224]).expect("listed");
    for space in [preset("fashion").expect("a preset"), ofa] {
        let index = coarse(&space, 3000.0);
        let share = |share| limit(&index, share).of(LATENCY).expect("set").floor();
        let most = share(0.8) as usize;
        let missed = (0..8u64).into_par_iter().map(|landscape| {
            let objective = Rugged::new(&space, landscape, 0.0);
            let best = best_sums(&index, &objective, most);
            let mut missed = 0;
            for latency in [0.05, 0.1, 0.2, 0.35, 0.5, 0.8].map(share) {
                let limits = Limits::on(LATENCY, latency);
                for seed in 0..3 {
                    let config = SearchConfig { seed, ..SearchConfig::default() };
                    let report = climb(&index, &objective, &limits, &config, &AtomicBool::new(false));
                    let found = objective.predict(&[report.expect("feasible").best.arch]).expect("legal")[0];
                    // sums in f32 and in f64 differ by rounding
                    missed += usize::from(f64::from(found) < best[latency as usize] - 2e-6);
                }
            }
            missed
        });
        assert_eq!(missed.sum::<usize>(), 0, "{}: of 144 runs", space.name());
    }
}

#[test]
fn the_front_of_tiny_is_the_exact_one() {
    let tiny = preset("tiny").expect("a preset");
    let index = index_of(&tiny, &made_up_table(&tiny));
    let landscapes =
        [(0, 0.0), (1, 0.5), (2, 1.0), (3, 2.0)].map(|(seed, strength)| Rugged::new(&tiny, seed, strength));
    for (number, objective) in landscapes.iter().enumerate() {
        let exact = exact_front(&index, objective);
        let found = found_front(&index, objective);
        let missed = exact.iter().filter(|point| !found.contains(point)).count();
        assert!(
            missed == 0 && found.len() == exact.len(),
            "{number}: {missed} of {} missed, {} found",
            exact.len(),
            found.len()
        );
    }
}

#[test]
#[ignore = "takes minutes: cargo test -p once-for-all-search rugged_objectives_at_length -- --ignored --nocapture"]
fn rugged_objectives_at_length() {
    let space = vast();
    let index = index_of(&space, &made_up_table(&space));
    let pairs = Rugged::new(&space, 5, 1.0);
    for share in [0.3, 0.7] {
        for (way, objective) in [("slopes", &pairs as &dyn Objective), ("none", &Opaque(&pairs))] {
            let start = std::time::Instant::now();
            let (found, best) = ten_seeds_and_the_best(&index, objective, &limit(&index, share));
            let took = start.elapsed();
            println!("pairs {share} {way}: ten seeds {found:.4?}, best known {best:.4}, {took:.0?}");
        }
    }
}
