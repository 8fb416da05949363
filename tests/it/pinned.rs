//! Bytes of files, keys of layers and fingerprints of spaces that a refactoring must not change, as hashes in
//! `snapshots/pinned_*.snap`. Portable kernels give the same bytes on every processor.
//!
//! Where a change is intended, `INSTA_UPDATE=always cargo test --workspace --test it -- pinned` writes the new ones; the
//! commit says why.

use std::fmt::Write;
use std::path::Path;

use insta::assert_snapshot;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use space::{Arch, SearchSpace, cost, preset, preset_names, sampler};

use crate::testing::commands::{run_with_kernels, stderr};
use crate::testing::files::{scratch, write_file};
use crate::testing::snapshot::settings;
use crate::testing::tables::write_phone_rows;

fn assert_pinned(name: &str, text: &str) {
    settings().bind(|| assert_snapshot!(format!("pinned_{name}"), text));
}

/// Runs a command that must succeed, on portable kernels.
fn run(name: &str, at: &Path, line: &str) {
    let output = run_with_kernels(name, at, line, "portable");
    assert!(output.status.success(), "{name} {line}: {}", stderr(&output));
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_string()
}

/// The bytes of a file without its times of day and durations.
fn without_times(bytes: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    let mut text = text.to_string();
    for field in ["\"unix_seconds\": ", "\"seconds\": "] {
        let mut kept = String::new();
        let mut parts = text.split(field);
        kept += parts.next().unwrap_or_default();
        for part in parts {
            kept += field;
            kept += part.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
        }
        text = kept;
    }
    text.into_bytes()
}

/// One line per file: hash and name.
fn hashes(at: &Path, files: &[&str]) -> String {
    let mut text = String::new();
    for file in files {
        let bytes = std::fs::read(at.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let _ = writeln!(text, "{}  {file}", hash(&without_times(&bytes)));
    }
    text
}

#[test]
fn a_run_and_all_that_follows_from_it() {
    let folder = scratch();
    let at = folder.path();
    // checkpoints within phases come by the clock
    run(
        "supernet",
        at,
        "train --space tiny --data digits --seed 3 --scale 0.002 --checkpoint-seconds 100000 --out run",
    );
    run(
        "supernet",
        at,
        "sample --supernet run/supernet.safetensors --data digits --count 25 --calibration-images 200 --out rows.jsonl",
    );
    run("extract", at, "fit --accuracy rows.jsonl --out estimator.safetensors");
    write_phone_rows(at, "tiny", "phone.jsonl", 1.0);
    run("extract", at, "measure --space tiny --rows phone.jsonl --out table.json");
    let search = "search --space tiny --estimator estimator.safetensors --out";
    for (name, limits) in [
        ("free", ""),
        ("macs", "--max-macs 400K"),
        ("params", "--max-params 30K --seed 5"),
        ("memory", "--max-memory 20KB --max-macs 700K"),
        ("latency", "--latency-table table.json --max-latency 420us --front"),
    ] {
        run("extract", at, &format!("{search} found-{name}.json {limits}"));
    }
    let files = [
        "run/checkpoint.safetensors",
        "run/teacher.safetensors",
        "run/supernet.safetensors",
        "rows.jsonl",
        "estimator.safetensors",
        "table.json",
        "found-free.json",
        "found-macs.json",
        "found-params.json",
        "found-memory.json",
        "found-latency.json",
    ];
    assert_pinned("run", &hashes(at, &files));
}

/// A small space of the third family.
const PROXYLESS: &str = r#"version = 1
name = "small-proxyless"
family = "proxyless-nas"
classes = 10
input_channels = 1
resolutions = [8, 12]
width_multiplier = 1.0
kernel = [3, 5]
expand = [3, 6]
depth = [1, 2]
batch_norm_epsilon = 1e-3

[stem]
channels = 8
stride = 1
activation = "relu6"

[first_block]
channels = 8
activation = "relu6"

[[stages]]
channels = 16
stride = 2
activation = "relu6"

[head]
expand_channels = 32
activation = "relu6"
"#;

#[test]
fn exported_folders_of_each_family() {
    let folder = scratch();
    let at = folder.path();
    write_file(at.join("small-proxyless.toml"), PROXYLESS);
    let mut text = String::new();
    for space in ["tiny", "tiny-resnet", "small-proxyless.toml"] {
        let train = format!("train --space {space} --data digits --seed 1 --scale 0.0003 --out {space}-run");
        run("supernet", at, &train);
        let from = format!(
            "export --supernet {space}-run/supernet.safetensors --data digits --calibration-images 100 --format onnx"
        );
        for arch in ["smallest", "largest"] {
            run("extract", at, &format!("{from} --arch {arch} --out {space}-{arch}"));
            let files = ["config.json", "model.safetensors", "model.onnx"]
                .map(|file| format!("{space}-{arch}/{file}"));
            text += &hashes(at, &files.each_ref().map(String::as_str));
        }
    }
    assert_pinned("exports", &text);
}

/// Both ends of a space, and random sub-networks.
fn some(space: &SearchSpace) -> Vec<Arch> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let ends = [sampler::largest(space), sampler::smallest(space)];
    ends.into_iter().chain((0..50).map(|_| sampler::random(space, &mut rng))).collect()
}

#[test]
fn fingerprints_texts_and_layers_of_every_preset() {
    let mut text = String::new();
    for name in preset_names() {
        let space = preset(name).expect("a preset");
        let mut archs = String::new();
        let mut layers = String::new();
        for arch in some(&space) {
            let specs = space.lower(&arch).expect("legal");
            let _ = writeln!(archs, "{arch} {:?}", cost(&specs));
            for layer in &specs {
                let _ = writeln!(layers, "{} {}", layer.name, layer.key());
            }
        }
        let _ = writeln!(
            text,
            "{name}\n  fingerprint {} {}\n  sub-networks {} {}\n  layers {}",
            space.fingerprint(),
            space.fingerprint_at_any_resolution(),
            space.subnetworks(),
            hash(archs.as_bytes()),
            hash(layers.as_bytes()),
        );
    }
    assert_pinned("spaces", &text);
}
