//! Exported folders in Python: images as `.npy` files, scripts of `examples/python`, and logits.

use std::path::{Path, PathBuf};
use std::process::Command;

use base::random::rng_for;
use rand::Rng;
use serde_json::Value;

use super::commands::stderr;
use super::files::write_file;

/// A file under `examples/`.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The Python that the environment names, or `python3`, if it has the modules that a script imports.
pub(crate) fn python_with(script: &str, modules: &str) -> Option<String> {
    let name = std::env::var("ONCE_FOR_ALL_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let reason = match Command::new(&name).args(["-c", &format!("import {modules}")]).output() {
        Ok(output) if output.status.success() => return Some(name),
        Ok(output) => stderr(&output),
        Err(error) => error.to_string(),
    };
    println!("skipped: {name} cannot run {script}: {reason}");
    None
}

/// A `.npy` file of random values, `[1, side, side]`.
pub(crate) fn write_npy(path: &Path, side: u64) {
    let mut rng = rng_for("predict.py", 0, &[side]);
    let values = (0..side * side).flat_map(|_| rng.random_range(-2.0f32..2.0).to_le_bytes());
    write_file(path, npy("<f4", &format!("(1, {side}, {side})"), values));
}

/// The bytes of a `.npy` file: numpy's name of the type, the shape, the values.
pub(crate) fn npy(descr: &str, shape: &str, data: impl Iterator<Item = u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The resolution of a sub-network with square inputs, from its canonical text.
pub(crate) fn side_of(arch: &str) -> u64 {
    arch[1..].split(':').next().and_then(|side| side.parse().ok()).expect("a resolution")
}

/// Reads a list of numbers.
pub(crate) fn logits(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|logit| logit.as_f64().expect("a number")).collect()
}

/// The logits that a script prints for a folder and an image.
pub(crate) fn run_script(at: &Path, python: &str, script: &str, arguments: &[&str; 2]) -> Vec<f64> {
    let command = &mut Command::new(python);
    command.current_dir(at).arg(example("python").join(script)).args(arguments);
    let output = command.output().expect("Python");
    assert!(output.status.success(), "{script}: {}", stderr(&output));
    logits(&serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Compares relative to the largest expected logit.
pub(crate) fn assert_logits(what: &str, got: &[f64], expected: &[f64]) {
    let largest = expected.iter().fold(0.0f64, |largest, logit| largest.max(logit.abs()));
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-4 * largest, "{what}: {got} not {expected}");
    }
}
