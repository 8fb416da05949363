//! Strategies on the public table of NAS-Bench-201, beside figures that were published or computed by others.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use study::{ProblemFile, Study, StudyConfig, Summary};

/// The public tables, if they are there.
fn tables() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/benchmarks");
    if !path.join("nasbench201.csv").exists() {
        eprintln!("skipped: {} is absent", path.display());
        return None;
    }
    Some(path)
}

/// A problem of examples/studies with the public tables.
fn problem(name: &str) -> Option<ProblemFile> {
    let tables = tables()?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/studies").join(name);
    let text = std::fs::read_to_string(&path).expect("readable");
    let read = |file: &Path| study::table::Columns::read(&tables.join(file));
    let files = study::Files { columns: &read, space: &|name| Ok(space::preset(name)?) };
    Some(ProblemFile::from_toml(name, &text, &files).expect("a problem"))
}

fn runs() -> usize {
    std::env::var("STUDY_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(100)
}

#[test]
fn strategies_reach_what_was_published() {
    // test accuracy after 200 epochs: random, REINFORCE, regularized evolution
    let published = [
        ("nas-bench-201-c10.toml", [93.87, 93.94, 94.09]),
        ("nas-bench-201-c100.toml", [71.55, 71.87, 72.36]),
        ("nas-bench-201-in16.toml", [45.23, 45.57, 45.79]),
    ];
    for (name, expected) in published {
        let Some(mut file) = problem(name) else { return };
        let config = StudyConfig { seeds: Some(runs()), ..StudyConfig::default() };
        let study = Study::run(&mut file, &config, &AtomicBool::new(false)).expect("a study");
        println!("{name} {:?}", study.oracles);
        for results in &study.results {
            let end =
                |curve: &study::Curve| -> Summary { curve.values.last().copied().flatten().expect("found") };
            let [valid, test] = [&results.values[0], &results.values[1]].map(end);
            println!(
                "{:12} {:6.1} evaluations, valid12 {:.2} +- {:.2}, test200 {:.2} +- {:.2}, regret {:.2} {:.2} {:.2}",
                results.label,
                results.evaluations.mean,
                valid.mean,
                valid.deviation,
                test.mean,
                test.deviation,
                results.end.expect("found").low,
                results.end.expect("found").median,
                results.end.expect("found").high
            );
            let among = ["random", "reinforce", "evolution"].iter().position(|name| *name == results.label);
            if let Some(expected) = among.map(|at| expected[at]) {
                // the standard error of so few runs comes in addition
                let bound = 0.15
                    + if study.seeds < 500 {
                        2.0 * test.deviation / (study.seeds as f64).sqrt()
                    } else {
                        0.0
                    };
                assert!(
                    (test.mean - expected).abs() < bound,
                    "{name}, {}: {} {expected}",
                    results.label,
                    test.mean
                );
            }
            if ["local", "portfolio"].contains(&results.label.as_str()) {
                assert_eq!(results.end.expect("found").median, 0.0, "{name}, {}", results.label);
            }
        }
    }
}

#[test]
fn halving_of_local_search_beats_whole_trainings() {
    let Some(mut file) = problem("nas-bench-201-c10-halving.toml") else { return };
    let config = StudyConfig { seeds: Some(runs()), ..StudyConfig::default() };
    let study = Study::run(&mut file, &config, &AtomicBool::new(false)).expect("a study");
    let regret = |label: &str| {
        let results = study.results.iter().find(|results| results.label == label).expect("of the file");
        println!("{label}: {:?}, {:.1} evaluations", results.end, results.evaluations.mean);
        results.end.expect("found").median
    };
    let [random, local, halving, of_local] =
        ["random", "local", "halving of random", "halving of local"].map(regret);
    assert!(halving < 0.5 * random && of_local < 0.5 * local, "{random} {local} {halving} {of_local}");
}

#[test]
fn nsga2_reaches_the_front_and_is_above_random() {
    let Some(mut file) = problem("nas-bench-201-raspi4.toml") else { return };
    let config = StudyConfig { seeds: Some(runs()), prices: 10, ..StudyConfig::default() };
    let study = Study::run(&mut file, &config, &AtomicBool::new(false)).expect("a study");
    let of_results = |results: &study::study::Results| -> Vec<f64> {
        let values = &results.hypervolume.as_ref().expect("two goals").values;
        values.iter().map(|summary| summary.expect("it is always known").median).collect()
    };
    let volumes: Vec<Vec<f64>> = study.results.iter().map(of_results).collect();
    for (results, volumes) in study.results.iter().zip(&volumes) {
        println!("{:20} at 100 to 1,000 evaluations: {volumes:.4?}", results.label);
    }
    let [random, nsga2, ..] = &volumes[..] else { panic!("two strategies") };
    // at 100, 300 and 1,000 evaluations
    for at in [0, 2, 9] {
        assert!(nsga2[at] > random[at], "{} {}", nsga2[at], random[at]);
    }
    assert!(nsga2[9] >= 0.99, "{}", nsga2[9]);
}

#[test]
fn the_exact_strategy_proves_the_best_of_the_table() {
    let Some(mut file) = problem("nas-bench-201-c100.toml") else { return };
    file.strategies.truncate(1);
    file.strategies[0].strategy = search::StrategyKind::named("exact").expect("a strategy");
    let config = StudyConfig { seeds: Some(1), budget: Some(1e12), prices: 1 };
    let study = Study::run(&mut file, &config, &AtomicBool::new(false)).expect("a study");
    let exact = &study.results[0];
    assert_eq!((exact.proved, exact.evaluations.mean), (1.0, 15_625.0));
    assert_eq!(exact.end.expect("found").high, 0.0);
    assert_eq!((study.oracles[0].by_goal, study.oracles[1].by_goal), (61.32, 72.28));
}
