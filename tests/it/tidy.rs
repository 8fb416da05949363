//! Rules for the sources: words that are forbidden in some places.

use std::path::{Path, PathBuf};

use crate::testing::files::read_text;

fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        // modules of tests in files of their own
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = read_text(&path);
            // all that follows belongs to the tests
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_string();
            found.push((path, code));
        }
    }
}

/// The source files under a folder, without their tests.
pub(crate) fn all(under: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(under, &mut found);
    assert!(!found.is_empty(), "{}", under.display());
    found
}

/// Checks that no file under `folder` contains one of the words, except where the path contains one of `except`.
fn absent(folder: &str, words: &[&str], except: &[&str]) {
    for (path, code) in all(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) {
        let place = path.display().to_string();
        if except.iter().any(|part| place.contains(part)) {
            continue;
        }
        for word in words {
            assert!(!code.contains(word), "{place} holds `{word}`");
        }
    }
}

#[test]
fn some_words_stand_in_some_places_only() {
    absent("crates/network/src/nn", &["SearchSpace", "CpuStorage"], &[]);
    absent("crates/network/src/elastic", &["CpuStorage"], &[]);
}

/// Only families know the choices, and only operators know kernels.
#[test]
fn nobody_asks_for_a_kernel_or_an_expand_ratio_by_name() {
    let words =
        ["\"kernel\"", "\"expand\"", "\"depth\"", ".expand", "expand:", " kernel:", ".kernel,", ".kernel)"];
    for folder in ["supernet/src", "crates/base", "crates/latency", "crates/search", "crates/command"] {
        absent(folder, &words, &["cli/profile.rs", "bin/gpu-check.rs"]);
    }
    absent("extract/src", &words, &["/ofa/", "/onnx/"]);
    absent("crates/network/src", &words, &["/nn/", "/pytorch/", "elastic/kernel_transform.rs"]);
    let words = ["\"expand\"", "\"depth\"", ".expand", "expand:"];
    absent("crates/space/src", &words, &["/families", "/ofa", "/operators", "space/src/layer.rs"]);
}

#[test]
fn one_clock_one_printer_one_place_for_unsafe() {
    for source in ["crates", "supernet/src", "extract/src"] {
        absent(source, &["Instant", "SystemTime"], &["timing.rs"]);
        absent(
            source,
            &["println!", "eprintln!", "std::env::var(", "process::exit"],
            &["cli", "crates/command", "main.rs", "src/bin/", "emulated.rs"],
        );
        absent(source, &["unsafe "], &["kernels"]);
        absent(source, &["todo!(", "unimplemented!("], &[]);
    }
}
