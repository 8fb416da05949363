//! How every file is written: to a sibling, then renamed, so that a reader sees all of it or nothing.

use std::io::Write;
use std::path::Path;

use crate::error::Result;
use supernet::Error;

/// Replaces the file at `path` with `bytes`.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut sibling = tempfile::Builder::new()
        .prefix(".partial-")
        .tempfile_in(folder)
        .map_err(Error::io("create a file beside", path))?;
    let written = sibling.write_all(bytes).and_then(|()| sibling.as_file().sync_all());
    written.map_err(Error::io("write", path))?;
    share_like_a_new_file(sibling.as_file()).map_err(Error::io("set the mode of", path))?;
    sibling.persist(path).map_err(|error| Error::io("rename to", path)(error.error))?;
    Ok(())
}

/// Temporary files are private to their owner; results are for everyone to read.
#[cfg(unix)]
fn share_like_a_new_file(file: &std::fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn share_like_a_new_file(_: &std::fs::File) -> std::io::Result<()> {
    Ok(())
}

/// The value with the keys of all objects in it sorted, whatever order serialization left them in.
pub(crate) fn sorted_json(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted_json).collect()),
        Value::Object(map) => {
            let sorted: std::collections::BTreeMap<_, _> = map.into_iter().collect();
            Value::Object(sorted.into_iter().map(|(key, item)| (key, sorted_json(item))).collect())
        }
        other => other,
    }
}

/// The value to so many decimals: what a file keeps, short enough that every reader of JSON gets it back
/// exactly.
pub(crate) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}
