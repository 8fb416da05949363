//! `found.json`: what a search found, for what, and from which inputs.
//!
//! The supernet's crate reads `best.arch` from it wherever a sub-network can be given.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use supernet::Error;
use supernet::space::SearchSpace;

use super::constraint::Limits;
use super::index::Candidate;
use supernet::file::{self, write_atomically};

use crate::file::sorted_json;
use supernet::document;

/// What the file's `kind` says.
const KIND: &str = "found";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 3;
/// Versions that it reads: 2 knows neither a search without a latency table nor an interrupted one.
const VERSIONS: [u32; 2] = [2, VERSION];

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
    /// Accuracy against latency, fastest first; empty unless it was asked for.
    pub front: Vec<Candidate>,
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
            front: Vec::new(),
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
        let mut text = serde_json::to_string_pretty(&sorted_json(value)).expect("a JSON value has a text");
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
        let mut found: Self =
            document::read_one_of(place, text, (KIND, &VERSIONS), "a search's result in JSON")?;
        for candidate in std::iter::once(&found.best).chain(&found.front) {
            let latency = match (candidate.latency_ms, candidate.latency_upper_ms) {
                (Some(latency), Some(upper)) => latency > 0.0 && upper >= latency,
                (latency, upper) => latency.is_none() && upper.is_none() && found.limits.latency_us.is_none(),
            };
            // a linear estimator may expect a little less than nothing or more than all
            if !latency || !(-0.5..=1.5).contains(&candidate.accuracy) {
                let expected = "an accuracy that is a share and a latency above 0, at most its upper value";
                let Candidate { accuracy, latency_ms, latency_upper_ms, .. } = candidate;
                let [latency, upper] =
                    [latency_ms, latency_upper_ms].map(|ms| ms.map_or("no".to_string(), |ms| ms.to_string()));
                let got = format!("{accuracy}, {latency} ms and {upper} ms");
                return Err(Error::invalid(place, &candidate.arch, expected, got).into());
            }
        }
        if let Some(share) = found.limit_kept.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(Error::invalid(place, "limit_kept", "a share from 0 to 1", share).into());
        }
        found.version = VERSION;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::index::Costs;
    use supernet::space::{arch_file, preset, sampler};

    fn found() -> Found {
        let space = preset("tiny").expect("a preset");
        let costs = Costs {
            latency_us: 1234.5678,
            latency_upper_us: 1300.0,
            macs: 5,
            params: 6,
            peak_activation_bytes: 7,
        };
        let best = Candidate::new(sampler::largest(&space), 0.912_345_6, &costs);
        let limits = Limits { latency_us: Some(1500.0), ..Limits::default() };
        let mut found = Found::new(&space, limits, 3, best.clone());
        (found.front, found.limit_kept) = (vec![best], Some(0.75));
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
    fn results_of_version_2_are_read() {
        let text = found().to_json().replacen("\"version\": 3", "\"version\": 2", 1);
        let text = text.replacen("  \"interrupted\": false,\n", "", 1);
        assert_eq!(Found::from_json("x", &text).expect("as it was written before"), found());
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
            ("\"version\": 3", "\"version\": 1", "version"),
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
