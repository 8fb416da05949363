use super::*;
use crate::Error;
use crate::accuracy::AccuracyEstimator;
use crate::accuracy::tests::{made_up as made_up_rows, quick};
use crate::latency::table::tests::made_up as made_up_table;
use crate::latency::{LatencyTable, Row};
use crate::search::{Costs, Quantity};
use std::collections::BTreeSet;
use supernet::space::{Arch, SearchSpace, preset, sampler};

/// 800 sub-networks: few enough to try them all.
fn small() -> SearchSpace {
    let text = preset("tiny").expect("a preset").to_toml();
    let text = text
        .replace("kernel = [3, 5, 7]", "kernel = [3, 7]")
        .replace("expand = [3, 4, 6]", "expand = [3, 6]");
    SearchSpace::from_toml("small.toml", &text).expect("a space")
}

/// All sub-networks, by single steps from the smallest at each resolution.
pub(crate) fn all(index: &CostIndex) -> Vec<Arch> {
    let (genome, space) = (index.genome(), index.space());
    let mut found = BTreeSet::new();
    let mut open: Vec<Vec<Gene>> =
        (0..genome.resolutions).map(|resolution| index.least_at(resolution, Quantity::Macs)).collect();
    let mut moves = Vec::new();
    while let Some(genes) = open.pop() {
        if found.insert(genes.clone()) {
            genome.moves(&genes, &mut moves);
            for step in &moves {
                let mut next = genes.clone();
                step.apply(&mut next);
                open.push(next);
            }
        }
    }
    found.iter().map(|genes| genome.decode(space, genes)).collect()
}

fn parts(space: &SearchSpace) -> (CostIndex, AccuracyEstimator) {
    let index = CostIndex::new(space, &made_up_table(space)).expect("covered");
    let estimator = AccuracyEstimator::fit(&made_up_rows(space, 300, 0.02, 0.0), &quick()).expect("rows");
    (index, estimator)
}

fn run(index: &CostIndex, estimator: &AccuracyEstimator, limits: &Limits, seed: u64) -> Result<SearchReport> {
    let config = SearchConfig { seed, ..SearchConfig::default() };
    evolve(index, estimator, limits, &config, &AtomicBool::new(false))
}

/// A latency limit so far between the least and the greatest.
fn limit(index: &CostIndex, share: f64) -> Limits {
    let least = index.least(Quantity::Latency).1.latency_upper_us;
    let most = index.costs(&sampler::largest(index.space())).expect("legal").latency_upper_us;
    Limits { latency_us: Some(least + share * (most - least)), ..Limits::default() }
}

#[test]
fn the_optimum_is_found_for_every_seed() {
    let space = small();
    let (index, estimator) = parts(&space);
    let everything = all(&index);
    assert_eq!(everything.len(), 2 * 20 * 20);
    let accuracies = estimator.predict(&everything).expect("legal");
    for share in [0.1, 0.4, 0.8] {
        let limits = limit(&index, share);
        let costs = |arch: &Arch| -> Costs { index.costs(arch).expect("legal") };
        let feasible = everything.iter().zip(&accuracies).filter(|(arch, _)| limits.keeps(&costs(arch)));
        let (best, _) = feasible
            .max_by(|a, b| a.1.total_cmp(b.1).then(costs(b.0).latency_us.total_cmp(&costs(a.0).latency_us)))
            .expect("feasible");
        for seed in 0..20 {
            let report = run(&index, &estimator, &limits, seed).expect("feasible");
            assert_eq!(report.best.arch, *best, "limit {share}, seed {seed}");
        }
    }
}

#[test]
fn the_same_seed_finds_the_same_at_any_thread_count() {
    let (index, estimator) = parts(&preset("fashion").expect("a preset"));
    let limits = Limits { macs: Some(1.5e6), ..limit(&index, 0.3) };
    let at = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let config = SearchConfig { candidates: 5000, front_limits: 2, ..SearchConfig::default() };
        let stop = AtomicBool::new(false);
        pool.install(|| evolve(&index, &estimator, &limits, &config, &stop).expect("feasible"))
    };
    let report = at(1);
    assert_eq!(report, at(2));
    assert!(
        report
            .front
            .iter()
            .all(|c| c.latency_upper_ms.expect("known") * 1e3 <= limits.latency_us.expect("set") + 1e-6)
    );
    assert!(report.front.len() > 5 && report.front.last().expect("a front").arch == report.best.arch);
    assert!(report.best.macs <= 1_500_000);
}

#[test]
fn limits_that_cannot_be_kept_are_told_apart() {
    let (index, estimator) = parts(&small());
    let tight = Limits { latency_us: Some(1.0), ..Limits::default() };
    assert!(matches!(run(&index, &estimator, &tight, 0), Err(Error::Infeasible { .. })));

    // on a device where big layers are the fast ones, the fastest network is not the smallest
    let table = made_up_table(&small());
    let inverted = |row: &Row| {
        let us = 1e3 / row.us;
        Row { us, interval_us: Some([us, us]), ..*row }
    };
    let rows = table.rows().iter().map(|(key, row)| (key.clone(), inverted(row))).collect();
    let (device, engine) = (table.device.clone(), table.engine.clone());
    let table = LatencyTable::new("inverted.json", device, engine, "none", rows).expect("checked numbers");
    let index = CostIndex::new(&small(), &table).expect("covered");
    let least = |quantity| index.least(quantity).1.of(quantity);
    let (latency_us, macs) = (Some(least(Quantity::Latency)), Some(least(Quantity::Macs)));
    for (limits, alone) in [
        (Limits { latency_us, ..Limits::default() }, true),
        (Limits { macs, ..Limits::default() }, true),
        (Limits { latency_us, macs, ..Limits::default() }, false),
    ] {
        match run(&index, &estimator, &limits, 0) {
            Ok(report) => assert!(alone && report.best.macs > 0),
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
    let report = evolve(&index, &estimator, &limits, &SearchConfig::default(), &stopped).expect("feasible");
    assert!(report.interrupted && report.candidates > 0);
    let tiny = preset("tiny").expect("a preset");
    let other = CostIndex::new(&tiny, &made_up_table(&tiny)).expect("covered");
    let error = run(&other, &estimator, &Limits::default(), 0).expect_err("another space").to_string();
    assert!(error.contains("estimator: space: expected tiny"), "{error}");
}

#[test]
fn work_is_bounded_by_the_number_of_candidates() {
    let (index, estimator) = parts(&preset("fashion").expect("a preset"));
    let config = SearchConfig { candidates: 3000, patience: usize::MAX, ..SearchConfig::default() };
    let report =
        evolve(&index, &estimator, &limit(&index, 0.4), &config, &AtomicBool::new(false)).expect("feasible");
    let round = 8 * 300;
    assert!((3000..3000 + round).contains(&report.candidates), "{}", report.candidates);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let (index, estimator) = parts(&small());
    let good = SearchConfig::default();
    for (config, field) in [
        (SearchConfig { population: 0, ..good.clone() }, "population"),
        (SearchConfig { mutated: 1.5, ..good.clone() }, "mutated"),
        (SearchConfig { gene_probability: f64::NAN, ..good.clone() }, "gene_probability"),
    ] {
        let result = evolve(&index, &estimator, &Limits::default(), &config, &AtomicBool::new(false));
        assert!(result.expect_err(field).to_string().contains(field));
    }
}
