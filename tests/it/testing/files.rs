//! Reads, writes and copies files; an error names the path.

use std::path::Path;

use serde_json::Value;

/// A folder of this test's own.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

pub(crate) fn read_bytes(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn read_text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn read_json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    serde_json::from_str(&read_text(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn write_file(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    std::fs::write(path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Copies files of these names into a folder, which is made, with those that the names lie in.
pub(crate) fn copy_files(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        let copy = to.join(name);
        std::fs::create_dir_all(copy.parent().expect("a folder")).expect("made");
        std::fs::copy(from.join(name), copy).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The names in a folder, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The lines of `log.jsonl` in the folder of a run.
pub(crate) fn log_of(run: &Path) -> Vec<Value> {
    let text = read_text(run.join("log.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines")).collect()
}

/// `plan.json` in the folder of a run.
pub(crate) fn plan_of(run: &Path) -> Value {
    read_json(run.join("plan.json"))
}

/// `supernet.safetensors` in the folder of a run.
pub(crate) fn weights_of(run: &Path) -> Vec<u8> {
    read_bytes(run.join("supernet.safetensors"))
}
