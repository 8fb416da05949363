//! Runs the binaries of this build, and checks what they print and return.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// A binary of this build. `cargo test --workspace` builds those of the other packages next to the tests.
pub(crate) fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/<test>");
    let path = folder.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is built by `cargo test --workspace`", path.display());
    path
}

/// A command line in a folder, without standard input.
pub(crate) fn command(name: &str, folder: &Path, line: &str) -> Command {
    let mut command = Command::new(binary(name));
    command.current_dir(folder).stdin(Stdio::null()).args(line.split_whitespace());
    command
}

pub(crate) fn run(name: &str, folder: &Path, line: &str) -> Output {
    command(name, folder, line).output().expect("a binary that starts")
}

/// Runs a command with the kernels of this name.
pub(crate) fn run_with_kernels(name: &str, folder: &Path, line: &str, kernels: &str) -> Output {
    let mut command = command(name, folder, line);
    command.env("ONCE_FOR_ALL_KERNELS", kernels).output().expect("a binary that starts")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command that succeeded printed, as JSON.
pub(crate) fn document(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed, and returns its messages.
pub(crate) fn succeeds(name: &str, folder: &Path, line: &str) -> String {
    let output = run(name, folder, line);
    let message = stderr(&output);
    assert!(output.status.success(), "{name} {line}: {message}");
    message
}

/// Runs a command that must succeed, with `--json`, and returns its document.
pub(crate) fn json(name: &str, folder: &Path, line: &str) -> Value {
    let output = run(name, folder, &format!("{line} --json"));
    assert!(output.status.success(), "{name} {line}: {}", stderr(&output));
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{name} {line}: {error}"));
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines, document["version"].is_u64()), (1, true), "{name} {line}: one line, with a version");
    document
}

/// Runs a command that must fail with this code, and returns its message.
pub(crate) fn fails(name: &str, folder: &Path, line: &str, code: i32) -> String {
    let output = run(name, folder, line);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{name} {line}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

/// Runs a command that must fail with this code and these words in its message, and returns the message.
pub(crate) fn assert_fails(name: &str, folder: &Path, line: &str, code: i32, words: &str) -> String {
    let message = fails(name, folder, line, code);
    assert!(message.contains(words), "{name} {line}: expected `{words}`, got {message}");
    message
}

/// The training of the shared supernet, without `--out`.
pub(crate) const TRAIN: &str = "train --space tiny --data digits --seed 3 --scale 0.02";

/// A folder with a trained supernet of `tiny` (`run`), its sampled accuracies (`accuracy.jsonl`), an estimator
/// (`estimator.safetensors`) and a latency table (`table.json`), made once for all tests.
pub(crate) fn pipeline() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER.get_or_init(make_pipeline).path()
}

fn make_pipeline() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let trained = json("supernet", at, &format!("{TRAIN} --out run --profile"));
    assert_eq!(trained["supernet"], "run/supernet.safetensors");
    let profile = trained["profile"].as_array().expect("rows");
    let layers = |layer: &str| profile.iter().filter(|row| row["layer"] == layer).count();
    assert!(layers("pointwise") > 0 && layers("depthwise") > 0 && layers("optimizer") == 1, "{profile:?}");
    assert!(trained["step_ms"]["median"].as_f64().expect("a number") > 0.0);
    let sample =
        "sample --supernet run/supernet.safetensors --data digits --count 40 --calibration-images 200";
    json("supernet", at, &format!("{sample} --out accuracy.jsonl"));
    let measure = "measure --space tiny --threads 1 --half-width 20 --budget 20 --networks 0";
    json("extract", at, &format!("{measure} --out table.json"));
    let fit = json("extract", at, "fit --accuracy accuracy.jsonl --out estimator.safetensors");
    assert_eq!(fit["n"], 40);
    folder
}
