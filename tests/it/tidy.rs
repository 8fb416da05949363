//! What the house forbids, checked on the sources.

use std::path::{Path, PathBuf};

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
            let text = std::fs::read_to_string(&path).expect("text");
            // what follows the tests' module is a test
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_string();
            found.push((path, code));
        }
    }
}

fn all(under: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(under), &mut found);
    assert!(!found.is_empty(), "{under}");
    found
}

/// No file under `folder`, but for those whose path contains one of `except`, holds one of the words.
fn absent(folder: &str, words: &[&str], except: &[&str]) {
    for (path, code) in all(folder) {
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
fn modules_use_only_what_stands_to_their_left() {
    absent(
        "supernet/src/space",
        &["Tensor", "crate::nn", "crate::elastic", "crate::timing", "crate::data"],
        &[],
    );
    absent("supernet/src/kernels", &["crate::nn", "crate::elastic", "crate::train", "crate::data"], &[]);
    absent(
        "supernet/src/nn",
        &["crate::elastic", "crate::train", "crate::data", "SearchSpace", "CpuStorage"],
        &[],
    );
    absent("supernet/src/elastic", &["crate::train", "crate::data", "CpuStorage"], &[]);
    absent("extract/src", &["supernet::train"], &[]);
}

#[test]
fn one_clock_one_printer_one_place_for_unsafe() {
    for source in ["supernet/src", "extract/src"] {
        absent(source, &["Instant", "SystemTime"], &["timing.rs"]);
        absent(
            source,
            &["println!", "eprintln!", "std::env::var(", "process::exit"],
            &["cli", "main.rs", "src/bin/"],
        );
        absent(source, &["unsafe "], &["kernels"]);
        absent(source, &["todo!(", "unimplemented!("], &[]);
    }
}
