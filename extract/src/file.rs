//! What the crate's JSON files share: kind and version first, sorted keys, short numbers.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use supernet::Error;

use crate::error::Result;

/// Reads a document of one kind and version; `form` says in words what it should be.
pub(crate) fn read_document<T: DeserializeOwned>(
    place: &str,
    text: &str,
    (kind, version): (&str, u32),
    form: &str,
) -> Result<T> {
    #[derive(Deserialize)]
    struct Front {
        kind: String,
        version: u32,
    }
    let unreadable = |error| Error::invalid(place, "text", form, error);
    let front: Front = serde_json::from_str(text).map_err(unreadable)?;
    if front.kind != kind {
        return Err(Error::invalid(place, "kind", kind, front.kind).into());
    }
    if front.version != version {
        return Err(Error::invalid(place, "version", version, front.version)
            .and_then_do("use the release of this tool that wrote it")
            .into());
    }
    Ok(serde_json::from_str(text).map_err(unreadable)?)
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
