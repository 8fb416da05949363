//! Dependencies between crates and modules are those of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::testing::files::read_text;
use crate::tidy::all;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> String {
    read_text(root().join("ARCHITECTURE.md"))
}

/// The `name: rest` lines of the block of ARCHITECTURE.md that begins with this line.
fn block(first: &str) -> Vec<(String, String)> {
    let text = architecture();
    let lines = text.lines().skip_while(|line| *line != first).skip(1);
    let pairs = lines.take_while(|line| !line.starts_with("```")).filter_map(|line| line.split_once(':'));
    let pairs: Vec<_> =
        pairs.map(|(name, rest)| (name.trim().to_string(), rest.trim().to_string())).collect();
    assert!(!pairs.is_empty(), "{first}");
    pairs
}

/// The crates of the workspace, with the other crates that each may use.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows = BTreeMap::new();
    for (name, uses) in block("``` crates") {
        let uses = uses.split([' ', ',']).filter(|used| !used.is_empty() && *used != "nothing");
        arrows.insert(name, uses.map(str::to_string).collect());
    }
    arrows
}

fn folder_of(name: &str) -> PathBuf {
    let inner = root().join("crates").join(name);
    if inner.exists() { inner } else { root().join(name) }
}

fn manifest(name: &str) -> toml::Table {
    let text = read_text(folder_of(name).join("Cargo.toml"));
    text.parse().expect("TOML")
}

/// The dependencies of a crate on any system, without those of its tests.
fn dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let table = |value: &toml::Value| value.get("dependencies").and_then(|found| found.as_table().cloned());
    let own = manifest.get("dependencies").and_then(toml::Value::as_table).cloned();
    let systems = manifest.get("target").and_then(toml::Value::as_table);
    let of_systems = systems.into_iter().flat_map(|systems| systems.values().filter_map(table));
    own.into_iter().chain(of_systems).flat_map(|table| table.keys().cloned().collect::<Vec<_>>()).collect()
}

#[test]
fn crates_use_what_the_picture_shows() {
    let arrows = arrows();
    let members: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .chain(["supernet", "extract"].map(str::to_string))
        .collect();
    assert_eq!(arrows.keys().cloned().collect::<BTreeSet<_>>(), members, "each crate has a line");
    for (name, allowed) in &arrows {
        let used: BTreeSet<_> = dependencies(&manifest(name)).intersection(&members).cloned().collect();
        assert_eq!(&used, allowed, "{name}");
    }
}

/// Crates without tensors.
const WITHOUT_TENSORS: [&str; 4] = ["base", "space", "search", "latency"];

#[test]
fn what_knows_no_tensor_has_no_library_of_tensors() {
    for name in arrows().keys().filter(|name| WITHOUT_TENSORS.contains(&name.as_str())) {
        let used = dependencies(&manifest(name));
        assert!(!used.iter().any(|used| used.contains("candle")), "{name}: {used:?}");
    }
}

#[test]
fn unsafe_code_is_forbidden_by_the_compiler() {
    for name in arrows().keys().filter(|name| *name != "kernels") {
        let lib = read_text(folder_of(name).join("src/lib.rs"));
        assert!(lib.contains("#![forbid(unsafe_code)]"), "{name}");
    }
}

/// The modules of a crate from left to right; those that are separated by commas share a place.
fn order(name: &str) -> Vec<Vec<String>> {
    let modules = block("``` modules").into_iter().find(|(known, _)| known == name);
    let (_, modules) = modules.unwrap_or_else(|| panic!("{name} has a line"));
    let places =
        modules.split('·').map(|place| place.split(',').map(|name| name.trim().to_string()).collect());
    places.collect()
}

#[test]
fn modules_use_only_what_stands_to_their_left() {
    for name in arrows().keys() {
        let places = order(name);
        let place_of =
            |module: &str| places.iter().position(|place| place.iter().any(|known| known == module));
        let source = folder_of(name).join("src");
        for (path, code) in all(&source) {
            let within = path.strip_prefix(&source).expect("below the sources");
            let first =
                within.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
            let module = first.trim_end_matches(".rs");
            if ["lib", "main", "bin"].contains(&module) {
                continue;
            }
            let own = place_of(module);
            assert!(own.is_some(), "{name}: `{module}` stands nowhere in ARCHITECTURE.md");
            for used in code.split("crate::").skip(1) {
                let used: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let place = place_of(&used);
                assert!(place.is_none() || place <= own, "{}: `{module}` uses `{used}`", path.display());
            }
        }
    }
}
