//! Whether two configs build the same network: their normal forms, and the first field that differs.

use serde_json::{Map, Value, json};

use crate::make_divisible;

/// The defaults of each class (signatures of `ofa.utils.layers`).
const DEFAULTS: [(&str, &str); 5] = [
    (
        "ConvLayer",
        r#"{"kernel_size": 3, "stride": 1, "dilation": 1, "groups": 1, "bias": false, "has_shuffle": false,
            "use_se": false, "use_bn": true, "act_func": "relu", "dropout_rate": 0, "ops_order": "weight_bn_act"}"#,
    ),
    (
        "IdentityLayer",
        r#"{"use_bn": false, "act_func": null, "dropout_rate": 0, "ops_order": "weight_bn_act"}"#,
    ),
    ("LinearLayer", r#"{"bias": true, "use_bn": false, "act_func": null, "ops_order": "weight_bn_act"}"#),
    (
        "MBConvLayer",
        r#"{"kernel_size": 3, "stride": 1, "expand_ratio": 6, "mid_channels": null, "act_func": "relu6",
            "use_se": false, "groups": null}"#,
    ),
    (
        "ResNetBottleneckBlock",
        r#"{"kernel_size": 3, "stride": 1, "expand_ratio": 0.25, "mid_channels": null, "act_func": "relu",
            "groups": 1, "downsample_mode": "avgpool_conv"}"#,
    ),
];

/// Class names of older releases.
const RENAMED: [(&str, &str); 2] =
    [("MobileInvertedResidualBlock", "ResidualBlock"), ("MBInvertedConvLayer", "MBConvLayer")];

/// The config with all defaults written, and without fields that matter only in training.
pub(super) fn normal(config: Value) -> Value {
    let mut config = layers(config);
    if let Some(norm) = config.get_mut("bn").and_then(Value::as_object_mut) {
        norm.remove("momentum");
        norm.retain(|_, value| !value.is_null());
    }
    if let Some(classifier) = config.get_mut("classifier").and_then(Value::as_object_mut) {
        classifier.remove("dropout_rate");
    }
    config
}

fn layers(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(layers).collect()),
        Value::Object(map) => {
            let mut fields: Map<_, _> = map.into_iter().map(|(key, value)| (key, layers(value))).collect();
            if !fields.contains_key("conv") {
                fields.remove("mobile_inverted_conv").map(|conv| fields.insert("conv".to_string(), conv));
            }
            Value::Object(layer(fields))
        }
        other => other,
    }
}

fn layer(mut fields: Map<String, Value>) -> Map<String, Value> {
    let named = fields.get("name").and_then(Value::as_str).unwrap_or_default();
    let name = RENAMED.iter().find(|(older, _)| *older == named).map_or(named, |(_, name)| name).to_string();
    if let Some(written) = fields.get_mut("name").filter(|written| written.is_string()) {
        *written = json!(name);
    }
    if let Some((_, defaults)) = DEFAULTS.iter().find(|(class, _)| *class == name) {
        let defaults: Map<String, Value> = serde_json::from_str(defaults).expect("written above");
        for (key, value) in defaults {
            fields.entry(key).or_insert(value);
        }
    }
    match name.as_str() {
        "IdentityLayer" => ["in_channels", "out_channels"].iter().for_each(|key| unlist(&mut fields, key)),
        "MBConvLayer" => mbconv(&mut fields),
        "ResNetBottleneckBlock" => bottleneck(&mut fields),
        _ => {}
    }
    fields
}

/// Some of the authors' files write channels of a shortcut as `[24]`.
fn unlist(fields: &mut Map<String, Value>, key: &str) {
    if let Some([only]) = fields.get(key).and_then(|value| value.as_array()).map(Vec::as_slice) {
        let only = only.clone();
        fields.insert(key.to_string(), only);
    }
}

/// The channels from the field and the ratio, rounded as in Python.
fn product(fields: &Map<String, Value>, key: &str) -> Option<f64> {
    let number = |key| fields.get(key).and_then(Value::as_f64);
    let channels = (number(key)? * number("expand_ratio")?).round_ties_even();
    // far from where sizes overflow
    (0.0..=1e6).contains(&channels).then_some(channels)
}

fn mbconv(fields: &mut Map<String, Value>) {
    if let (Some(Value::Null), Some(channels)) = (fields.get("mid_channels"), product(fields, "in_channels"))
    {
        fields.insert("mid_channels".to_string(), json!(channels as u64));
    }
}

fn bottleneck(fields: &mut Map<String, Value>) {
    let written = fields.get("mid_channels").and_then(Value::as_f64).filter(|mid| (0.0..=1e6).contains(mid));
    let left_out = fields.get("mid_channels").is_some_and(Value::is_null);
    if let Some(channels) = written.or_else(|| product(fields, "out_channels").filter(|_| left_out)) {
        fields.insert("mid_channels".to_string(), json!(make_divisible(channels, 8)));
    }
}

/// The path, the expected and the actual value of the first field in which two configs in normal form differ.
pub(super) fn first_difference(expected: &Value, got: &Value) -> Option<(String, String, String)> {
    differ(String::new(), Some(expected), Some(got))
}

fn differ(path: String, expected: Option<&Value>, got: Option<&Value>) -> Option<(String, String, String)> {
    let below = |key: &str| if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
    match (expected, got) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let further = b.keys().filter(|key| !a.contains_key(*key));
            a.keys().chain(further).find_map(|key| match key.as_str() {
                "expand_ratio" => expansion(below(key), a.get(key), b.get(key)),
                _ => differ(below(key), a.get(key), b.get(key)),
            })
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            let longest = a.len().max(b.len());
            (0..longest).find_map(|index| differ(below(&index.to_string()), a.get(index), b.get(index)))
        }
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.as_f64() == b.as_f64() => None,
        (a, b) if a == b => None,
        (a, b) => Some((path, a.map_or("none".to_string(), shown), b.map_or("none".to_string(), shown))),
    }
}

/// Next to the inner channels a ratio means only whether there is an expansion: not if it is 1.
fn expansion(
    path: String,
    expected: Option<&Value>,
    got: Option<&Value>,
) -> Option<(String, String, String)> {
    let is_one = |value: Option<&Value>| value.and_then(Value::as_f64) == Some(1.0);
    match (expected, got) {
        (Some(Value::Number(_)), Some(Value::Number(_))) if is_one(expected) == is_one(got) => None,
        _ => differ(path, expected, got),
    }
}

/// A value in a message.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_string(),
        Value::String(text) => text.chars().take(60).collect(),
        Value::Object(map) => match map.get("name").and_then(Value::as_str) {
            Some(name) => format!("a {}", name.chars().take(60).collect::<String>()),
            None => "an object".to_string(),
        },
        Value::Array(items) => format!("a list of {}", items.len()),
        other => other.to_string(),
    }
}
