//! A search's log: the estimates of each sub-network, line by line, so that an interrupted search continues with it and
//! estimates nothing twice.
//!
//! Knows nothing of estimators: a header names the problem of the values, and another problem's values are refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use base::document;
use base::file::{self, LineFile, Refusals, whole_lines};
use base::timing::Every;
use search::{Archive, Better, Fidelity, Log, Metric, MetricValue};
use serde::{Deserialize, Serialize};
use space::{Arch, GeneRow, SearchSpace};

use super::value_form::ValueForm;
use crate::error::{Error, Result};

/// The header's `kind`.
const KIND: &str = "search-log";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 1;
/// The expected form of lines.
const ONCE: &str = "each sub-network once for each fidelity";

/// The settings that must agree for a search to use a log's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSetting {
    /// Name of the searched space.
    pub space: String,
    /// [`SearchSpace::fingerprint`] of the space.
    pub space_fingerprint: String,
    /// The seed of the search's random choices.
    pub seed: u64,
    /// The metrics of each line's values, in order.
    pub metrics: Vec<Metric>,
    /// Hashes of what was read, by what it is: `estimator`, `latency_table`, `supernet`.
    pub inputs: BTreeMap<String, String>,
}

impl LogSetting {
    /// The setting of a search of a space; its metrics and inputs are added by name.
    pub fn new(space: &SearchSpace, seed: u64) -> Self {
        let name = space.name().to_string();
        let space_fingerprint = space.fingerprint();
        Self { space: name, space_fingerprint, seed, metrics: Vec::new(), inputs: BTreeMap::new() }
    }

    /// One more metric.
    #[must_use]
    pub fn with_metric(mut self, metric: Metric) -> Self {
        self.metrics.push(metric);
        self
    }

    /// One more thing that was read, by its hash.
    #[must_use]
    pub fn with_input(mut self, name: &str, hash: impl Into<String>) -> Self {
        self.inputs.insert(name.to_string(), hash.into());
        self
    }

    /// In what a log of `found` differs: the field, what it would have to be, and what it is.
    fn difference(&self, found: &Self) -> Option<(String, String, String)> {
        let space = |setting: &Self| format!("{} ({})", setting.space, setting.space_fingerprint);
        let metrics = |setting: &Self| {
            setting
                .metrics
                .iter()
                .map(|metric: &Metric| format!("{} ({})", metric.name, metric.unit))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let own = [
            ("space", space(self), space(found)),
            ("seed", self.seed.to_string(), found.seed.to_string()),
            ("metrics", metrics(self), metrics(found)),
        ];
        let names: BTreeSet<&String> = self.inputs.keys().chain(found.inputs.keys()).collect();
        let of = |inputs: &BTreeMap<String, String>, name: &str| {
            inputs.get(name).map_or_else(|| "none".to_string(), String::clone)
        };
        let inputs =
            names.iter().map(|name| (name.as_str(), of(&self.inputs, name), of(&found.inputs, name)));
        let first =
            own.into_iter().chain(inputs).find(|(_, expected, got): &(&str, String, String)| expected != got);
        first.map(|(field, expected, got)| (field.to_string(), expected, got))
    }
}

/// The estimates of a sub-network.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedEstimate {
    /// The sub-network.
    pub arch: Arch,
    /// The fidelity of the estimates.
    pub fidelity: Fidelity,
    /// A value of each metric.
    pub values: Vec<MetricValue>,
    /// Whether each image's class was found, where images were counted; the first value is then their share.
    pub hits: Option<Vec<bool>>,
}

/// A whole log, checked: each line has the values that the header names, none stands twice.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchLog {
    /// Of which problem the values are.
    pub setting: LogSetting,
    /// Line by line.
    pub estimates: Vec<LoggedEstimate>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    version: u32,
    space: String,
    space_fingerprint: String,
    seed: u64,
    metrics: Vec<MetricLine>,
    #[serde(deserialize_with = "document::each_key_once")]
    inputs: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricLine {
    name: String,
    unit: String,
    better: Better,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    arch: Arch,
    /// The share that an estimator looked at; absent for all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fidelity: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<ValueForm>,
    /// It could not be evaluated, and has no values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
    /// An image a letter: 1 where its class was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hits: Option<String>,
}

impl SearchLog {
    /// Reads a log's bytes; `place` names it in messages. What follows the last line's end is torn and passed over.
    ///
    /// # Errors
    /// If it is no log of a search, or damaged: names the line.
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(&bytes[..whole_lines(bytes)])
            .map_err(|error| base::Error::invalid(place, "text", "UTF-8", error))?;
        let mut lines = text.lines();
        let form = "the header of a search's log in JSON";
        let header: Header = document::read(place, lines.next().unwrap_or(""), KIND, VERSION, form)?;
        let setting = header.checked(place)?;
        let mut estimates = Vec::new();
        let mut seen = BTreeSet::new();
        for (index, line) in lines.enumerate() {
            let place = format!("{place}, line {}", index + 2);
            let estimate = estimate(&place, line, setting.metrics.len())?;
            if !seen.insert((estimate.arch.clone(), estimate.fidelity)) {
                let got = format!("{} again", estimate.arch);
                return Err(base::Error::invalid(place, "arch", ONCE, got).into());
            }
            check_hits(&place, &estimate, &estimates)?;
            estimates.push(estimate);
        }
        Ok(Self { setting, estimates })
    }

    /// The file's text.
    pub fn to_jsonl(&self) -> String {
        let lines = self.estimates.iter().map(|estimate| line_of(&Line::from(estimate)));
        std::iter::once(line_of(&Header::from(&self.setting))).chain(lines).collect()
    }
}

/// Whether as many images were counted as of the sub-networks before it.
fn check_hits(place: &str, estimate: &LoggedEstimate, before: &[LoggedEstimate]) -> Result<()> {
    let images = |estimate: &LoggedEstimate| estimate.hits.as_ref().map(Vec::len);
    match (images(estimate), before.iter().find_map(images)) {
        (Some(own), Some(first)) if own != first => {
            let expected = format!("{first} images, as before");
            Err(base::Error::invalid(place, "hits", expected, format!("{own} images")).into())
        }
        _ => Ok(()),
    }
}

impl Header {
    fn checked(self, place: &str) -> Result<LogSetting> {
        let Self { space, space_fingerprint, seed, metrics, inputs, .. } = self;
        let metric = |line: MetricLine| Metric::new(line.name, &line.unit, line.better);
        let metrics: Vec<Metric> = metrics.into_iter().map(metric).collect();
        let names: BTreeSet<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        if metrics.is_empty() || names.len() < metrics.len() {
            let expected = "at least one, each of another name";
            return Err(base::Error::invalid(place, "metrics", expected, metrics.len()).into());
        }
        Ok(LogSetting { space, space_fingerprint, seed, metrics, inputs })
    }
}

impl From<&LogSetting> for Header {
    fn from(setting: &LogSetting) -> Self {
        let LogSetting { space, space_fingerprint, seed, metrics, inputs } = setting.clone();
        let metrics = metrics
            .into_iter()
            .map(|Metric { name, unit, better }: Metric| MetricLine { name, unit, better })
            .collect();
        Self { kind: KIND.to_string(), version: VERSION, space, space_fingerprint, seed, metrics, inputs }
    }
}

impl From<&LoggedEstimate> for Line {
    fn from(LoggedEstimate { arch, fidelity, values, hits }: &LoggedEstimate) -> Self {
        let failed = values.iter().any(MetricValue::is_failed);
        let values = if failed { &[][..] } else { values };
        Self {
            arch: arch.clone(),
            fidelity: (*fidelity != Fidelity::FULL).then(|| fidelity.share()),
            values: values.iter().map(ValueForm::from).collect(),
            failed,
            hits: hits
                .as_ref()
                .map(|hits: &Vec<bool>| hits.iter().map(|hit| if *hit { '1' } else { '0' }).collect()),
        }
    }
}

fn estimate(place: &str, line: &str, metrics: usize) -> Result<LoggedEstimate> {
    let wrong = |field: &str, expected: &str, got: &dyn std::fmt::Display| -> Error {
        base::Error::invalid(place, field, expected, got).into()
    };
    let form = "{\"arch\", \"values\"} or {\"arch\", \"failed\"}";
    let line: Line = serde_json::from_str(line).map_err(|error| wrong("estimate", form, &error))?;
    let share = line.fidelity.unwrap_or(1.0);
    let fidelity = Fidelity::of_share(share);
    if fidelity.share() != share {
        return Err(wrong("fidelity", "a share of at most 1 in thousandths", &share));
    }
    let mut values: Vec<MetricValue> = line.values.into_iter().map(MetricValue::from).collect();
    if line.failed {
        if !values.is_empty() || line.hits.is_some() {
            return Err(wrong("failed", "no values", &values.len()));
        }
        values = vec![MetricValue::failed(); metrics];
    }
    if values.len() != metrics {
        return Err(wrong("values", &format!("as many as the header has metrics, {metrics}"), &values.len()));
    }
    let hits = line
        .hits
        .map(|letters| {
            letters
                .chars()
                .map(|letter: char| match letter {
                    '0' | '1' => Ok(letter == '1'),
                    other => Err(wrong("hits", "a 0 or 1 for each image", &other.escape_default())),
                })
                .collect::<Result<Vec<_>>>()
        })
        .transpose()?;
    match &hits {
        Some(hits) if share_of(hits).is_none_or(|share| share != values[0].mean) => {
            let got = format!("{} of {}", hits.iter().filter(|hit| **hit).count(), hits.len());
            Err(wrong("hits", &format!("the share {} of at least one image", values[0].mean), &got))
        }
        _ => Ok(LoggedEstimate { arch: line.arch, fidelity, values, hits }),
    }
}

/// The share of images whose class was found; of none there is no share.
fn share_of(hits: &[bool]) -> Option<f64> {
    let found = hits.iter().filter(|hit| **hit).count();
    (!hits.is_empty()).then(|| found as f64 / hits.len() as f64)
}

fn line_of(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("finite numbers and text") + "\n"
}

/// A log that grows while a search runs, and the file that holds it, which is locked against other processes.
#[derive(Debug)]
pub struct LogFile {
    file: LineFile,
    space: SearchSpace,
    metrics: usize,
    archive: Archive,
    hits: HashMap<Arch, Vec<bool>>,
    sync: Every,
}

/// Time between syncs while the file grows; a power cut loses no more than this and the last line.
const SYNC: Duration = Duration::from_secs(1);

/// The next step for an unusable file.
const NEXT: &str = "repeat the search that wrote it, or give the log another name";

const REFUSALS: Refusals<'_> = Refusals {
    held: "another process is searching with it",
    foreign: "it holds something else than a search's log",
    next: NEXT,
};

impl Drop for LogFile {
    fn drop(&mut self) {
        // what was not synced yet; there is nobody to tell where that fails
        let _ = self.file.sync();
    }
}

impl LogFile {
    /// Starts a log, or goes on with one of the same setting. What a kill left after the last line's end is cut off.
    ///
    /// # Errors
    /// If it holds values of another setting or sub-networks of another space, is damaged, another process holds it, or it
    /// cannot be written.
    pub fn open(path: &Path, space: &SearchSpace, setting: &LogSetting) -> Result<Self> {
        let (file, bytes) = LineFile::open(path, REFUSALS)?;
        let whole = whole_lines(&bytes);
        let place = path.display().to_string();
        let mut log = Self {
            space: space.clone(),
            metrics: setting.metrics.len(),
            archive: Archive::default(),
            hits: HashMap::new(),
            sync: Every::new(SYNC),
            file,
        };
        if whole > 0 {
            let found = SearchLog::from_bytes(&place, &bytes)?;
            if let Some((field, expected, got)) = setting.difference(&found.setting) {
                return Err(base::Error::invalid(place, field, expected, got).and_then_do(NEXT).into());
            }
            found.estimates.into_iter().try_for_each(|estimate| log.remember(&place, estimate))?;
        }
        log.file.go_on(&bytes, whole, &line_of(&Header::from(setting)), REFUSALS)?;
        Ok(log)
    }

    fn remember(&mut self, place: &str, estimate: LoggedEstimate) -> Result<()> {
        let LoggedEstimate { arch, fidelity, values, hits } = estimate;
        self.space.check(&arch).map_err(|error| error.in_place(place))?;
        let row = self.space.row(&arch)?;
        self.archive.append(&row, fidelity, &values)?;
        if let Some(hits) = hits.filter(|_| fidelity == Fidelity::FULL) {
            self.hits.insert(arch, hits);
        }
        Ok(())
    }

    /// The estimates, in order.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Whether each image's class was found by a sub-network, if they were counted.
    pub fn hits(&self, arch: &Arch) -> Option<&[bool]> {
        self.hits.get(arch).map(Vec::as_slice)
    }

    /// Adds whether a sub-network found each image's class, in a log of one metric, their share.
    ///
    /// # Errors
    /// If there is no image, or the file cannot be written.
    pub fn append_hits(&mut self, arch: &Arch, hits: &[bool]) -> Result<()> {
        let Some(share) = share_of(hits) else {
            let place = self.file.path().display();
            return Err(base::Error::invalid(place, "hits", "at least one image", "none").into());
        };
        let values = vec![MetricValue::expected(share)];
        let hits = Some(hits.to_vec());
        let estimate = LoggedEstimate { arch: arch.clone(), fidelity: Fidelity::FULL, values, hits };
        self.write(&self.space.row(arch)?, &estimate)?;
        // each took long
        self.file.sync()?;
        self.remember("a search's log", estimate)
    }

    fn write(&mut self, row: &GeneRow, estimate: &LoggedEstimate) -> base::Result<()> {
        let place = || self.file.path().display();
        let LoggedEstimate { arch, fidelity, values, .. } = estimate;
        if self.archive.known(row, *fidelity).is_some() {
            return Err(base::Error::invalid(place(), "arch", ONCE, format!("{arch} again")));
        }
        if values.len() != self.metrics {
            let expected = format!("values of {} metrics", self.metrics);
            let got = values.len();
            return Err(base::Error::invalid(place(), arch, expected, got));
        }
        if let Some(number) = values
            .iter()
            .filter(|value| !value.is_failed())
            .flat_map(|value: &MetricValue| [Some(value.mean), value.low, value.high])
            .flatten()
            .find(|number| !number.is_finite())
        {
            return Err(base::Error::invalid(place(), arch, "a finite number", number));
        }
        self.file.append(&line_of(&Line::from(estimate)))?;
        if self.sync.due() { self.file.sync() } else { Ok(()) }
    }
}

impl Log for LogFile {
    fn known(&self, row: &GeneRow, fidelity: Fidelity) -> Option<&[MetricValue]> {
        self.archive.known(row, fidelity)
    }

    fn append(&mut self, row: &GeneRow, fidelity: Fidelity, values: &[MetricValue]) -> search::Result<()> {
        let arch = self.space.arch(row);
        let values = values.to_vec();
        let estimate = LoggedEstimate { arch, fidelity, values, hits: None };
        self.write(row, &estimate)?;
        self.archive.append(row, fidelity, &estimate.values)
    }
}

/// Reads a log.
///
/// # Errors
/// If it cannot be read, is no log of a search, or is damaged.
pub fn read(path: &Path) -> Result<SearchLog> {
    SearchLog::from_bytes(&path.display().to_string(), &file::read(path)?)
}

#[cfg(test)]
mod tests;
