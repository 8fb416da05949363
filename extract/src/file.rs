//! What the crate's JSON files share: sorted keys, short numbers.

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
