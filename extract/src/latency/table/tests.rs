use super::*;
use crate::latency::drift::tests::setting;
use crate::latency::rows::{Record, Setting, Subject, Visit};
use crate::latency::{LatencyModel, SENTINEL};
use supernet::space::{preset, sampler};

/// A table whose every row has made-up but plausible numbers: a fixed cost and one that grows with MACs.
pub(crate) fn made_up(space: &SearchSpace) -> LatencyTable {
    let layers = space_layers(space).expect("a checked space");
    let row = |layer: &LayerSpec| {
        let macs = supernet::space::cost(std::slice::from_ref(layer)).macs as f64;
        let hash = f64::from(blake3::hash(layer.key().as_bytes()).as_bytes()[0]);
        let median_us = 1.0 + macs / 5000.0 * (1.0 + hash / 1000.0);
        let (low_us, high_us) = (0.99 * median_us, 1.02 * median_us);
        Row {
            median_us,
            low_us,
            high_us,
            mad_us: 0.1,
            std_us: 0.15,
            samples: 50,
            outliers: 1,
            visits: 10,
            discarded: 2,
            converged: true,
        }
    };
    let rows = layers.iter().map(|(key, layer)| (key.clone(), row(layer))).collect();
    let device = DeviceFacts::this_machine(Some("made-up"));
    let mut table =
        LatencyTable::new("made-up.json", device, engine(), "none", rows).expect("checked numbers");
    table.sentinel = Some(Watched { name: SENTINEL.to_string(), usual_us: 5.5 });
    table
}

fn engine() -> EngineFacts {
    let (engine, engine_version) = ("fake".to_string(), "1".to_string());
    EngineFacts { engine, engine_version, threads: 1, dtype: "f32".to_string(), batch: 1 }
}

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
    let (tiny, fashion) = (preset("tiny").expect("a preset"), preset("fashion").expect("a preset"));
    let table = made_up(&tiny);
    let layers = tiny.lower(&sampler::largest(&tiny)).expect("legal");
    let model = LatencyModel::new(&table, &tiny);
    let sum = model.network(&layers).expect("covered");
    let by_hand: f64 = layers.iter().map(|layer| table.rows()[&layer.key()].median_us).sum();
    assert!((sum.median_us / by_hand - 1.0).abs() < 1e-12);
    assert!(sum.high_us > sum.median_us && model.kept(1.0, 2.0).is_none());
    assert_eq!(table.coverage(&tiny).expect("a space").missing, Vec::<String>::new());
    let missing = table.coverage(&fashion).expect("a space");
    assert!(missing.missing.len() > 50 && missing.missing.len() <= missing.layers);
    let layers = fashion.lower(&sampler::largest(&fashion)).expect("legal");
    let error = LatencyModel::new(&table, &fashion).network(&layers).expect_err("not covered").to_string();
    for part in ["made-up.json", &layers[0].key(), "run extract measure --missing"] {
        assert!(error.contains(part), "{error}");
    }
}

/// Rows of all layers of `tiny`, a visit each, and of networks that take 1.2 times the sum and 3 us.
fn rows_of_networks(networks: usize, sentinel_us: f64) -> Rows {
    let space = preset("tiny").expect("a preset");
    let table = made_up(&space);
    let speed = sentinel_us / 5.5;
    let visit = |subject: Subject, us: f64| {
        let (samples_us, sentinel_us) = (vec![us * speed; 6], Some([sentinel_us; 2]));
        Record::Visit(Visit { subject, again: false, inner: 1, samples_us, sentinel_us })
    };
    let mut records: Vec<Record> =
        table.rows().iter().map(|(key, row)| visit(Subject::Layer(key.clone()), row.median_us)).collect();
    let mut rng = supernet::random::rng_for("test", 0, &[]);
    for _ in 0..networks {
        let arch = sampler::random(&space, &mut rng);
        let layers = space.lower(&arch).expect("legal");
        let sum = LatencyModel::new(&table, &space).network(&layers).expect("covered").median_us;
        records.push(visit(Subject::Network(arch.clone(), 1), 1.2 * sum + 3.0));
        records.push(visit(Subject::Network(arch, 2), 1.2 * sum + 3.0));
    }
    let layer = table.sentinel.expect("made up").name;
    Rows { setting: Setting { sentinel: layer, engine: engine(), ..setting() }, records }
}

#[test]
fn rows_are_folded_and_networks_corrected() {
    let space = preset("tiny").expect("a preset");
    let rows = rows_of_networks(40, 5.5);
    let table = LatencyTable::from_rows("x", &rows, 0.03, Some(&space)).expect("sound");
    assert_eq!(table.sentinel, made_up(&space).sentinel);
    let fit = table.fit_of(&space).expect("fitted");
    let validation = fit.validation();
    assert!(validation.within_5pct == 1.0 && validation.mape < 0.001, "{validation:?}");
    assert!(validation.mape_of_sums > 0.15 && validation.repeatability == Some(0.0));
    let one = space.at_resolutions(&space.resolutions()[..1]).expect("listed");
    let model = LatencyModel::new(&table, &one);
    assert!(model.fit().is_some(), "the same networks at fewer resolutions");
    let layers = one.lower(&sampler::smallest(&one)).expect("legal");
    let expected = model.network(&layers).expect("covered");
    let sum: f64 = layers.iter().map(|layer| table.rows()[&layer.key()].median_us).sum();
    assert!((expected.median_us / (1.2 * sum + 3.0) - 1.0).abs() < 0.01);
    assert!(expected.high_us >= expected.median_us);
    assert_eq!(model.kept(100.0, 50.0), Some(0.0));
    let read = LatencyTable::from_json("x", &table.to_json()).expect("own text");
    assert_eq!(read.to_json(), table.to_json());
    assert_eq!(read.fit_of(&space), table.fit_of(&space));
    let lie = table.to_json().replacen("\"within_5pct\": 1.0", "\"within_5pct\": 0.5", 1);
    let error = LatencyTable::from_json("x", &lie).expect_err("does not follow").to_string();
    assert!(
        error.contains("validation of space tiny") && error.contains("follows from the networks"),
        "{error}"
    );
}

#[test]
fn rows_are_added_at_the_table_s_speed_and_in_its_setting_only() {
    let mut table = made_up(&preset("tiny").expect("a preset"));
    let before = table.rows().clone();
    // one is lacking, and one is not known well
    let (lost, vague) = (before.keys().next().expect("a row"), before.keys().nth(1).expect("a row"));
    table.rows.remove(lost);
    table.rows.get_mut(vague).expect("a row").converged = false;
    // the machine is a tenth slower now
    table.add_rows(&rows_of_networks(0, 6.05), 0.03, None).expect("the same setting");
    for (key, row) in table.rows() {
        assert!((row.median_us / before[key].median_us - 1.0).abs() < 1e-5, "{key}");
        assert_eq!(*row == before[key], key != lost && key != vague, "{key}: what was known well stays");
    }
    let mut renamed = rows_of_networks(0, 5.5);
    renamed.setting.device.name = "renamed".to_string();
    table.add_rows(&renamed, 0.03, None).expect("the same setting");
    let mut other = rows_of_networks(0, 5.5);
    other.setting.engine.threads = 2;
    assert!(table.add_rows(&other, 0.03, None).is_err());
    let mut typo = rows_of_networks(0, 5.5);
    typo.records.truncate(1);
    typo.records.extend(typo.records.clone().into_iter().map(|record| match record {
        Record::Visit(visit) => {
            Record::Visit(Visit { subject: Subject::Layer("convolution".into()), ..visit })
        }
        other => other,
    }));
    let error = table.add_rows(&typo, 0.03, None).expect_err("no layer").to_string();
    assert!(error.contains("layer \"convolution\""), "{error}");
}

#[test]
fn malformed_tables_are_refused_with_the_field() {
    let mut table = made_up(&preset("tiny").expect("a preset"));
    table.rows = table.rows.into_iter().take(1).collect();
    let row = Row {
        median_us: 2.5,
        low_us: 2.25,
        high_us: 2.75,
        mad_us: 0.5,
        std_us: 0.75,
        samples: 50,
        outliers: 1,
        visits: 10,
        discarded: 0,
        converged: true,
    };
    table.rows = table.rows.into_keys().map(|key| (key, row)).collect();
    let good = table.to_json();
    for (from, to, part) in [
        ("{", "[", "text"),
        ("latency-table", "other", "kind: expected latency-table, got other"),
        ("\"version\": 2", "\"version\": 1", "version: expected 2, got 1"),
        ("\"threads\": 1", "\"threads\": 0", "threads"),
        ("\"batch\": 1", "\"batch\": -1", "text"),
        ("\"protocol\"", "\"protokol\"", "text"),
        ("\"median_us\": 2.5", "\"median_us\": 0", "median_us of \""),
        ("\"median_us\": 2.5", "\"median_us\": 1e999", "text"),
        ("\"median_us\": 2.5", "\"median_us\": null", "text"),
        ("\"low_us\": 2.25", "\"low_us\": 2.6", "interval of \""),
        ("\"high_us\": 2.75", "\"high_us\": 2.4", "interval of \""),
        ("\"mad_us\": 0.5", "\"mad_us\": -0.5", "mad_us of \""),
        ("\"std_us\": 0.75", "\"std_us\": -1", "std_us of \""),
        ("\"usual_us\": 5.5", "\"usual_us\": 0", "usual_us of the sentinel"),
        ("\"samples\": 50", "\"samples\": 0", "samples of \""),
        ("\"outliers\": 1", "\"outliers\": 51", "samples of \""),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        let error = LatencyTable::from_json("x.json", &good.replacen(from, to, 1)).expect_err(to).to_string();
        assert!(error.starts_with("x.json: ") && error.contains(part), "{to}: {error}");
    }
    LatencyTable::from_json("x.json", &good).expect("unharmed");
}
