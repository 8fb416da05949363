//! Readers of JSON and TOML documents: kind and version are checked first, and each key occurs once.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// Reads a document of one kind and version; for errors, `form` describes it in words and `place` is its file.
///
/// # Errors
/// If it is not JSON, is of another kind or version, or a field is missing, unknown or wrong.
pub fn read<T: DeserializeOwned>(place: &str, text: &str, kind: &str, version: u32, form: &str) -> Result<T> {
    read_one_of(place, text, kind, &[version], form)
}

/// Reads a document of one kind and one of `versions`, the newest last.
///
/// # Errors
/// As [`read`].
pub fn read_one_of<T: DeserializeOwned>(
    place: &str,
    text: &str,
    kind: &str,
    versions: &[u32],
    form: &str,
) -> Result<T> {
    #[derive(Deserialize)]
    struct Front {
        kind: String,
        version: u32,
    }
    let unreadable = |error| Error::invalid(place, "text", form, error);
    let text = without_mark(text);
    let front: Front = serde_json::from_str(text).map_err(unreadable)?;
    if front.kind != kind {
        return Err(Error::invalid(place, "kind", kind, front.kind));
    }
    check_one_of(place, front.version, versions)?;
    serde_json::from_str(text).map_err(unreadable)
}

/// Reads a TOML text of one version; for errors, `form` describes it in words and `place` is its file.
///
/// # Errors
/// If it is not TOML, is of another version, or a field is missing, unknown or wrong.
pub fn read_toml<T: DeserializeOwned>(place: &str, text: &str, version: u32, form: &str) -> Result<T> {
    toml_version(place, text, &[version], form)?;
    of_toml(place, text, form)
}

/// The version of a TOML text, one of `versions`, the newest last; for forms that differ between versions.
///
/// # Errors
/// If it is not TOML, or is of another version.
pub fn toml_version(place: &str, text: &str, versions: &[u32], form: &str) -> Result<u32> {
    #[derive(Deserialize)]
    struct Front {
        version: u32,
    }
    let front: Front = of_toml(place, text, form)?;
    check_one_of(place, front.version, versions)?;
    Ok(front.version)
}

fn of_toml<T: DeserializeOwned>(place: &str, text: &str, form: &str) -> Result<T> {
    let unreadable =
        |error: toml::de::Error| Error::invalid(place, "text", form, error.to_string().trim_end());
    toml::from_str(without_mark(text)).map_err(unreadable)
}

/// A text without its byte order mark, which some editors write and no parser accepts.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A JSON value in which no object has the same key twice; for forms that differ too much for one type.
///
/// # Errors
/// If the text is not JSON, or an object has the same key twice; the error names the key.
pub fn value_of(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str::<Once>(text).map(|once| once.0)
}

/// A JSON value in which no object has the same key twice.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = Once;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, value: bool) -> std::result::Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> std::result::Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> std::result::Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> std::result::Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> std::result::Result<Once, E> {
                Ok(Once(value.into()))
            }

            fn visit_unit<E>(self) -> std::result::Result<Once, E> {
                Ok(Once(Value::Null))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Once, A::Error> {
                let mut list = Vec::new();
                while let Some(Once(item)) = items.next_element()? {
                    list.push(item);
                }
                Ok(Once(Value::Array(list)))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<Once, A::Error> {
                let entries = once_each::<A, Once>(entries)?;
                Ok(Once(Value::Object(entries.into_iter().map(|(key, Once(value))| (key, value)).collect())))
            }
        }

        deserializer.deserialize_any(Values)
    }
}

/// The entries of a map whose keys differ.
fn once_each<'de, A: MapAccess<'de>, V: Deserialize<'de>>(
    mut entries: A,
) -> std::result::Result<BTreeMap<String, V>, A::Error> {
    let mut map = BTreeMap::new();
    while let Some((key, value)) = entries.next_entry::<String, V>()? {
        if map.contains_key(&key) {
            return Err(A::Error::custom(format_args!("the key \"{key}\" stands there twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// Checks that a document has the version that this code reads.
///
/// # Errors
/// If it has another one; the error says what to do about an older and about a newer version.
pub fn check_version(place: &str, got: u32, expected: u32) -> Result<()> {
    let advice = match got.cmp(&expected) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => "use the older release of this tool that wrote it, or make it anew",
        std::cmp::Ordering::Greater => "use the newer release of this tool that wrote it",
    };
    Err(Error::invalid(place, "version", expected, got).and_then_do(advice))
}

/// Checks that a document has one of the versions that this code reads, the newest last.
///
/// # Errors
/// As [`check_version`], which compares with the newest.
pub fn check_one_of(place: &str, got: u32, versions: &[u32]) -> Result<()> {
    match versions.last() {
        Some(newest) if !versions.contains(&got) => check_version(place, got, *newest),
        _ => Ok(()),
    }
}

/// Reads a map in which each key occurs once; for serde's `deserialize_with`.
///
/// # Errors
/// If a key occurs twice; the error names it.
pub fn each_key_once<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, V>, D::Error> {
    struct Map<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for Map<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a map with each key once")
        }

        fn visit_map<A: MapAccess<'de>>(self, entries: A) -> std::result::Result<Self::Value, A::Error> {
            once_each(entries)
        }
    }

    deserializer.deserialize_map(Map(PhantomData))
}

/// The value rounded to `decimals`, for files: short enough that every reader of JSON gets it back exactly.
pub fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    (value * scale).round() / scale
}

/// Version of the documents that commands print.
const PRINTED: u64 = 1;

/// The output of a command with `--json`: one line, an object, with a `version` added unless it has one.
pub fn printed(value: &Value) -> String {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.entry("version").or_insert_with(|| PRINTED.into());
    }
    value.to_string()
}

/// The value with the keys of all its objects sorted.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let by_key: BTreeMap<_, _> = map.into_iter().collect();
            Value::Object(by_key.into_iter().map(|(key, item)| (key, sorted(item))).collect())
        }
        other => other,
    }
}

/// JSON text with the keys of every object sorted.
///
/// # Errors
/// If the value has no JSON form.
pub fn sorted_json(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(&sorted(serde_json::to_value(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Rows {
        #[serde(deserialize_with = "each_key_once")]
        rows: BTreeMap<String, u32>,
    }

    fn rows(text: &str) -> Result<Rows> {
        read("x.json", text, "rows", 2, "rows in JSON")
    }

    #[test]
    fn kind_version_and_keys_are_checked() {
        let good = r#"{"kind":"rows","version":2,"rows":{"a":1,"b":2}}"#;
        assert_eq!(rows(good).expect("good").rows["b"], 2);
        assert_eq!(rows(&format!("\u{feff}{good}")).expect("a byte order mark").rows["b"], 2);
        for (from, to, expected) in [
            ("\"rows\",", "\"other\",", "x.json: kind: expected rows, got other"),
            ("2,\"rows", "1,\"rows", "version: expected 2, got 1; use the older release"),
            ("2,\"rows", "3,\"rows", "version: expected 2, got 3; use the newer release"),
            ("\"b\"", "\"a\"", "the key \"a\" stands there twice"),
            ("\"rows\":{", "\"rows\":[", "text: expected rows in JSON, got"),
            ("{\"a\"", "{a", "text: expected rows in JSON, got"),
        ] {
            let error = rows(&good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn values_have_each_key_once() {
        let text = r#"{"a":[1,-2,2.5,null,true,"x",{"b":{}}],"c":{"a":1}}"#;
        assert_eq!(value_of(text).expect("good"), serde_json::from_str::<Value>(text).expect("JSON"));
        for text in [r#"{"a":1,"a":2}"#, r#"[{"a":{"b":1,"b":1}}]"#] {
            let error = value_of(text).expect_err("a key twice").to_string();
            assert!(error.contains("stands there twice"), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_toml() {
        let read = |text: &str| read_toml::<BTreeMap<String, u32>>("x.toml", text, 2, "TOML");
        assert_eq!(read("\u{feff}version = 2\na = 1\n").expect("good")["a"], 1);
        assert!(read("version = 2\n\u{feff}a = 1\n").is_err());
    }

    #[test]
    fn some_versions_may_be_read() {
        let read = |version: u32| {
            let text = format!("{{\"kind\":\"rows\",\"version\":{version},\"rows\":{{}}}}");
            read_one_of::<Rows>("x.json", &text, "rows", &[2, 3], "rows in JSON")
        };
        assert!(read(2).is_ok() && read(3).is_ok());
        for (version, advice) in [(1, "older"), (4, "newer")] {
            let error = read(version).expect_err("unknown").to_string();
            assert!(error.contains(&format!("expected 3, got {version}; use the {advice}")), "{error}");
        }
    }
}
