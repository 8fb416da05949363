//! `found.json`: a search's result, its limits and its inputs.
//!
//! The supernet's crate reads `best.arch` from it wherever a sub-network can be given.

mod older;
mod wire;

use std::collections::BTreeMap;
use std::path::Path;

use base::Error;
use base::document::{self, sorted};
use base::file::{self, write_atomically};
use latency::{EngineFacts, LatencyKind, LatencyTable};
use network::model_folder::SelectedOn;
use search::{Better, Candidate, LATENCY, Limits, Metric, MetricValue, TOP1};
use serde::{Deserialize, Serialize};
use space::SearchSpace;

use super::validation::Evaluated;
use crate::error::Result;

/// The file's `kind`.
const KIND: &str = "found";
/// Version of the form that this code writes.
const VERSION: u32 = 4;
/// All that it reads: version 3 named each cost in a field of its own, version 2 knew neither intervals of accuracies,
/// evaluated sub-networks, a search without a latency table nor an interrupted one.
const VERSIONS: &[u32] = &[2, 3, VERSION];

/// A search's result and its inputs. The file has these fields, and its kind and version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    #[serde(rename = "kind", with = "wire::kind")]
    _kind: (),
    #[serde(rename = "version", with = "wire::version")]
    _version: (),
    /// Name of the space.
    pub space: String,
    /// [`SearchSpace::fingerprint`] of the space.
    pub space_fingerprint: String,
    /// The metrics that sub-networks have values of.
    #[serde(deserialize_with = "document::each_key_once")]
    pub metrics: BTreeMap<String, MetricForm>,
    /// The limits of the search.
    #[serde(with = "wire::limits")]
    pub limits: Limits,
    /// The seed of its random choices.
    pub seed: u64,
    /// The candidate with the highest expected accuracy.
    #[serde(with = "wire::candidate")]
    pub best: Candidate,
    /// The probability that `best` keeps the latency limit; absent without a limit, or where the table knows no whole sub-networks
    /// of the space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_kept: Option<f64>,
    /// The kind of latency and its source; absent without a table, and in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyFrom>,
    /// The properties of `best` outside of the range that the table's margin was measured for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extrapolated: Vec<String>,
    /// Accuracy against latency, fastest first; empty unless requested.
    #[serde(with = "wire::candidates")]
    pub front: Vec<Candidate>,
    /// Requested least accuracy: the lower end of the interval of `best` reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_top1: Option<f64>,
    /// Sub-networks that were evaluated on validation images, best first; `best` is one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluated: Vec<Evaluated>,
    /// The images that `best` was selected on, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_on: Option<SelectedOn>,
    /// BLAKE3 of the estimator's file, in hexadecimal; empty where a program evaluated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub estimator: String,
    /// The command of the program that evaluated, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluator: Option<String>,
    /// Whether the search was interrupted: `best` is the best until then.
    pub interrupted: bool,
    /// The metric that was optimized; absent for the accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    /// The strategy's name; absent for the default one as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// `optimal` if the strategy proved that no sub-network within the limits has a higher prediction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
    /// BLAKE3 of the latency table without its run, in hexadecimal; absent where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_table: Option<String>,
    /// What is known of `best` on each of several devices, by name: latencies `latency@NAME`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "document::each_key_once"
    )]
    pub devices: BTreeMap<String, DeviceFound>,
    /// Hash of the supernet that the estimator's rows came from.
    pub supernet: String,
    /// Version of the tool that wrote the file.
    pub tool_version: String,
    /// Times and numbers of the run; no part of what was found.
    #[serde(default)]
    pub run: BTreeMap<String, serde_json::Value>,
}

/// The unit of a metric, and which of two values is the better one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricForm {
    /// `us`, `B`, `share`, or `1` for a count.
    pub unit: String,
    /// Whether the higher or the lower value is better.
    pub better: Better,
}

impl From<&Metric> for MetricForm {
    fn from(metric: &Metric) -> Self {
        Self { unit: metric.unit.clone(), better: metric.better }
    }
}

impl MetricForm {
    /// The form of a metric of this crate's searches.
    pub(super) fn of(name: &str) -> Self {
        let (unit, better) = match name {
            TOP1 => ("share", Better::Higher),
            "memory" => ("B", Better::Lower),
            _ if is_latency(name) => ("us", Better::Lower),
            _ => ("1", Better::Lower),
        };
        Self { unit: unit.to_string(), better }
    }
}

/// Whether a metric is a latency, of the only device or of one of several.
fn is_latency(metric: &str) -> bool {
    metric == LATENCY || metric.strip_prefix(LATENCY).is_some_and(|rest| rest.starts_with('@'))
}

/// What is known of `best` on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFound {
    /// The kind of latency and its source.
    pub latency: LatencyFrom,
    /// BLAKE3 of the latency table without its run, in hexadecimal.
    pub latency_table: String,
    /// The probability that the limit is kept, where there is one and the table knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_kept: Option<f64>,
    /// The properties of `best` outside of the range that the table's margin was measured for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extrapolated: Vec<String>,
}

/// The kind of the stated latency, and its source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyFrom {
    /// Undisturbed or typical.
    pub kind: LatencyKind,
    /// The device's name.
    pub device: String,
    /// The engine, with its threads, number type and batch size.
    pub engine: EngineFacts,
}

impl LatencyFrom {
    /// A table's source of this kind of latency.
    pub fn new(table: &LatencyTable, kind: LatencyKind) -> Self {
        Self { kind, device: table.device.name.clone(), engine: table.engine.clone() }
    }
}

impl std::fmt::Display for LatencyFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, device, engine } = self;
        let EngineFacts { engine, threads, dtype, batch, .. } = engine;
        let threads = if *threads == 1 { "1 thread".to_string() } else { format!("{threads} threads") };
        write!(f, "{kind}, {device}, {engine}, {threads}, {dtype}")?;
        if *batch > 1 { write!(f, ", batch of {batch}") } else { Ok(()) }
    }
}

impl Found {
    /// A result without hashes of its inputs, which are public fields.
    pub fn new(space: &SearchSpace, limits: Limits, seed: u64, best: Candidate) -> Self {
        let forms = best.values.keys().map(|name| (name.clone(), MetricForm::of(name)));
        Self {
            _kind: (),
            _version: (),
            space: space.name().to_string(),
            space_fingerprint: space.fingerprint(),
            metrics: forms.collect(),
            limits,
            seed,
            best,
            limit_kept: None,
            latency: None,
            extrapolated: Vec::new(),
            front: Vec::new(),
            min_top1: None,
            evaluated: Vec::new(),
            selected_on: None,
            estimator: String::new(),
            evaluator: None,
            interrupted: false,
            goal: None,
            strategy: None,
            proof: None,
            latency_table: None,
            devices: BTreeMap::new(),
            supernet: String::new(),
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
            run: BTreeMap::new(),
        }
    }

    /// Sets what is known of `best` on the only device, or the one without a name.
    pub fn set_device(&mut self, device: DeviceFound) {
        let DeviceFound { latency, latency_table, limit_kept, extrapolated } = device;
        (self.latency, self.latency_table) = (Some(latency), Some(latency_table));
        (self.limit_kept, self.extrapolated) = (limit_kept, extrapolated);
    }

    /// The file's text, keys sorted.
    pub fn to_json(&self) -> String {
        let value = serde_json::to_value(self).expect("plain data with text keys");
        let mut text = serde_json::to_string_pretty(&sorted(value)).expect("a JSON value has a text");
        text.push('\n');
        text
    }

    /// Writes the file, all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, self.to_json().as_bytes())?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read, is not a result of a known version, or holds numbers that cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        Self::from_json(&path.display().to_string(), &text)
    }

    /// Reads a file's text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`Found::read`].
    pub fn from_json(place: &str, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Front {
            version: u32,
        }
        let form = "a search's result in JSON";
        let front: Option<Front> = serde_json::from_str(document::without_mark(text)).ok();
        let found: Self = match front {
            Some(Front { version }) if version < VERSION => older::newer(place, text, form)?,
            _ => document::read_one_of(place, text, KIND, VERSIONS, form)?,
        };
        found.check_numbers(place)?;
        Ok(found)
    }

    fn check_numbers(&self, place: &str) -> Result<()> {
        for candidate in std::iter::once(&self.best).chain(&self.front) {
            self.check_candidate(place, candidate)?;
        }
        let of_devices = self.devices.values().filter_map(|device| device.limit_kept);
        if let Some(share) =
            self.limit_kept.into_iter().chain(of_devices).find(|share| !(0.0..=1.0).contains(share))
        {
            return Err(Error::invalid(place, "limit_kept", "a share from 0 to 1", share).into());
        }
        match self
            .evaluated
            .iter()
            .find(|evaluated: &&Evaluated| !(0.0..=1.0).contains(&evaluated.top1) || evaluated.n == 0)
        {
            Some(Evaluated { arch, top1, n, .. }) => {
                let expected = "a share of at least one image";
                let got = format!("{top1} of {n}");
                Err(Error::invalid(place, arch, expected, got).into())
            }
            None => Ok(()),
        }
    }

    fn check_candidate(&self, place: &str, candidate: &Candidate) -> Result<()> {
        let unknown = candidate.values.keys().find(|name| !self.metrics.contains_key(*name));
        if unknown.is_some() || !candidate.values.contains_key(TOP1) {
            let known: Vec<&str> = self.metrics.keys().map(String::as_str).collect();
            let expected = format!("a value of {TOP1}, and others of {} only", known.join(", "));
            let got = unknown.map_or_else(|| format!("no {TOP1}"), String::clone);
            return Err(Error::invalid(place, &candidate.arch, expected, got).into());
        }
        let limited = self.limits.iter().find(|(name, _)| !candidate.values.contains_key(*name));
        if let Some((name, _)) = limited {
            return Err(Error::invalid(place, &candidate.arch, format!("a value of {name}"), "none").into());
        }
        for (name, value) in &candidate.values {
            if let Some(expected) = refusal(name, value) {
                let end = |end: Option<f64>| end.map_or("unknown".to_string(), |end| end.to_string());
                let got = format!("{name} {}, {} to {}", value.mean, end(value.low), end(value.high));
                return Err(Error::invalid(place, &candidate.arch, expected, got).into());
            }
        }
        Ok(())
    }
}

/// The expected form of a value that is refused.
fn refusal(name: &str, value: &MetricValue) -> Option<&'static str> {
    let MetricValue { mean, low, high, .. } = value;
    let numbers = mean.is_finite() && low.is_none_or(f64::is_finite) && high.is_none_or(f64::is_finite);
    let within = low.is_none_or(|low| low <= *mean) && high.is_none_or(|high| high >= *mean);
    if !numbers || !within {
        return Some("numbers, and a value within its interval");
    }
    if is_latency(name) && !(*mean > 0.0 && high.is_some()) {
        return Some("a latency above 0 with its upper value");
    }
    // a linear estimator may expect a little less than nothing or more than all
    (name == TOP1 && !(-0.5..=1.5).contains(mean)).then_some("an accuracy that is a share")
}

#[cfg(test)]
mod tests {
    use super::*;
    use search::{AccuracyFrom, Costs};
    use space::{arch_file, preset, sampler};

    fn found() -> Found {
        let space = preset("tiny").expect("a preset");
        let costs = Costs {
            latency_us: 1234.5678,
            latency_upper_us: 1300.0,
            macs: 5,
            params: 6,
            peak_activation_bytes: 7,
        };
        let mut best = Candidate::new(sampler::largest(&space), 0.912_345_6, &costs);
        best.set_accuracy(best.accuracy(), Some([0.9, 0.92]));
        best.accuracy_from = Some(AccuracyFrom::PredictorAndValidation);
        let limits = Limits::on(LATENCY, 1500.0);
        let mut found = Found::new(&space, limits, 3, best.clone());
        let arch = best.arch.clone();
        let round = 1;
        let expected = 0.93;
        let top1 = 0.91;
        let n = 100;
        found.evaluated = vec![Evaluated { arch, round, expected, top1, n, accuracy: best.accuracy() }];
        (found.front, found.limit_kept, found.min_top1) = (vec![best], Some(0.75), Some(0.9));
        let split = "val".to_string();
        let how = "the best of 1".to_string();
        found.selected_on = Some(SelectedOn { split, n: 100, how });
        found.run.insert("seconds".to_string(), 0.5.into());
        found
    }

    #[test]
    fn results_round_trip_and_are_read_as_a_sub_network() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("found.json");
        found().write(&path).expect("writable");
        assert_eq!(Found::read(&path).expect("own file"), found());
        let space = preset("tiny").expect("a preset");
        let arch = arch_file::read(&space, path.to_str().expect("a plain path")).expect("best.arch");
        assert_eq!(arch, sampler::largest(&space));
    }

    /// Files that the writers of their versions made.
    const OLDER: [(&str, &str); 2] = [
        ("version 2", include_str!("../../../tests/golden/found_version_2.json")),
        ("version 3", include_str!("../../../tests/golden/found_version_3.json")),
    ];

    #[test]
    fn older_versions_are_read() {
        for (place, text) in OLDER {
            let found = Found::from_json(place, text).expect(place);
            let again = Found::from_json(place, &found.to_json()).expect("as version 4");
            assert_eq!(again, found);
            let old: serde_json::Value = serde_json::from_str(text).expect("JSON");
            let candidates = found.front.iter().chain([&found.best]);
            let olds = old["front"].as_array().expect("a list").iter().chain([&old["best"]]);
            assert!(found.front.len() > 3);
            for (new, old) in candidates.zip(olds) {
                assert_eq!(new.arch.to_string(), old["arch"]);
                assert_eq!(
                    (new.latency_ms(), Some(new.accuracy())),
                    (old["latency_ms"].as_f64(), old["accuracy"].as_f64())
                );
                assert_eq!(new.latency_upper_ms(), old["latency_upper_ms"].as_f64());
                assert_eq!(new.accuracy_low(), old["accuracy_low"].as_f64());
                for (name, field) in
                    [("macs", "macs"), ("params", "params"), ("memory", "peak_activation_bytes")]
                {
                    assert_eq!(Some(new.count(name)), old[field].as_u64(), "{place}: {name}");
                }
            }
            assert_eq!(found.limits.of(LATENCY), old["limits"]["latency_us"].as_f64());
            assert_eq!(found.limits.of("macs"), old["limits"]["macs"].as_f64());
            assert_eq!(found.interrupted, old["interrupted"].as_bool().unwrap_or(false));
        }
    }

    #[test]
    fn version_4_names_metrics_with_their_units() {
        let json: serde_json::Value = serde_json::from_str(&found().to_json()).expect("JSON");
        let latency = serde_json::json!({ "mean": 1234.5678, "high": 1300.0 });
        let values = &json["best"]["values"];
        assert_eq!((&values[LATENCY], &values["macs"]), (&latency, &serde_json::json!(5)));
        assert_eq!(json["metrics"][LATENCY], serde_json::json!({ "unit": "us", "better": "lower" }));
        assert_eq!(json["metrics"]["top1"]["better"], "higher");
        assert_eq!((&json["version"], &json["limits"][LATENCY]), (&4.into(), &1500.0.into()));
    }

    #[test]
    fn several_devices_have_a_latency_each() {
        let mut two = found();
        let latency = two.best.values.remove(LATENCY).expect("it has one");
        two.front.clear();
        for name in ["latency@phone", "latency@watch"] {
            two.best.values.insert(name.to_string(), latency);
            two.metrics.insert(name.to_string(), MetricForm::of(name));
        }
        two.limits = Limits::from([("latency@phone", 1500.0), ("latency@watch", 2e3)]);
        assert_eq!(Found::from_json("x", &two.to_json()).expect("own text"), two);
        two.limits = Limits::on("latency@tv", 1e3);
        let error = Found::from_json("x", &two.to_json()).expect_err("no such device").to_string();
        assert!(error.contains("a value of latency@tv"), "{error}");
    }

    #[test]
    fn a_search_without_a_table_has_no_latencies() {
        let mut one = found();
        (one.limits, one.interrupted) = (Limits::on("macs", 5.0), true);
        one.front.clear();
        one.best.values.remove(LATENCY);
        let text = one.to_json();
        assert!(!text.contains("\"high\": 1300.0") && text.contains("\"interrupted\": true"), "{text}");
        assert_eq!(Found::from_json("x", &text).expect("own text"), one);
        let (_, old) = OLDER[1];
        let upper_alone = old.replacen("\"latency_ms\"", "\"latency_upper_ms\"", 1);
        assert!(Found::from_json("x", &upper_alone).is_err(), "a key twice");
        let start = old.find("\"latency_ms\"").expect("a latency");
        let end = start + old[start..].find(',').expect("the end of a line") + 1;
        let half = format!("{}{}", &old[..start], &old[end..]);
        let error = Found::from_json("x", &half).expect_err("half of it").to_string();
        assert!(error.contains("a latency with its upper value, got no ms and"), "{error}");
    }

    #[test]
    fn malformed_results_are_refused() {
        let good = found().to_json();
        for (from, to, part) in [
            ("{", "", "text"),
            ("\"found\"", "\"lost\"", "kind"),
            ("\"version\": 4", "\"version\": 1", "version: expected 4, got 1"),
            ("\"version\": 4", "\"version\": 5", "version: expected 4, got 5"),
            ("\"low\": 0.9", "\"low\": 0.95", "within its interval"),
            ("\"top1\": 0.91", "\"top1\": 91.0", "a share of at least one image"),
            ("\"seed\"", "\"sead\"", "text"),
            ("\"limit_kept\": 0.75", "\"limit_kept\": 1.5", "limit_kept"),
            ("\"mean\": 1234.5678", "\"mean\": -1", "latency above 0"),
            (
                "\"params\": 6",
                "\"parts\": 6",
                "others of latency, macs, memory, params, top1 only, got parts",
            ),
            ("\"params\": 6", "\"macs\": 6", "stands there twice"),
            ("\"arch\": \"r12:", "\"arch\": \"x12:", "text"),
        ] {
            assert!(good.contains(from), "{from} in {good}");
            let error = Found::from_json("x", &good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.starts_with("x: ") && error.contains(part), "{to}: {error}");
        }
    }
}
