use latency::LatencyKind;
use latency::testing::made_up as made_up_table;
use search::testing::{
    Opaque, assert_every_seed_finds_the_best, climb_from, exact_front, found_front, limit, small,
    ten_seeds_and_the_best, vast,
};
use search::{CostIndex, LATENCY, Objective, SearchConfig, SearchReport};
use space::{Encoded, SearchSpace, preset};

use super::cost_index;
use crate::accuracy::AccuracyEstimator;
use crate::accuracy::tests::{made_up as made_up_rows, never_fitted, quick};

fn index_of(space: &SearchSpace) -> CostIndex {
    cost_index(space, &made_up_table(space), LatencyKind::Undisturbed).expect("covered")
}

fn parts(space: &SearchSpace) -> (CostIndex, AccuracyEstimator) {
    let estimator = AccuracyEstimator::fit(&made_up_rows(space, 300, 0.02, 0.0), &quick()).expect("rows");
    (index_of(space), estimator)
}

#[test]
fn the_optimum_is_found_for_every_seed() {
    let (index, estimator) = parts(&small());
    assert_every_seed_finds_the_best(&index, &estimator);
}

#[test]
fn the_front_of_tiny_is_the_exact_one() {
    let (index, estimator) = parts(&preset("tiny").expect("a preset"));
    assert_eq!(found_front(&index, &estimator), exact_front(&index, &estimator));
}

#[test]
fn an_error_of_the_estimator_passes_through_a_search() {
    let tiny = preset("tiny").expect("a preset");
    let estimator = never_fitted(&tiny, 0);
    let mut beyond = Encoded::default();
    beyond.push([u32::MAX]);
    let own = estimator.predict_encoded(&beyond).expect_err("no such feature").to_string();
    let through = Objective::predict_encoded(&estimator, &beyond).expect_err("no such feature");
    assert_eq!(through.to_string(), own);
    assert!(!matches!(crate::Error::from(through), crate::Error::Search(_)));
}

/// The figures at length are in docs/BENCHMARKS.md.
#[test]
fn on_a_rugged_objective_slopes_lead_every_seed_to_the_best() {
    let space = vast();
    let index = index_of(&space);
    let perceptron = never_fitted(&space, 5);
    let limits = limit(&index, 0.7);
    let find = |objective: &dyn Objective, seed: u64| {
        climb_from(&index, objective, &limits, seed).expect("feasible")
    };
    let found: Vec<SearchReport> = (0..3).map(|seed| find(&perceptron, seed)).collect();
    let without = (0..3).map(|seed| find(&Opaque(&perceptron), seed).best.accuracy());
    let best = found.iter().map(|report| report.best.accuracy()).chain(without).fold(f64::MIN, f64::max);
    for report in &found {
        assert!(report.best.accuracy() >= best - 5e-4, "{} {best}", report.best.accuracy());
        assert!(report.best.latency_upper_ms() <= limits.of(LATENCY).map(|us| 1e-3 * us));
        let base = SearchConfig::default();
        assert!(report.candidates as usize <= base.candidates + 8 * 300, "{}", report.candidates);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
    assert_eq!(pool.install(|| find(&perceptron, 1)), found[1]);
}

#[test]
#[ignore = "takes minutes: cargo test -p extract --lib rugged_objectives_at_length -- --ignored --nocapture"]
fn rugged_objectives_at_length() {
    let space = vast();
    let index = index_of(&space);
    let perceptron = never_fitted(&space, 5);
    for share in [0.3, 0.7] {
        for (way, objective) in [("slopes", &perceptron as &dyn Objective), ("none", &Opaque(&perceptron))] {
            let start = std::time::Instant::now();
            let (found, best) = ten_seeds_and_the_best(&index, objective, &limit(&index, share));
            let took = start.elapsed();
            println!("perceptron {share} {way}: ten seeds {found:.4?}, best known {best:.4}, {took:.0?}");
        }
    }
}
