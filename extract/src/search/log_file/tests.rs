use std::sync::atomic::AtomicBool;

use latency::LatencyKind;
use latency::testing::made_up as made_up_table;
use search::testing::{Counting, limit, small};
use search::{
    Climbers, CostIndex, Ended, Estimator, Outcome, Predictor, Problem, Random, SearchConfig, Strategy,
    SyntheticObjective, solve,
};
use space::{preset, sampler};

use super::*;
use crate::search::cost_index;

fn setting(space: &SearchSpace) -> LogSetting {
    LogSetting::new(space, 4)
        .with_metric(Metric::new("top1", "share", Better::Higher))
        .with_input("estimator", "ab12")
}

fn index_of(space: &SearchSpace) -> CostIndex {
    cost_index(space, &made_up_table(space), LatencyKind::Undisturbed).expect("covered")
}

/// A strategy's outcome with a log, interrupted after `most` estimates; and the number of estimates.
fn solved(index: &CostIndex, name: &str, most: usize, log: &mut dyn Log) -> (Outcome, usize) {
    let objective = SyntheticObjective::new(index.space(), 2);
    let counting = Counting::new(Predictor::top1(index.space(), &objective).expect("the same space"), most);
    let estimators: [&dyn Estimator; 2] = [&counting, index];
    let limits = limit(index, 0.5);
    let problem = Problem::new(index.space(), &estimators, &["top1", "latency"], &limits).expect("checked");
    let problem = problem.with_seed(4);
    let config = SearchConfig { candidates: 2500, front_limits: 2, ..SearchConfig::default() };
    let mut strategy: Box<dyn Strategy> = match name {
        "climbers" => Box::new(Climbers::new(&problem, &config).expect("feasible")),
        _ => Box::new(Random::new(&problem, 600)),
    };
    let outcome = solve(&problem, &mut *strategy, log, &AtomicBool::new(false)).expect("feasible");
    (outcome, counting.estimated())
}

#[test]
fn in_parts_with_a_file_it_is_the_same_search() {
    let index = index_of(&preset("tiny").expect("a preset"));
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["climbers", "random"] {
        let (whole, in_all) = solved(&index, name, usize::MAX, &mut ());
        let one = folder.path().join(format!("{name} at once.jsonl"));
        let parts = folder.path().join(format!("{name} in parts.jsonl"));
        let open =
            |path: &Path| LogFile::open(path, index.space(), &setting(index.space())).expect("its own");
        assert_eq!(solved(&index, name, usize::MAX, &mut open(&one)), (whole.clone(), in_all));
        let mut made = 0;
        for most in [101, 7] {
            let (part, estimated) = solved(&index, name, most, &mut open(&parts));
            assert_eq!((part.ended, estimated), (Ended::Stopped, most), "{name}");
            made += estimated;
            // what a kill may leave
            let mut bytes = std::fs::read(&parts).expect("readable");
            bytes.extend_from_slice(b"{\"arch\":\"r12:k3e");
            std::fs::write(&parts, bytes).expect("writable");
        }
        let (last, estimated) = solved(&index, name, usize::MAX, &mut open(&parts));
        assert_eq!((&last, made + estimated), (&whole, in_all), "{name}: nothing is estimated twice");
        let read = |path: &Path| std::fs::read(path).expect("readable");
        assert_eq!(read(&parts), read(&one), "{name}");
        let (again, estimated) = solved(&index, name, usize::MAX, &mut open(&parts));
        assert_eq!((again, estimated), (whole, 0), "{name}: a full log answers");
        assert_eq!(read(&parts), read(&one), "{name}: nothing is added");
    }
}

#[test]
fn a_log_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = small();
    let path = folder.path().join("search.jsonl");
    let values = [
        MetricValue { mean: 0.1 + 0.2, low: Some(-0.0), high: None, extrapolated: true },
        MetricValue::exact(7.0),
        MetricValue::expected(f64::MIN_POSITIVE),
        MetricValue::failed(),
    ];
    let rows = space.genome().all();
    let mut log = LogFile::open(&path, &space, &setting(&space)).expect("new");
    for (row, value) in rows.iter().zip(&values) {
        for fidelity in [Fidelity::of_share(0.25), Fidelity::FULL] {
            log.append(row, fidelity, &[*value]).expect("written");
        }
    }
    let hits = [true, false, true, true];
    log.append_hits(&sampler::largest(&space), &hits).expect("written");
    let archive = log.archive().clone();
    drop(log);
    let again = LogFile::open(&path, &space, &setting(&space)).expect("its own");
    assert_eq!(again.archive(), &archive);
    assert_eq!(again.hits(&sampler::largest(&space)), Some(&hits[..]));
    assert_eq!(again.hits(&sampler::smallest(&space)), None);
    let text = std::fs::read_to_string(&path).expect("text");
    assert_eq!(read(&path).expect("a log").to_jsonl(), text);
    assert!(text.contains("\"fidelity\":0.25") && text.contains("\"hits\":\"1011\""), "{text}");
    assert!(text.contains("\"failed\":true}") && !text.contains("null"), "{text}");
}

#[test]
fn the_log_of_another_problem_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = small();
    let path = folder.path().join("search.jsonl");
    drop(LogFile::open(&path, &space, &setting(&space)).expect("new"));
    let other = preset("tiny").expect("a preset");
    let reseeded = LogSetting { seed: 5, ..setting(&space) };
    let of_two = setting(&space).with_metric(Metric::new("loss", "nats", Better::Lower));
    for (space, setting, part) in [
        (&other, setting(&other), "space: expected tiny ("),
        (&space, reseeded, "seed: expected 5, got 4; repeat the search that wrote it, or give"),
        (&space, of_two, "metrics: expected top1 (share), loss (nats), got top1 (share);"),
        (&space, setting(&space).with_input("estimator", "cd34"), "estimator: expected cd34, got ab12;"),
        (&space, setting(&space).with_input("latency_table", "ef"), "latency_table: expected ef, got none;"),
    ] {
        let before = std::fs::read(&path).expect("readable");
        let error = LogFile::open(&path, space, &setting).expect_err(part).to_string();
        assert!(error.contains("search.jsonl: ") && error.contains(part), "{error}");
        assert_eq!(std::fs::read(&path).expect("readable"), before, "as it was");
    }
    std::fs::write(&path, "a recipe\n").expect("writable");
    assert!(LogFile::open(&path, &space, &setting(&space)).is_err());
    assert_eq!(std::fs::read(&path).expect("readable"), b"a recipe\n");
}

#[test]
fn values_that_cannot_be_kept_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let space = small();
    let path = folder.path().join("search.jsonl");
    let mut log = LogFile::open(&path, &space, &setting(&space)).expect("new");
    let row = space.genome().all().remove(0);
    for values in [&[][..], &[MetricValue::expected(f64::NAN)], &[MetricValue::exact(f64::INFINITY)]] {
        assert!(log.append(&row, Fidelity::FULL, values).is_err(), "{values:?}");
    }
    assert!(log.append_hits(&sampler::largest(&space), &[]).is_err());
    assert!(log.archive().entries().is_empty());
    log.append(&row, Fidelity::FULL, &[MetricValue::exact(0.5)]).expect("new");
    let error = log.append(&row, Fidelity::FULL, &[MetricValue::exact(0.6)]).expect_err("again").to_string();
    assert!(error.contains("expected each sub-network once for each fidelity"), "{error}");
    let held = LogFile::open(&path, &space, &setting(&space)).expect_err("held").to_string();
    assert!(held.contains("another process is searching with it"), "{held}");
}

#[test]
fn malformed_logs_are_refused() {
    let good = include_str!("../../../../fuzz/seeds/search_log/log.jsonl");
    let log = SearchLog::from_bytes("x", good.as_bytes()).expect("good");
    assert_eq!((log.estimates.len(), log.to_jsonl().as_str()), (3, good));
    // hits of other images
    let counted = good.lines().find(|line| line.contains("\"hits\"")).expect("one that was counted");
    let other = "{\"arch\":\"r8:k3e3/k3e3\",\"values\":[{\"mean\":0.5}],\"hits\":\"10\"}";
    let error =
        SearchLog::from_bytes("x", format!("{good}{other}\n").as_bytes()).expect_err(counted).to_string();
    assert!(error.contains("hits: expected") && error.contains("as before, got 2 images"), "{error}");
    for (from, to, part) in [
        ("search-log", "found", "x: kind: expected search-log, got found"),
        ("\"version\":1", "\"version\":2", "version: expected 1, got 2"),
        ("\"seed\"", "\"sead\"", "x: text"),
        (
            "{\"name\":\"top1\",\"unit\":\"share\",\"better\":\"higher\"}",
            "",
            "metrics: expected at least one",
        ),
        ("\"estimator\":\"", "\"estimator\":\"\",\"estimator\":\"", "stands there twice"),
        (
            "\"values\":[{\"mean\":0.75}]",
            "\"values\":[{\"mean\":0.75}],\"failed\":true",
            "failed: expected no values",
        ),
        (
            "{\"mean\":0.75}",
            "{\"mean\":0.75},1",
            "line 2: values: expected as many as the header has metrics, 1",
        ),
        (
            "{\"mean\":0.75}",
            "{\"mean\":0.5}",
            "line 2: hits: expected the share 0.5 of at least one image, got 3 of 4",
        ),
        ("\"1011\"", "\"\"", "got 0 of 0"),
        ("\"1011\"", "\"1x11\"", "a 0 or 1 for each image, got x"),
        ("\"fidelity\":0.25", "\"fidelity\":0.2501", "a share of at most 1 in thousandths"),
        ("\"fidelity\":0.25", "\"fidelity\":1e300", "a share of at most 1 in thousandths"),
        ("\"fidelity\":0.25,", "", "line 4: arch: expected each sub-network once"),
        ("\"arch\":\"r", "\"arch\":\"x", "line 2: estimate: expected {\"arch\", \"values\"}"),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let altered = good.replacen(from, to, 1);
        let error = SearchLog::from_bytes("x", altered.as_bytes()).expect_err(to).to_string();
        assert!(error.starts_with("x") && error.contains(part), "{to}: {error}");
    }
}
