use std::sync::atomic::AtomicBool;

use latency::LatencyKind;
use latency::testing::made_up as made_up_table;
use search::{
    CostIndex, Costs, LATENCY, Limits, Objective, Quantity, SearchConfig, SearchReport, climb, pareto,
};
use space::{Arch, Encoded, Encoder, SearchSpace, preset, sampler};

use super::cost_index;
use crate::accuracy::AccuracyEstimator;
use crate::accuracy::tests::{made_up as made_up_rows, never_fitted, quick};

/// 800 sub-networks: few enough to try them all.
fn small() -> SearchSpace {
    let text = preset("tiny").expect("a preset").to_toml();
    let text = text
        .replace("kernel = [3, 5, 7]", "kernel = [3, 7]")
        .replace("expand = [3, 4, 6]", "expand = [3, 6]");
    SearchSpace::from_toml("small.toml", &text).expect("a space")
}

/// All sub-networks.
fn all(space: &SearchSpace) -> Vec<Arch> {
    space.genome().all().iter().map(|row| space.arch(row)).collect()
}

fn index_of(space: &SearchSpace) -> CostIndex {
    cost_index(space, &made_up_table(space), LatencyKind::Undisturbed).expect("covered")
}

fn parts(space: &SearchSpace) -> (CostIndex, AccuracyEstimator) {
    let estimator = AccuracyEstimator::fit(&made_up_rows(space, 300, 0.02, 0.0), &quick()).expect("rows");
    (index_of(space), estimator)
}

fn run(index: &CostIndex, estimator: &AccuracyEstimator, limits: &Limits, seed: u64) -> SearchReport {
    let config = SearchConfig { seed, ..SearchConfig::default() };
    climb(index, estimator, limits, &config, &AtomicBool::new(false)).expect("feasible")
}

/// A latency limit so far between the least and the greatest.
fn limit(index: &CostIndex, share: f64) -> Limits {
    let least = index.least(Quantity::Latency).1.latency_upper_us;
    let most = index.costs(&sampler::largest(index.space())).expect("legal").latency_upper_us;
    Limits::on(LATENCY, least + share * (most - least))
}

#[test]
fn the_optimum_is_found_for_every_seed() {
    let space = small();
    let (index, estimator) = parts(&space);
    let everything = all(&space);
    assert_eq!(everything.len(), 2 * 20 * 20);
    let accuracies = estimator.predict(&everything).expect("legal");
    for share in [0.1, 0.4, 0.8] {
        let limits = limit(&index, share);
        let costs = |arch: &Arch| -> Costs { index.costs(arch).expect("legal") };
        let feasible = everything
            .iter()
            .zip(&accuracies)
            .filter(|(arch, _)| costs(arch).of(Quantity::Latency) <= limits.of(LATENCY).expect("set"));
        let (best, _) = feasible
            .max_by(|a, b| a.1.total_cmp(b.1).then(costs(b.0).latency_us.total_cmp(&costs(a.0).latency_us)))
            .expect("feasible");
        for seed in 0..20 {
            assert_eq!(run(&index, &estimator, &limits, seed).best.arch, *best, "limit {share}, seed {seed}");
        }
    }
}

#[test]
fn the_front_of_tiny_is_the_exact_one() {
    let tiny = preset("tiny").expect("a preset");
    let (index, estimator) = parts(&tiny);
    let everything = all(&tiny);
    let values = estimator.predict(&everything).expect("legal");
    let candidate = |(arch, value): (&Arch, &f32)| {
        index.candidate(arch.clone(), *value, &index.costs(arch).expect("legal"))
    };
    let exact = pareto::front(everything.iter().zip(&values).map(candidate));
    let config = SearchConfig { front_limits: 8, ..SearchConfig::default() };
    let limits = limit(&index, 1.0);
    let report = climb(&index, &estimator, &limits, &config, &AtomicBool::new(false)).expect("feasible");
    assert_eq!(report.front, exact);
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

/// The same objective for a search that may not see its slopes.
struct Opaque<'a>(&'a dyn Objective);

impl Objective for Opaque<'_> {
    fn encoder(&self) -> &Encoder {
        self.0.encoder()
    }

    fn predict_encoded(&self, encoded: &Encoded) -> search::Result<Vec<f32>> {
        self.0.predict_encoded(encoded)
    }
}

/// What the worst of so many seeds finds, and the best that is known: by all of them and by one with a wide budget.
fn worst_and_best(
    index: &CostIndex,
    objective: &dyn Objective,
    limits: &Limits,
    seeds: u64,
    wide: usize,
) -> (f64, f64) {
    let find = |seed: u64, candidates: usize, patience: usize| {
        let config = SearchConfig { seed, candidates, patience, ..SearchConfig::default() };
        climb(index, objective, limits, &config, &AtomicBool::new(false)).expect("feasible").best.accuracy()
    };
    let base = SearchConfig::default();
    let found: Vec<f64> = (0..seeds).map(|seed| find(seed, base.candidates, base.patience)).collect();
    println!("{found:.4?}");
    let worst = found.iter().copied().fold(f64::INFINITY, f64::min);
    (worst, found.into_iter().chain([find(1000, wide, usize::MAX)]).fold(worst, f64::max))
}

/// A space of 10^19 sub-networks.
fn vast() -> (SearchSpace, CostIndex) {
    let space = preset("ofa-mbv3-w1.0").expect("a preset").at_resolutions(&[160, 192, 224]).expect("listed");
    let index = index_of(&space);
    (space, index)
}

/// The figures at length are in docs/BENCHMARKS.md.
#[test]
fn on_a_rugged_objective_slopes_lead_every_seed_to_the_best() {
    let (space, index) = vast();
    let (perceptron, limits) = (never_fitted(&space, 5), limit(&index, 0.7));
    let find = |objective: &dyn Objective, seed: u64| {
        let config = SearchConfig { seed, ..SearchConfig::default() };
        climb(&index, objective, &limits, &config, &AtomicBool::new(false)).expect("feasible")
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
    let (space, index) = vast();
    let perceptron = never_fitted(&space, 5);
    for share in [0.3, 0.7] {
        for (way, objective) in [("slopes", &perceptron as &dyn Objective), ("none", &Opaque(&perceptron))] {
            let start = std::time::Instant::now();
            let (worst, best) = worst_and_best(&index, objective, &limit(&index, share), 10, 2_000_000);
            println!(
                "perceptron {share} {way}: worst of ten {worst:.4}, best known {best:.4}, {:.0?}",
                start.elapsed()
            );
        }
    }
}
