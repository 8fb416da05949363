//! Latency tables as PyTorch's `ofa` package (Cai et al. 2020) reads them: YAML, one file per resolution.
//!
//! Each row is a layer's mean in milliseconds, its standard deviation and how many runs they are of. OFA's code takes a
//! network's latency as the sum of the means. ProxylessNAS's tables, in which such files were first written, hold a
//! variance (`var`) in place of the deviation. Which layers a key means is [`layers_of`]'s to say.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::Path;

use base::Error;
use base::document;
use base::file::{self, write_atomically};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};
use space::LayerSpec;

pub use super::key::{KeyForm, layer_of, layers_of, ofa_key};
use super::key::{one_line, parse, parse_proxyless};
use crate::error::Result;

/// Longest text that is read, in bytes: a thousand times a table of one resolution.
const MOST_BYTES: usize = 16 << 20;

/// A table's figures of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OfaRow {
    /// Number of runs.
    pub count: u64,
    /// Their mean, in milliseconds a run.
    pub mean_ms: f64,
    /// Their standard deviation, in milliseconds; OFA does not say by what it was divided.
    pub std_ms: f64,
}

/// A row as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a layer's count, mean and std or var")]
struct WireRow {
    #[serde(deserialize_with = "whole")]
    count: u64,
    mean: f64,
    std: Option<f64>,
    var: Option<f64>,
}

/// A whole number, which may be written as a float, as pandas does.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u64, D::Error> {
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> std::result::Result<u64, E> {
            Ok(number)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> std::result::Result<u64, E> {
            // up to 2^53 every whole number has a float of its own
            let is_count = number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number);
            match is_count {
                true => Ok(number as u64),
                false => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
            }
        }
    }

    deserializer.deserialize_any(Whole)
}

impl WireRow {
    /// The row of a key, with the root of a variance as its deviation.
    fn checked(self, place: &str, key: &str) -> Result<OfaRow> {
        let field = |name: &str| format!("{name} of \"{}\"", one_line(key, 120));
        let std_ms = match (self.std, self.var) {
            (Some(std), None) => std,
            (None, Some(var)) if var.is_finite() && var >= 0.0 => var.sqrt(),
            (None, Some(var)) => {
                let expected = "a finite number of square milliseconds from 0";
                return Err(Error::invalid(place, field("var"), expected, var).into());
            }
            (both, _) => {
                let got = if both.is_some() { "both" } else { "none" };
                return Err(Error::invalid(place, field("std"), "it, or var in its place", got).into());
            }
        };
        Ok(OfaRow { count: self.count, mean_ms: self.mean, std_ms })
    }
}

/// One resolution's table, by OFA's keys; each is a layer's, and the numbers are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct OfaTable {
    form: KeyForm,
    rows: BTreeMap<String, OfaRow>,
}

impl OfaTable {
    /// A table of rows by OFA's keys; `place` names it in messages.
    ///
    /// # Errors
    /// If there is no row; or names the one whose key is no layer's or whose numbers cannot be.
    pub fn new(place: &str, rows: BTreeMap<String, OfaRow>) -> Result<Self> {
        if rows.is_empty() {
            return Err(Error::invalid(place, "rows", "at least one", "none").into());
        }
        let form = form(place, &rows)?;
        for (key, row) in &rows {
            check_key(key, form).map_err(|error| error.in_place(place))?;
            check_row(place, key, row)?;
        }
        Ok(Self { form, rows })
    }

    /// Reads a table.
    ///
    /// # Errors
    /// If the file cannot be read, is no such YAML, or a row's key or numbers cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        Self::from_yaml(&path.display().to_string(), &text)
    }

    /// Reads a table from YAML text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`OfaTable::read`].
    pub fn from_yaml(place: &str, text: &str) -> Result<Self> {
        let wrong = |expected: &str, got: String| Error::invalid(place, "text", expected, got);
        if text.len() > MOST_BYTES {
            return Err(wrong(&format!("at most {MOST_BYTES} bytes"), text.len().to_string()).into());
        }
        // straight into rows: untyped values could be multiplied without end by YAML's aliases
        let rows: BTreeMap<String, WireRow> =
            document::each_key_once(serde_norway::Deserializer::from_str(document::without_mark(text)))
                .map_err(|error| {
                    wrong(
                        "OFA's latency table in YAML, each key with count, mean and std or var",
                        one_line(&error.to_string(), 300),
                    )
                })?;
        Self::new(
            place,
            rows.into_iter()
                .map(|(key, row): (String, WireRow)| Ok((key.clone(), row.checked(place, &key)?)))
                .collect::<Result<_>>()?,
        )
    }

    /// The table as YAML, byte for byte what PyYAML, in which OFA's tables are written, makes of the same numbers.
    pub fn to_yaml(&self) -> String {
        let mut text = String::new();
        for (key, OfaRow { count, mean_ms, std_ms }) in &self.rows {
            let mean = yaml_float(*mean_ms);
            let std = yaml_float(*std_ms);
            writeln!(text, "{key}:\n  count: {count}\n  mean: {mean}\n  std: {std}")
                .expect("a String takes all that is written");
        }
        text
    }

    /// Writes the table, all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, self.to_yaml().as_bytes())?)
    }

    /// The rows by OFA's keys.
    pub fn rows(&self) -> &BTreeMap<String, OfaRow> {
        &self.rows
    }

    /// Whose keys it has.
    pub fn form(&self) -> KeyForm {
        self.form
    }

    /// The rows by the layers that their keys mean; a key of two layers gives each its share.
    pub fn layers(&self) -> impl Iterator<Item = (LayerSpec, OfaRow)> + '_ {
        self.rows.iter().flat_map(|(key, row)| {
            let layers = layers_of(key, self.form).expect("its keys were checked");
            layers.into_iter().map(move |(layer, share)| {
                (layer, OfaRow { mean_ms: share * row.mean_ms, std_ms: share * row.std_ms, ..*row })
            })
        })
    }
}

/// Whose keys a table has: ProxylessNAS's if one is, for stems and last convolutions look alike in both.
fn form(place: &str, rows: &BTreeMap<String, OfaRow>) -> Result<KeyForm> {
    let first = |form| rows.keys().find(|key| KeyForm::of(key) == Some(form));
    match (first(KeyForm::ProxylessNas), first(KeyForm::MobileNetV3)) {
        (Some(ours), Some(theirs)) => {
            let got = format!(
                "\"{}\" of ProxylessNAS and \"{}\" of MobileNetV3",
                one_line(ours, 120),
                one_line(theirs, 120)
            );
            Err(Error::invalid(place, "keys", "those of one family of networks", got).into())
        }
        (Some(_), None) => Ok(KeyForm::ProxylessNas),
        (None, _) => Ok(KeyForm::MobileNetV3),
    }
}

fn check_key(key: &str, form: KeyForm) -> base::Result<()> {
    match form {
        KeyForm::MobileNetV3 => parse(key).map(|_| ()),
        KeyForm::ProxylessNas => parse_proxyless(key).map(|_| ()),
    }
}

fn check_row(place: &str, key: &str, row: &OfaRow) -> Result<()> {
    let wrong = |field: &str, expected: &str, got: &dyn std::fmt::Display| {
        Err(Error::invalid(place, format!("{field} of \"{key}\""), expected, got).into())
    };
    if row.count == 0 {
        return wrong("count", "at least 1", &row.count);
    }
    if !(row.mean_ms.is_finite() && row.mean_ms > 0.0) {
        return wrong("mean", "a finite number of milliseconds above 0", &row.mean_ms);
    }
    if !(row.std_ms.is_finite() && row.std_ms >= 0.0) {
        return wrong("std", "a finite number of milliseconds from 0", &row.std_ms);
    }
    Ok(())
}

/// The fewest digits that give the number back, in the form that YAML 1.1 and so PyYAML takes for a number: with a
/// point, and with a sign before the exponent. `1e-7`, as Rust writes it, would be text to PyYAML.
fn yaml_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("that is how exponents are written");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let with_point = |digits: String| if digits.contains('.') { digits } else { digits + ".0" };
    if (-4..16).contains(&exponent) || value == 0.0 {
        return with_point(value.to_string());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", with_point(digits.to_string()), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
AvgPool2D-input:5x5x1152-output:1x1x1152:
  count: 491
  mean: 0.008482688391038698
  std: 0.0006733248071883371
Logits-input:1x1x1536-output:1000:
  count: 499
  mean: 0.656440881763527
  std: 0.07729654276272765
";

    #[test]
    fn tables_round_trip_through_a_file() {
        let table = OfaTable::from_yaml("x.yaml", GOOD).expect("a table");
        assert_eq!(table.to_yaml(), GOOD);
        for same in [format!("\u{feff}{GOOD}"), GOOD.replace("491", "491.0"), GOOD.replace('\n', "\r\n")] {
            assert_eq!(OfaTable::from_yaml("x.yaml", &same).expect("a table"), table, "{same:?}");
        }
        let keys: Vec<_> = table.layers().map(|(layer, row)| (layer.key(), row.count)).collect();
        assert_eq!(keys, [("pool 1152 @5x5".to_string(), 491), ("linear 1536-1000 @1x1".to_string(), 499)]);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("160_lookup_table.yaml");
        table.write(&path).expect("writable");
        assert_eq!(OfaTable::read(&path).expect("own file"), table);
        assert!(OfaTable::read(folder.path()).is_err());
    }

    #[test]
    fn tables_of_proxyless_nas_are_read() {
        let text = "\
Conv-input:224x224x3-output:112x112x32:
  count: 154
  mean: 5.25
  var: 0.0625
Logits-input:7x7x1280-output:951:
  count: 100
  mean: 2.0
  var: 0.0
expanded_conv-input:7x7x192-output:7x7x320-expand:6-kernel:5-stride:1-idskip:0:
  count: 7
  mean: 1.5
  std: 0.25
";
        let table = OfaTable::from_yaml("x.yaml", text).expect("a table");
        assert_eq!(table.form(), KeyForm::ProxylessNas);
        let rows: BTreeMap<_, _> = table.layers().map(|(layer, row)| (layer.key(), row)).collect();
        let stem = rows["stem k3 s2 3-32 relu6 @224x224"];
        assert_eq!((stem.count, stem.mean_ms, stem.std_ms), (154, 5.25, 0.25));
        let sum: f64 = rows.values().map(|row| row.mean_ms).sum();
        assert!(rows.len() == 4 && (sum - 8.75).abs() < 1e-12, "no time is lost: {sum}");
        for (from, to, part) in [
            ("var: 0.0625", "var: -0.5", "expected a finite number of square milliseconds from 0, got -0.5"),
            (
                "var: 0.0625",
                "var: .inf",
                "var of \"Conv-input:224x224x3-output:112x112x32\": expected a finite",
            ),
            ("var: 0.0625", "var: 1\n  std: 1", "expected it, or var in its place, got both"),
            (
                "idskip:0",
                "idskip:0-se:0-hs:0",
                "keys: expected those of one family of networks, got \"Logits-",
            ),
        ] {
            assert!(text.contains(from));
            let error = OfaTable::from_yaml("x.yaml", &text.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.contains(part), "{to}: {error}");
        }
    }

    /// The right column is what PyYAML 6.0.3 writes.
    #[test]
    fn numbers_are_written_as_pyyaml_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (0.86918, "0.86918"),
            (1.1952299999999998, "1.1952299999999998"),
            (0.0001, "0.0001"),
            (0.00001, "1.0e-05"),
            (0.000099999, "9.9999e-05"),
            (1.5e-7, "1.5e-07"),
            (5e-324, "5.0e-324"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e15, "1000000000000000.0"),
            (1e16, "1.0e+16"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(yaml_float(value), text);
            assert_eq!(text.parse(), Ok(value));
        }
    }

    #[test]
    fn malformed_tables_are_refused_with_key_and_field() {
        let pool = "AvgPool2D-input:5x5x1152-output:1x1x1152";
        let huge = " ".repeat(MOST_BYTES + 1);
        for (from, to, parts) in [
            ("count: 491", "count: 0", ["count of \"AvgPool2D-", "expected at least 1, got 0"]),
            ("count: 491", "count: -1", [pool, "count: invalid type: integer `-1`, expected a whole number"]),
            (
                "count: 491",
                "count: 4.5",
                [pool, "count: invalid value: floating point `4.5`, expected a whole"],
            ),
            ("count: 491", "count: 1e300", [pool, "count: invalid value: floating point"]),
            ("count: 491", "count: 5\n  count: 6", [pool, "duplicate field `count`"]),
            ("mean: 0.008482688391038698", "mean: 0", ["mean of \"AvgPool2D-", "above 0, got 0"]),
            ("mean: 0.008482688391038698", "mean: -1e-3", ["mean of \"AvgPool2D-", "got -0.001"]),
            ("mean: 0.008482688391038698", "mean: .nan", ["mean of \"AvgPool2D-", "got NaN"]),
            ("mean: 0.008482688391038698", "mean: .inf", ["mean of \"AvgPool2D-", "got inf"]),
            ("mean: 0.008482688391038698", "mean: fast", [pool, "mean: invalid type: string \"fast\""]),
            ("mean: 0.008482688391038698", "mean:", [pool, "mean: invalid type: unit value"]),
            ("mean: 0.008482688391038698", "mean: [1]", [pool, "mean: invalid type: sequence"]),
            ("std: 0.0006733248071883371", "std: -0.5", ["std of \"AvgPool2D-", "from 0, got -0.5"]),
            ("std: 0.0006733248071883371", "std: .nan", ["std of \"AvgPool2D-", "got NaN"]),
            (
                "  std: 0.0006733248071883371\n",
                "",
                ["std of \"AvgPool2D-", "expected it, or var in its place, got none"],
            ),
            ("  std: 0.0006733248071883371", "  std: 1\n  median: 2", [pool, "unknown field `median`"]),
            ("Logits-input:1x1x1536-output:1000", pool, [pool, "stands there twice"]),
            ("Logits-", "Softmax-", ["OFA's key \"Softmax-", "kind: expected Conv"]),
            ("Logits-input:1x1x1536-output:1000", "7", ["OFA's key \"7\"", "input"]),
            ("Logits-input:1x1x1536-output:1000", "[a, b]", ["text: expected", "invalid type: sequence"]),
            ("AvgPool2D-", "- AvgPool2D-", ["text: expected", "invalid type: sequence"]),
            ("  count: 499", "\tcount: 499", ["text: expected", "line"]),
            ("Logits-", "--- \nLogits-", ["text: expected", "more than one document"]),
            ("Logits-", "<<: *none\nLogits-", ["text: expected", "unknown anchor"]),
            ("count: 491", "count: \"491\"", [pool, "count: invalid type: string"]),
            (GOOD, "", ["rows: expected at least one", "got none"]),
            (GOOD, "{}", ["rows: expected at least one", "got none"]),
            (GOOD, "null", ["text: expected", "a map with each key once"]),
            (GOOD, &huge, ["text: expected at most 16777216 bytes", "got 16777217"]),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let shown: String = to.chars().take(60).collect();
            let error =
                OfaTable::from_yaml("x.yaml", &GOOD.replacen(from, to, 1)).expect_err(&shown).to_string();
            let named = error.starts_with("x.yaml: ") && parts.iter().all(|part| error.contains(part));
            assert!(named && error.len() < 1000 && error.lines().count() == 1, "{shown}: {error}");
        }
    }

    /// Files that exhaust a careless reader's memory or stack.
    #[test]
    fn nesting_and_aliases_are_refused_in_time() {
        let nested = "[".repeat(20_000);
        let aliases = format!("a: &a [{}]\nb: [{}]", "0,".repeat(20_000), "*a,".repeat(20_000));
        let key = format!("? &k {}\n: 1\n? *k\n: 1", "k".repeat(100_000));
        for text in [
            nested.as_str(),
            &aliases,
            &key,
            "a: &a\n  count: *a",
            "\u{feff}\0",
            "&a *a: 1",
            "%YAML 9.9\n---",
        ] {
            let error = OfaTable::from_yaml("x.yaml", text).expect_err("no table").to_string();
            assert!(error.starts_with("x.yaml: text: expected") && error.len() < 1000, "{error}");
        }
    }
}
