//! ONNX Runtime's shared library: found, loaded once per process, and its version.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::session::Session;

use crate::error::Result;

/// The library of this process and its one environment.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    path: PathBuf,
    pub(super) environment: Environment,
    pub(super) version: String,
}

static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

const ADVICE: &str = "give the shared library of ONNX Runtime or the folder that it lies in; \
                      the Python package `onnxruntime` has it in its folder `capi`";

/// Loads the library at `place`, or the one in the folder `place`.
pub(super) fn load(place: &Path) -> Result<Loaded> {
    let path = find(place)?;
    let mut slot = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = slot.as_ref() {
        return if loaded.path == path {
            Ok(loaded.clone())
        } else {
            Err(another(&path, &loaded.path).into())
        };
    }
    let builder = ort::init_from(&path).map_err(|error| not_loaded(&path, error))?;
    let environment = builder
        .with_name("extract")
        .with_telemetry(false)
        .build()
        .map_err(|error| library_error(&path, "an environment", error))?;
    let version = version(&environment);
    Ok(slot.insert(Loaded { path, environment, version }).clone())
}

fn library_error(path: &Path, expected: impl ToString, got: impl ToString) -> base::Error {
    base::Error::invalid(path.display(), "ONNX Runtime", expected, got)
}

fn another(path: &Path, loaded: &Path) -> base::Error {
    let expected = format!("{}, which this process has loaded", loaded.display());
    library_error(path, expected, "another library").and_then_do("use another process for it")
}

/// The real path of the library: itself, or what bears its name in a folder.
fn find(place: &Path) -> Result<PathBuf> {
    let real = place.canonicalize().map_err(base::Error::io("open the library", place))?;
    if !real.is_dir() {
        return Ok(real);
    }
    let stem = format!("{DLL_PREFIX}onnxruntime.");
    let pattern = format!("{DLL_PREFIX}onnxruntime{DLL_SUFFIX}");
    let entries = real.read_dir().map_err(base::Error::io("open the folder", place))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&stem) && name.contains(DLL_SUFFIX)
        })
        .filter_map(|entry| entry.path().canonicalize().ok())
        .collect();
    found.sort();
    found.dedup(); // links to the same file
    match <[PathBuf; 1]>::try_from(found) {
        Ok([path]) => Ok(path),
        Err(found) if found.is_empty() => {
            let error = library_error(place, format!("{pattern} in this folder"), "none");
            Err(error.and_then_do(ADVICE).into())
        }
        Err(found) => {
            let names: Vec<_> = found.iter().map(|path| path.display().to_string()).collect();
            let error = library_error(place, format!("one {pattern} in this folder"), names.join(", "));
            Err(error.and_then_do("give one of them").into())
        }
    }
}

fn not_loaded(path: &Path, error: LoadDynamicError) -> base::Error {
    match error {
        LoadDynamicError::Dlopen { error, .. } => {
            let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            library_error(path, "a shared library of this system", cause).and_then_do(ADVICE)
        }
        LoadDynamicError::BadVersion { version_str, .. } => {
            library_error(path, format!("version 1.{} or newer", ort::MINOR_VERSION), version_str)
                .and_then_do("install a newer version")
        }
        LoadDynamicError::MissingApi { .. } => {
            library_error(path, "a library of ONNX Runtime", "one without `OrtGetApiBase`")
                .and_then_do(ADVICE)
        }
        error => library_error(path, "a library of ONNX Runtime", error).and_then_do(ADVICE),
    }
}

/// The library's version, such as `1.32.0`.
///
/// There is no safe call that returns it. But a model of a file format that no version has is refused in a sentence
/// that ends in the version; a library that says something else is described by how it was built.
fn version(environment: &Environment) -> String {
    let refused = Session::builder(environment)
        .and_then(|mut builder| builder.commit_from_memory(&model_of_no_version()))
        .err()
        .map(|error| error.message().to_string());
    refused.as_deref().and_then(version_in).unwrap_or_else(|| ort::info().to_string())
}

/// `… is not supported in this build 1.32.0.`
fn version_in(sentence: &str) -> Option<String> {
    let (_, rest) = sentence.split_once("in this build ")?;
    let version = rest.split_whitespace().next()?.trim_end_matches('.');
    version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_string())
}

/// A file in ONNX Runtime's own format, which is a FlatBuffers table whose first field is the format's version as
/// text.
fn model_of_no_version() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(16_u32.to_le_bytes()); // where the table is
    bytes.extend(b"ORTM");
    bytes.extend([6_u16, 8, 4, 0].iter().flat_map(|size| size.to_le_bytes())); // one field, at 4 in the table
    bytes.extend(8_i32.to_le_bytes()); // table: how far before it the line above stands
    bytes.extend(4_u32.to_le_bytes()); // field: how far behind it the text stands
    bytes.extend(3_u32.to_le_bytes()); // text: its length
    bytes.extend(b"999\0");
    bytes
}

#[cfg(test)]
mod tests {
    use super::version_in;

    #[test]
    fn the_version_is_read_from_the_refusal() {
        let sentence =
            "session.cc:1 The ORT format model version [999] is not supported in this build 1.32.0.";
        assert_eq!(version_in(sentence).as_deref(), Some("1.32.0"));
        let note = "version [999] is not supported in this build 1.25.1. This build is older.";
        assert_eq!(version_in(note).as_deref(), Some("1.25.1"));
        for other in ["", "no model", "not supported in this build ", "not supported in this build of mine"] {
            assert_eq!(version_in(other), None, "{other}");
        }
    }
}
