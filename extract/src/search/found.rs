//! `found.json`: what a search found, for what, and from which inputs.
//!
//! The supernet's crate reads `best.arch` from it wherever a sub-network can be given.

use std::collections::BTreeMap;
use std::path::Path;

use base::Error;
use base::document;
use base::document::sorted;
use base::file::{self, write_atomically};
use latency::{EngineFacts, LatencyKind, LatencyTable};
use network::model_folder::SelectedOn;
use search::{Candidate, Limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use space::SearchSpace;

use super::validation::Evaluated;
use crate::error::Result;

/// What the file's `kind` says.
const KIND: &str = "found";
/// Version of the form that this code writes.
const VERSION: u32 = 3;
/// All that it reads: version 2 knew neither intervals of accuracies, evaluated sub-networks, a search without a
/// latency table nor an interrupted one.
const VERSIONS: &[u32] = &[2, VERSION];

/// What a search found, and from which inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    kind: String,
    version: u32,
    /// Name of the space.
    pub space: String,
    /// [`SearchSpace::fingerprint`] of the space.
    pub space_fingerprint: String,
    /// What the search was asked to keep.
    pub limits: Limits,
    /// The seed of its random choices.
    pub seed: u64,
    /// The candidate with the highest expected accuracy.
    pub best: Candidate,
    /// How likely `best` keeps the latency limit; absent without a limit, or where the table knows no whole sub-networks
    /// of the space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_kept: Option<f64>,
    /// Which latency it is, and what measured it; absent without a table, and in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyFrom>,
    /// What of `best` lies outside of what the table's margin was measured for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extrapolated: Vec<String>,
    /// Accuracy against latency, fastest first; empty unless it was asked for.
    pub front: Vec<Candidate>,
    /// Least accuracy that was asked for: what the lower end of the interval of `best` reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_top1: Option<f64>,
    /// Sub-networks that were evaluated on validation images, best first; `best` is one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evaluated: Vec<Evaluated>,
    /// What `best` was selected on, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_on: Option<SelectedOn>,
    /// BLAKE3 of the estimator's file, in hexadecimal.
    pub estimator: String,
    /// Whether the search was interrupted: `best` is the best until then.
    #[serde(default)]
    pub interrupted: bool,
    /// BLAKE3 of the latency table without its run, in hexadecimal; absent where none was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_table: Option<String>,
    /// Hash of the supernet that the estimator's rows came from.
    pub supernet: String,
    /// Version of the tool that wrote the file.
    pub tool_version: String,
    /// Times and numbers of the run; no part of what was found.
    #[serde(default)]
    pub run: BTreeMap<String, Value>,
}

/// Which latency is stated, and what measured it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyFrom {
    /// Undisturbed or typical.
    pub kind: LatencyKind,
    /// The device's name.
    pub device: String,
    /// What ran the layers, and with how many threads, which numbers and how many images at once.
    pub engine: EngineFacts,
}

impl LatencyFrom {
    /// What a table says of this kind of latency.
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
        Self {
            kind: KIND.to_string(),
            version: VERSION,
            space: space.name().to_string(),
            space_fingerprint: space.fingerprint(),
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
            interrupted: false,
            latency_table: None,
            supernet: String::new(),
            tool_version: env!("CARGO_PKG_VERSION").to_string(),
            run: BTreeMap::new(),
        }
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
    /// If the file cannot be read, is not a result of this version, or holds numbers that cannot be.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read_text(path)?;
        Self::from_json(&path.display().to_string(), &text)
    }

    /// Reads a file's text; `place` names it in messages.
    ///
    /// # Errors
    /// As [`Found::read`].
    pub fn from_json(place: &str, text: &str) -> Result<Self> {
        let form = "a search's result in JSON";
        let mut found: Self = document::read_one_of(place, text, (KIND, VERSIONS), form)?;
        found.version = VERSION;
        found.check_numbers(place)?;
        if let Some(share) = found.limit_kept.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(Error::invalid(place, "limit_kept", "a share from 0 to 1", share).into());
        }
        Ok(found)
    }

    fn check_numbers(&self, place: &str) -> Result<()> {
        for candidate in std::iter::once(&self.best).chain(&self.front) {
            let Candidate { accuracy, latency_ms, latency_upper_ms, .. } = candidate;
            let latency = match (latency_ms, latency_upper_ms) {
                (Some(latency), Some(upper)) => *latency > 0.0 && upper >= latency,
                (latency, upper) => latency.is_none() && upper.is_none() && self.limits.latency_us.is_none(),
            };
            let (low, high) = (candidate.accuracy_low, candidate.accuracy_high);
            let within = low.is_none_or(|low| low <= *accuracy) && high.is_none_or(|high| high >= *accuracy);
            // a linear estimator may expect a little less than nothing or more than all
            if !latency || !within || !(-0.5..=1.5).contains(accuracy) {
                let expected = "an accuracy that is a share within its interval and a latency above 0, at most its upper value";
                let [latency, upper] =
                    [latency_ms, latency_upper_ms].map(|ms| ms.map_or("no".to_string(), |ms| ms.to_string()));
                let got = format!("{accuracy}, {latency} ms and {upper} ms");
                return Err(Error::invalid(place, &candidate.arch, expected, got).into());
            }
        }
        let share = |evaluated: &&Evaluated| !(0.0..=1.0).contains(&evaluated.top1) || evaluated.n == 0;
        match self.evaluated.iter().find(share) {
            Some(Evaluated { arch, top1, n, .. }) => {
                let (expected, got) = ("a share of at least one image", format!("{top1} of {n}"));
                Err(Error::invalid(place, arch, expected, got).into())
            }
            None => Ok(()),
        }
    }
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
        (best.accuracy_low, best.accuracy_high) = (Some(0.9), Some(0.92));
        best.accuracy_from = Some(AccuracyFrom::PredictorAndValidation);
        let limits = Limits { latency_us: Some(1500.0), ..Limits::default() };
        let mut found = Found::new(&space, limits, 3, best.clone());
        let (arch, round, expected, top1, n) = (best.arch.clone(), 1, 0.93, 0.91, 100);
        found.evaluated = vec![Evaluated { arch, round, expected, top1, n, accuracy: best.accuracy }];
        (found.front, found.limit_kept, found.min_top1) = (vec![best], Some(0.75), Some(0.9));
        let (split, how) = ("val".to_string(), "the best of 1".to_string());
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

    #[test]
    fn version_2_is_read() {
        let mut old = found();
        old.version = 2;
        (old.min_top1, old.selected_on) = (None, None);
        old.evaluated.clear();
        for candidate in std::iter::once(&mut old.best).chain(&mut old.front) {
            (candidate.accuracy_low, candidate.accuracy_high, candidate.accuracy_from) = (None, None, None);
        }
        let text = old.to_json();
        assert!(["accuracy_", "evaluated", "selected_on", "min_top1"].iter().all(|key| !text.contains(key)));
        let read = Found::from_json("x", &text).expect("an older version");
        assert_eq!((read.version, &read.best), (VERSION, &old.best));
        let space = preset("tiny").expect("a preset");
        assert_eq!(arch_file::from_json(&space, "x", &text).expect("best.arch"), old.best.arch);
    }

    #[test]
    fn a_search_without_a_table_has_no_latencies() {
        let mut one = found();
        one.limits = Limits { macs: Some(5.0), ..Limits::default() };
        one.front.clear();
        (one.best.latency_ms, one.best.latency_upper_ms, one.interrupted) = (None, None, true);
        let text = one.to_json();
        assert!(!text.contains("latency_ms") && text.contains("\"interrupted\": true"), "{text}");
        assert_eq!(Found::from_json("x", &text).expect("own text"), one);
        let upper_alone = text.replacen("\"macs\": 5,", "\"latency_upper_ms\": 1.5, \"macs\": 5,", 1);
        let error = Found::from_json("x", &upper_alone).expect_err("half of it").to_string();
        assert!(error.contains("no ms and 1.5 ms"), "{error}");
    }

    #[test]
    fn malformed_results_are_refused() {
        let good = found().to_json();
        for (from, to, part) in [
            ("{", "", "text"),
            ("\"found\"", "\"lost\"", "kind"),
            ("\"version\": 3", "\"version\": 1", "version: expected 3, got 1"),
            ("\"accuracy_low\": 0.9", "\"accuracy_low\": 0.95", "within its interval"),
            ("\"top1\": 0.91", "\"top1\": 91.0", "a share of at least one image"),
            ("\"seed\"", "\"sead\"", "text"),
            ("\"limit_kept\": 0.75", "\"limit_kept\": 1.5", "limit_kept"),
            ("\"latency_ms\": 1.2345678", "\"latency_ms\": -1", "latency above 0"),
            ("\"arch\": \"r12:", "\"arch\": \"x12:", "text"),
        ] {
            assert!(good.contains(from), "{from} in {good}");
            let error = Found::from_json("x", &good.replacen(from, to, 1)).expect_err(to).to_string();
            assert!(error.starts_with("x: ") && error.contains(part), "{to}: {error}");
        }
    }
}
