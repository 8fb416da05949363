//! Every readable version of every file format, from a file of that version: `fuzz/seeds/READER/version_N`. The meaning of
//! each is in `snapshots/versions.snap` (recipes and `found.json` have tests of their own); files of the versions that are
//! still written have the same bytes when they are written again.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use extract::accuracy::AccuracyEstimator;
use extract::latency::{LatencyTable, MeasurePlan, Rows};
use network::accuracy_file::{self, AccuracyHeader};
use network::checkpoint::{self, Checkpoint, DescribedWeights, Kind, Provenance, Supernet};
use network::model_folder::{ModelConfig, ModelFolder, config_path, weights_path};
use space::{cost, sampler};
use supernet::train::FineTuneCheckpoint;

use crate::testing::files::{read_bytes, scratch};
use crate::testing::formula::values;

/// The meaning of a file as text, and its bytes as they are written today.
struct Read {
    meaning: String,
    written: Option<Vec<u8>>,
}

/// Reads the file at a path.
type Reader = fn(&Path) -> Read;

const READERS: [(&str, Reader); 9] = [
    ("accuracy", accuracy),
    ("checkpoint", training),
    ("config", model),
    ("estimator", estimator),
    ("fine_tuning", fine_tuning),
    ("plan", plan),
    ("rows", rows),
    ("supernet", supernet),
    ("table", table),
];

/// Older versions that are still written: checkpoints of Nesterov's method, plans whose sub-networks are chains.
const WRITTEN_TOO: [(&str, &str); 2] = [("checkpoint", "version_3"), ("plan", "version_2")];

/// The files of a reader by version, sorted.
fn versions(reader: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(reader);
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let named =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("version_"));
    let mut files: Vec<PathBuf> = entries.filter(named).collect();
    files.sort();
    files
}

#[test]
fn every_version_means_what_it_meant_and_the_newest_is_written_as_it_was() {
    let mut text = String::new();
    for (name, read) in READERS {
        let files = versions(name);
        let Some(newest) = files.last() else { panic!("no version of {name}") };
        for path in &files {
            let Read { meaning, written } = read(path);
            let stem = path.file_stem().expect("a name").to_string_lossy();
            let _ = writeln!(text, "{name} {stem}: {meaning}");
            let is_written = path == newest || WRITTEN_TOO.contains(&(name, &stem));
            if let Some(written) = written.filter(|_| is_written) {
                assert_same(&format!("{name} {stem}"), &read_bytes(path), &written);
            }
        }
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("versions", text);
    });
}

/// Compares a file with the bytes that are written today; the message shows the first difference.
fn assert_same(name: &str, file: &[u8], written: &[u8]) {
    let equal = file.iter().zip(written).take_while(|(a, b)| a == b).count();
    let after = |bytes: &[u8]| {
        let part = bytes[equal.saturating_sub(60)..].iter().take(160).copied().collect::<Vec<u8>>();
        String::from_utf8_lossy(&part).into_owned()
    };
    assert!(
        file == written,
        "{name} is written otherwise today from byte {equal} on: expected …{}…, got …{}…",
        after(file),
        after(written)
    );
}

/// The number of tensors, and the sum of their values' sizes.
fn tensors<'a>(of: impl IntoIterator<Item = &'a Tensor>) -> String {
    let mut count = 0;
    let mut sum = 0.0;
    for tensor in of {
        count += 1;
        sum += values(tensor).iter().map(|value| f64::from(value.abs())).sum::<f64>();
    }
    format!("{count} tensors of {sum:.4}")
}

/// The bytes that a function writes to a scratch file.
fn written(write: impl FnOnce(&Path)) -> Option<Vec<u8>> {
    let folder = scratch();
    let path = folder.path().join("file");
    write(&path);
    Some(read_bytes(&path))
}

fn weights(supernet: &Supernet) -> String {
    let Supernet { space, weights, interface, .. } = supernet;
    let space = space.fingerprint();
    let tensors = tensors(weights.tensors().values());
    format!("space {space}, {tensors}, sees {:?}, classes {:?}", interface.preprocess, interface.classes)
}

fn supernet(path: &Path) -> Read {
    let supernet = Supernet::read(path).expect("a supernet");
    let Provenance::Trained(training) = supernet.provenance.clone() else { panic!("it was trained") };
    let meaning = format!("{}, step {}, plan {}", weights(&supernet), training.step, &training.plan[..8]);
    let Supernet { space, weights, interface, .. } = &supernet;
    let described = DescribedWeights { space, interface, weights };
    let write = |path: &Path| checkpoint::write_weights(path, Kind::Supernet, described, training);
    Read { meaning, written: written(|path| write(path).expect("written")) }
}

fn training(path: &Path) -> Read {
    let Checkpoint { supernet, training, optimizer } = Checkpoint::read(path).expect("a checkpoint");
    let state = optimizer.tensors.iter().map(|(sort, all)| format!("{sort} {}", tensors(all.values())));
    let state = state.collect::<Vec<_>>().join(", ");
    let meaning = format!("{}, {} with {state}, step {}", weights(&supernet), optimizer.kind, training.step);
    let Supernet { space, weights, interface, .. } = &supernet;
    let described = DescribedWeights { space, interface, weights };
    let write = |path: &Path| checkpoint::write_checkpoint(path, described, &optimizer, training);
    Read { meaning, written: written(|path| write(path).expect("written")) }
}

fn fine_tuning(path: &Path) -> Read {
    let FineTuneCheckpoint { plan, step, weights, velocities, .. } =
        FineTuneCheckpoint::read(path).expect("a checkpoint");
    let [weights, velocities] = [weights, velocities].map(|all| tensors(all.values()));
    Read {
        meaning: format!("{weights}, velocities {velocities}, step {step}, plan {}", &plan[..8]),
        written: None,
    }
}

fn accuracy(path: &Path) -> Read {
    let file = accuracy_file::read(path).expect("rows");
    let sum: f64 = file.rows.iter().map(|row| row.top1).sum();
    let meaning = format!("{} rows of {sum:.4}, space {}", file.rows.len(), file.space.fingerprint());
    let accuracy_file::AccuracyFile { space, supernet, data, calibration, rows } = file;
    let header = AccuracyHeader { space, supernet, data, calibration };
    let written = written(|path| {
        let mut writer = accuracy_file::Writer::create(path, &header).expect("a file");
        for row in &rows {
            writer.append(row).expect("a row");
        }
    });
    Read { meaning, written }
}

/// `config.json`, a NUL, `model.safetensors`.
fn model(path: &Path) -> Read {
    let file = read_bytes(path);
    let end = file.iter().position(|&byte| byte == 0).expect("two files in one");
    let config = std::str::from_utf8(&file[..end]).expect("text");
    let config = ModelConfig::from_json("config.json", config).expect("a config");
    let model = ModelFolder::from_parts(config, "model", &file[end + 1..]).expect("weights");
    model.check_weights("model").expect("all weights");
    let preprocess = model.preprocess().expect("a description");
    let ModelConfig { arch, classes, origin, .. } = &model.config;
    let meaning = format!(
        "{arch}, {}, sees {preprocess:?}, {} classes, fine-tuned {} times",
        tensors(model.tensors.values()),
        classes.len(),
        origin.fine_tuned.len()
    );
    let folder = scratch();
    model.write(folder.path()).expect("written");
    let mut written = read_bytes(config_path(folder.path()));
    written.push(0);
    written.extend(read_bytes(weights_path(folder.path())));
    Read { meaning, written: Some(written) }
}

fn estimator(path: &Path) -> Read {
    let estimator = AccuracyEstimator::read(path).expect("an estimator");
    let space = estimator.space();
    let ends = [sampler::smallest(space), sampler::largest(space)];
    let predicted = estimator.predict(&ends).expect("its own sub-networks");
    let meaning = format!("space {}, ends {:.4} and {:.4}", space.fingerprint(), predicted[0], predicted[1]);
    Read { meaning, written: Some(estimator.to_bytes().expect("bytes")) }
}

fn plan(path: &Path) -> Read {
    let plan = MeasurePlan::read(path).expect("a plan");
    let networks = plan.networks.values().map(|layers| cost(&plan.network(layers).expect("it fits")).macs);
    let meaning = format!(
        "{} layers, sub-networks of {:?} MACs, id {}",
        plan.layers.len(),
        networks.collect::<Vec<_>>(),
        plan.id()
    );
    Read { meaning, written: Some(plan.to_jsonl().into_bytes()) }
}

fn rows(path: &Path) -> Read {
    let rows = Rows::read(path).expect("rows");
    let table = LatencyTable::from_rows("rows", &rows, 0.03, None).expect("a table");
    Read { meaning: format!("{} visits, {}", rows.visits().count(), layers(&table)), written: None }
}

fn table(path: &Path) -> Read {
    let table = LatencyTable::read(path).expect("a table");
    Read { meaning: layers(&table), written: Some(table.to_json().into_bytes()) }
}

/// The layers of a table and its sessions.
fn layers(table: &LatencyTable) -> String {
    let sum: f64 = table.rows().values().map(|row| row.us).sum();
    let fits: Vec<usize> = table.fits().map(|fit| fit.networks.len()).collect();
    format!(
        "{} layers of {sum:.3} us, {} sessions, sub-networks of each space {fits:?}",
        table.rows().len(),
        table.sessions().len()
    )
}
