use space::{Arch, preset, sampler};

use super::*;
use crate::fitted::tests::measured;
use crate::rows::tests::visit_of;
use crate::rows::{Record, Session, Setting, Subject, Visit};
use crate::testing::{SENTINEL, engine, made_up, setting};
use crate::{LatencyKind, LatencyModel};

#[test]
fn tables_round_trip_through_a_file() {
    let mut table = made_up(&preset("tiny").expect("a preset"));
    let hash = table.hash();
    table.run.insert("date".to_string(), "2024-05-01".into());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("table.json");
    table.write(&path).expect("writable");
    let read = LatencyTable::read(&path).expect("own file");
    assert_eq!(read.to_json(), table.to_json());
    assert_eq!(read.rows(), table.rows());
    assert_eq!(read.hash(), hash, "the run is no part of the hash");
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "no sibling is left");
}

#[test]
fn networks_are_sums_and_a_missing_layer_is_named() {
    let tiny = preset("tiny").expect("a preset");
    let fashion = preset("fashion").expect("a preset");
    let table = made_up(&tiny);
    let layers = tiny.lower(&sampler::largest(&tiny)).expect("legal");
    let model = LatencyModel::new(&table, &tiny);
    let sum = model.network(&layers).expect("covered");
    let by_hand: f64 = layers.iter().map(|layer| table.rows()[&layer.key()].us).sum();
    assert!((sum.us / by_hand - 1.0).abs() < 1e-12);
    assert!(sum.high_us > sum.us && model.kept(1.0, 2.0).is_none());
    assert_eq!(table.coverage(&tiny).expect("a space").missing, Vec::<String>::new());
    let missing = table.coverage(&fashion).expect("a space");
    assert!(missing.missing.len() > 50 && missing.missing.len() <= missing.layers);
    let layers = fashion.lower(&sampler::largest(&fashion)).expect("legal");
    let error = LatencyModel::new(&table, &fashion).network(&layers).expect_err("not covered").to_string();
    for part in ["made-up.json", &layers[0].key(), "run extract measure --missing"] {
        assert!(error.contains(part), "{error}");
    }
}

/// Twenty visits of each layer of `tiny`, and of networks that take 1.2 times the sum and 3 us, in a session that began
/// at this time; all times, the sentinel's too, are multiplied by `factor`.
struct MadeRows {
    unix_seconds: u64,
    networks: usize,
    factor: f64,
    sentinel_us: f64,
}

impl MadeRows {
    fn rows(&self) -> Rows {
        let space = preset("tiny").expect("a preset");
        let table = made_up(&space);
        let fingerprint = space.fingerprint_at_any_resolution();
        let begun = Session { unix_seconds: self.unix_seconds, ..Session::default() };
        let mut records = vec![Record::Session(begun)];
        for (key, row) in table.rows() {
            self.visits(&mut records, Subject::Layer(key.clone()), row.us);
        }
        let mut rng = base::random::rng_for("test", self.unix_seconds, &[]);
        for _ in 0..self.networks {
            let arch = sampler::random(&space, &mut rng);
            let layers = space.lower(&arch).expect("legal");
            let sum = LatencyModel::new(&table, &space).network(&layers).expect("covered").us;
            self.visits(&mut records, Subject::Network(arch), 1.2 * sum + 3.0);
        }
        for record in &mut records {
            if let Record::Visit(visit @ Visit { subject: Subject::Network(_), .. }) = record {
                visit.space = Some(fingerprint.clone());
            }
        }
        let setting = Setting { sentinel: SENTINEL.to_string(), engine: engine(), ..setting() };
        Rows { setting, records }
    }

    fn visits(&self, records: &mut Vec<Record>, subject: Subject, us: f64) {
        for _ in 0..20 {
            let sentinel = Some([self.sentinel_us; 2]);
            records.push(visit_of(subject.clone(), &[us * self.factor; 3], sentinel));
        }
    }
}

fn made_rows(unix_seconds: u64, networks: usize) -> MadeRows {
    MadeRows { unix_seconds, networks, factor: 1.0, sentinel_us: 5.5 }
}

fn tiny_table(rows: &Rows) -> LatencyTable {
    LatencyTable::from_rows("x", rows, 0.05, Some(&preset("tiny").expect("a preset"))).expect("sound")
}

#[test]
fn rows_are_folded_and_networks_corrected() {
    let space = preset("tiny").expect("a preset");
    let table = tiny_table(&made_rows(1, 40).rows());
    assert_eq!(table.sentinel, made_up(&space).sentinel);
    let fit = table.fit_of(&space).expect("fitted");
    let validation = fit.validation();
    assert!(validation.within_5pct == 1.0 && validation.mape < 0.001, "{validation:?}");
    assert!(validation.mape_of_sums > 0.15 && validation.repeatability.is_none());
    let one = space.at_resolutions(&space.resolutions()[..1]).expect("listed");
    let model = LatencyModel::new(&table, &one);
    assert!(model.fit().is_some(), "the same networks at fewer resolutions");
    let layers = one.lower(&sampler::smallest(&one)).expect("legal");
    let predicted = model.network(&layers).expect("covered");
    let sum: f64 = layers.iter().map(|layer| table.rows()[&layer.key()].us).sum();
    assert!((predicted.us / (1.2 * sum + 3.0) - 1.0).abs() < 0.01);
    assert!(predicted.high_us >= predicted.us);
    assert_eq!(model.kept(100.0, 50.0), Some(0.0));
    assert_eq!(table.latency(&one, &sampler::smallest(&one)).expect("covered"), predicted);
    let row = &table.rows()[&layers[0].key()];
    assert_eq!([row.us, 0.9 * row.us].map(|limit| row.keeps(limit)), [Some(true), Some(false)]);
    let row = Row { accepted: false, ..*row };
    assert_eq!(row.keeps(row.us), None);
    assert!(table.fast_share().is_some_and(|share| (0.0..=1.0).contains(&share)));
    let read = LatencyTable::from_json("x", &table.to_json()).expect("own text");
    assert_eq!(read.to_json(), table.to_json());
    assert_eq!(read.fit_of(&space), table.fit_of(&space));
    assert!(table.is_undisturbed() && table.unaccepted() == 0);
}

#[test]
fn sessions_are_pooled_and_nothing_is_lost() {
    let space = preset("tiny").expect("a preset");
    let first = made_rows(1, 40).rows();
    let mut table = tiny_table(&first);
    let before = table.clone();
    // the same rows again are the same session
    table.add_rows(&first, Some(&space), None).expect("the same");
    assert_eq!(table.to_json(), before.to_json());
    // 2 % slower an hour later
    let later = MadeRows { factor: 1.02, ..made_rows(5000, 20) };
    let added = table.add_rows(&later.rows(), Some(&space), None).expect("comparable");
    assert_eq!((added.sessions.len(), added.assumed, table.sessions().len()), (1, 0, 2));
    for (key, row) in table.rows() {
        let old = before.rows()[key];
        assert!((row.us / old.us - 1.01).abs() < 1e-4, "{key}: the mean of both");
        assert_eq!((row.visits, row.confirmed, row.accepted), (40, 40, true));
    }
    let fit = table.fit_of(&space).expect("fitted");
    assert_eq!((fit.networks.len(), fit.validation().sessions), (fit.spent().len(), 2));
    assert!(fit.networks.len() > 55, "those of both sessions");
    assert_eq!(fit.validation().between, crate::Between::Sessions);
    // a disturbed session changes only the typical latency
    let slow = MadeRows { factor: 1.4, sentinel_us: 8.0, ..made_rows(9000, 0) };
    let known = table.rows().clone();
    table.add_rows(&slow.rows(), Some(&space), None).expect("of no weight");
    for (key, row) in table.rows() {
        assert_eq!((row.us, row.confirmed), (known[key].us, known[key].confirmed), "{key}");
        assert!(row.typical_us > known[key].typical_us, "{key}");
    }
    // a session that is faster than all before makes those disturbed
    let fast = MadeRows { factor: 1.0, sentinel_us: 4.0, ..made_rows(20_000, 0) };
    table.add_rows(&fast.rows(), Some(&space), None).expect("comparable");
    assert_eq!(table.sentinel.as_ref().and_then(|own| own.fast_us), Some(4.0));
    assert!(table.rows().iter().all(|(key, row)| row.us == before.rows()[key].us && row.confirmed == 20));
}

#[test]
fn a_machine_in_another_state_and_other_settings_are_refused() {
    let space = preset("tiny").expect("a preset");
    let mut table = tiny_table(&made_rows(1, 0).rows());
    let before = table.to_json();
    let mut refused = |rows: &Rows| {
        let error = table.add_rows(rows, Some(&space), None).expect_err("refused").to_string();
        assert_eq!(table.to_json(), before, "it stays as it was");
        error
    };
    let apart = refused(&MadeRows { factor: 1.08, ..made_rows(5000, 0) }.rows());
    assert!(apart.contains("within 5 % of") && apart.contains("1.080 times as long"), "{apart}");
    let mut other = made_rows(5000, 0).rows();
    other.setting.engine.threads = 2;
    let error = refused(&other);
    assert!(error.contains("2 threads") && error.contains("--replace"), "{error}");
    let mut other = made_rows(5000, 10).rows();
    for record in &mut other.records {
        if let Record::Visit(visit) = record {
            visit.space = visit.space.as_ref().map(|_| "0123456789abcdef".to_string());
        }
    }
    let error = refused(&other);
    assert!(error.contains("space of sub-network") && error.contains("got 0123456789abcdef"), "{error}");
    let mut typo = made_rows(5000, 0).rows();
    typo.records.push(visit_of(Subject::Layer("convolution".into()), &[1.0], None));
    let error = refused(&typo);
    assert!(error.contains("layer \"convolution\""), "{error}");
    let mut renamed = made_rows(5000, 0).rows();
    renamed.setting.device.name = "renamed".to_string();
    table.add_rows(&renamed, Some(&space), None).expect("the same machine");
}

#[test]
fn lines_that_do_not_say_their_space_are_counted() {
    let space = preset("tiny").expect("a preset");
    let mut rows = made_rows(1, 10).rows();
    for record in &mut rows.records {
        if let Record::Visit(visit) = record {
            visit.space = None;
        }
    }
    let device = rows.setting.device.clone();
    let mut table = LatencyTable::empty("x", device, engine(), "none").expect("a table");
    let added = table.add_rows(&rows, Some(&space), None).expect("rows");
    assert_eq!(added.assumed, table.fit_of(&space).expect("fitted").networks.len());
}

#[test]
fn tables_are_merged_and_compared() {
    let space = preset("tiny").expect("a preset");
    let first = tiny_table(&made_rows(1, 20).rows());
    let second = tiny_table(&MadeRows { factor: 1.02, ..made_rows(5000, 20) }.rows());
    let mut both = first.clone();
    both.merge(&second).expect("comparable");
    let mut at_once = first.clone();
    let later = MadeRows { factor: 1.02, ..made_rows(5000, 20) }.rows();
    at_once.add_rows(&later, Some(&space), None).expect("comparable");
    assert_eq!(both.rows(), at_once.rows());
    let archs = |table: &LatencyTable| -> Vec<Arch> {
        table.fit_of(&space).expect("fitted").networks.iter().map(|network| network.arch.clone()).collect()
    };
    assert_eq!(archs(&both), archs(&at_once));
    let changes = first.changes(&second);
    assert_eq!(changes.len(), first.rows().len());
    assert!(changes.iter().all(|change| (change.ratio() - 1.02).abs() < 1e-4));
    let apart = tiny_table(&MadeRows { factor: 1.2, ..made_rows(5000, 0) }.rows());
    assert!(both.clone().merge(&apart).is_err());
}

#[test]
fn typical_latencies_are_the_undisturbed_ones_times_a_factor() {
    let space = preset("tiny").expect("a preset");
    let table = made_up(&space);
    let layers = space.lower(&sampler::largest(&space)).expect("legal");
    let of = |kind| LatencyModel::of_kind(&table, &space, kind).network(&layers).expect("covered");
    let undisturbed = of(LatencyKind::Undisturbed);
    let typical = of(LatencyKind::Typical);
    assert!((typical.us / undisturbed.us - 1.5).abs() < 1e-9);
    assert!(typical.high_us > undisturbed.high_us);
}

#[test]
fn what_no_fit_saw_is_told() {
    let space = preset("tiny").expect("a preset");
    let narrow = space.at_resolutions(&[8]).expect("listed");
    let mut rows = made_rows(1, 60).rows();
    rows.records.retain(|record| {
        !matches!(record, Record::Visit(Visit { subject: Subject::Network(arch), .. }) if arch.resolution != space::Extent::square(8))
    });
    let table = LatencyTable::from_rows("x", &rows, 0.05, Some(&narrow)).expect("sound");
    let model = LatencyModel::new(&table, &space);
    let fit = model.fit().expect("fitted");
    let middle = fit.networks[fit.networks.len() / 2].predicted_us;
    assert_eq!(model.extrapolated(8.into(), middle), Vec::<String>::new());
    assert!(model.extrapolated(12.into(), middle)[0].starts_with("resolution 12"));
    assert!(model.extrapolated(8.into(), 100.0 * middle)[0].starts_with("latency "));
    assert_eq!(
        LatencyModel::new(&made_up(&space), &space).extrapolated(12.into(), 1.0).len(),
        0,
        "nothing was fitted"
    );
}

/// A table of version 2, as written before undisturbed latencies were separated from typical ones.
const OLD: &str = r#"{ "kind": "latency-table", "version": 2, "device": { "name": "old" }, "engine": "native",
  "engine_version": "0.1.0 avx2", "threads": 1, "dtype": "f32", "batch": 1, "protocol": "medians",
  "sentinel": { "name": "product 64x64x64 f32", "usual_us": 127.0 },
  "rows": { "pool 8 @2x2": { "median_us": 2.5, "low_us": 2.25, "high_us": 2.75, "mad_us": 0.5, "std_us": 0.75,
    "samples": 50, "outliers": 1, "visits": 10, "discarded": 3, "converged": true } },
  "spaces": { "0123456789abcdef": { "name": "lost", "resolutions": [8], "validation": {},
    "correction": { "form": "scale", "block": 1.1, "squeeze_block": 1.1, "other": 1.1, "layer_us": 0.0,
      "weight_us_per_mb": 0.0, "map_us_per_mb": 0.0, "constant_us": 0.0 },
    "networks": [ { "arch": "r8:k3e3", "part": "check", "sum_us": 10.0, "predicted_us": 11.0, "first_us": 12.0, "second_us": 13.0 } ],
    "searched": [ { "limit_us": 20.0, "arch": "r8:k5e3", "part": "check", "predicted_us": 19.0, "measured_us": 21.0 } ] } },
  "run": {} }"#;

#[test]
fn an_old_table_is_typical_and_of_one_session() {
    let table = LatencyTable::from_json("old.json", OLD).expect("read");
    assert!(!table.is_undisturbed() && table.sessions().len() == 1);
    let row = table.rows()["pool 8 @2x2"];
    assert_eq!((row.us, row.typical_us, row.interval_us), (2.5, 2.5, Some([2.25, 2.75])));
    assert!(row.accepted && !row.undisturbed);
    assert_eq!(table.kept_us(SENTINEL), None, "a lower quartile is no fast time");
    let fit = table.spaces.values().next().expect("a space");
    assert_eq!((fit.networks[0].took.us, fit.searched[0].took.us), (12.5, 21.0));
    let again = LatencyTable::from_json("new.json", &table.to_json()).expect("own text");
    assert_eq!(again.to_json(), table.to_json());
    let kinds = LatencyModel::new(&table, &preset("tiny").expect("a preset")).kind();
    assert_eq!(kinds, LatencyKind::Typical);
}

#[test]
fn anchors_are_well_known_and_spread() {
    let table = made_up(&preset("fashion").expect("a preset"));
    let anchors = table.anchors(10);
    let times: Vec<f64> = anchors.iter().map(|key| table.rows()[key].us).collect();
    assert!(anchors.len() == 10 && times.is_sorted() && times[9] > 5.0 * times[0], "{times:?}");
    let old = LatencyTable::from_json("old.json", OLD).expect("read");
    assert_eq!(old.anchors(10), Vec::<String>::new(), "typical ones are none");
}

#[test]
fn malformed_tables_are_refused_with_the_field() {
    let mut table = made_up(&preset("tiny").expect("a preset"));
    let key = table.layers.keys().next().expect("a layer").clone();
    let one = Measurement { session: GIVEN.to_string(), ..measured("x", 2.5) };
    table.layers = [(key, vec![one])].into();
    table.pool_rows().expect("sound");
    let good = table.to_json();
    for (from, to, part) in [
        ("{", "[", "text"),
        ("latency-table", "other", "kind: expected latency-table, got other"),
        ("\"version\": 3", "\"version\": 1", "version: expected 3, got 1"),
        ("\"threads\": 1", "\"threads\": 0", "threads"),
        ("\"batch\": 1", "\"batch\": -1", "text"),
        ("\"half_width\": 0.05", "\"half_width\": 0.0", "half_width"),
        ("\"protocol\"", "\"protokol\"", "text"),
        ("\"us\": 2.5", "\"us\": 2.6", "row of \""),
        ("\"us\": 2.5", "\"us\": 1e999", "text"),
        ("\"us\": 2.5", "\"us\": null", "text"),
        ("\"confirmed\": 8", "\"confirmed\": 7", "row of \""),
        ("\"fast_us\": 5.5", "\"fast_us\": 0.0", "fast time of the sentinel"),
        ("\"session\": \"given\"", "\"session\": \"lost\"", "session of \""),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let error = LatencyTable::from_json("x.json", &good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.starts_with("x.json: ") && error.contains(part), "{to}: {error}");
    }
    let sessions = good.rfind("\"sessions\": [").expect("a list");
    for (from, to, part) in [
        ("\"us\": 2.5", "\"us\": 0", "us of \""),
        ("\"mad_us\": 0.1", "\"mad_us\": -0.1", "mad_us of \""),
        ("\"spread\": 0.01", "\"spread\": -1", "spread of \""),
        ("\"samples\": 500", "\"samples\": 0", "samples of \""),
        ("\"visits\": 25", "\"visits\": 7", "samples of \""),
        ("2.45", "2.6", "interval_us of \""),
    ] {
        let at = good[..sessions].len()
            + good[sessions..].find(from).unwrap_or_else(|| panic!("{from} in {good}"));
        let text = format!("{}{to}{}", &good[..at], &good[at + from.len()..]);
        let error = LatencyTable::from_json("x.json", &text).expect_err(to).to_string();
        assert!(error.starts_with("x.json: ") && error.contains(part), "{to}: {error}");
    }
    LatencyTable::from_json("x.json", &good).expect("unharmed");
}
