//! `rows.jsonl`: all samples so far, one line per visit, so that a power cut loses the last second at most.
//!
//! The native engines write it while they measure; other tools can write it too, to have it folded into a table.

mod log;

use std::path::Path;

use base::Error;
use base::Result;
use base::document;
use base::file;
use serde::{Deserialize, Serialize};
use space::Arch;

pub use log::RowsLog;

use super::facts::{Conditions, DeviceFacts, EngineFacts};

/// The header's `kind`.
const KIND: &str = "latency-rows";
/// Version of the format that this code writes; 1 is read too.
const VERSION: u32 = 2;
const VERSIONS: [u32; 2] = [1, VERSION];

/// The facts that visits must share to belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The machine.
    pub device: DeviceFacts,
    /// The engine that ran the layers.
    pub engine: EngineFacts,
    /// The protocol of measurement, for a reader.
    pub protocol: String,
    /// Name of the sentinel, which is measured before and after each visit; empty if there is none.
    pub sentinel: String,
    /// The id of the plan; empty if there is none.
    pub plan: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    version: u32,
    device: DeviceFacts,
    engine: EngineFacts,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    sentinel: String,
    #[serde(default)]
    plan: String,
}

/// The subject of a measurement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One layer alone, by its key.
    Layer(String),
    /// A whole sub-network.
    Network(Arch),
}

/// Greatest number of a pass, which lines of version 1 have: networks were measured in two passes, and searched ones in
/// two more. It has no meaning now.
const LAST_PASS: u8 = 4;

/// Possible times: a picosecond to eleven days.
pub const LEAST_US: f64 = 1e-6;
const MOST_US: f64 = 1e12;
/// Most runs in one sample.
pub const MOST_RUNS: u64 = 1 << 24;

/// Samples of one visit, in microseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Samples {
    /// Of one run each.
    Whole(Vec<f64>),
    /// Of a network's layers in place: for each run the time of each layer, in order.
    InPlace(Vec<Vec<f64>>),
}

/// Samples that were taken one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// The subject.
    pub subject: Subject,
    /// [`SearchSpace::fingerprint_at_any_resolution`](space::SearchSpace::fingerprint_at_any_resolution) of a
    /// sub-network's space; other tools may omit it.
    pub space: Option<String>,
    /// Whether the subject was prepared for the previous line already.
    pub again: bool,
    /// Runs per sample.
    pub inner: u64,
    /// The times of the samples.
    pub samples: Samples,
    /// Microseconds per run of the sentinel when the visit began, before any waiting: only these show how often the
    /// machine is fast.
    pub arrival_us: Option<f64>,
    /// Microseconds per run of the sentinel just before and just after: the lowest of a few runs each.
    pub sentinel_us: Option<[f64; 2]>,
    /// Seconds since the session began.
    pub at_seconds: Option<f64>,
}

/// When and how a process began to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Seconds since 1970.
    #[serde(default)]
    pub unix_seconds: u64,
    /// The operating system's report.
    #[serde(default)]
    pub conditions: Conditions,
}

/// One line after the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A process began.
    Session(Session),
    /// The operating system's report meanwhile or at the end.
    Conditions(Conditions),
    /// A visit.
    Visit(Visit),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Session>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conditions: Option<Conditions>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<Arch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    space: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inner: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    samples_us: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layers_us: Option<Vec<Vec<f64>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arrival_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentinel_us: Option<[f64; 2]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_seconds: Option<f64>,
}

/// A setting and all its records, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// The machine and the engine.
    pub setting: Setting,
    /// The records, one per line.
    pub records: Vec<Record>,
}

impl Rows {
    /// Reads a file; a torn last line, as after a power cut, is skipped.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_bytes(&path.display().to_string(), &file::read(path)?)
    }

    /// Reads a file's bytes; `place` names it in messages.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let whole = &bytes[..whole_lines(bytes)];
        let text =
            std::str::from_utf8(whole).map_err(|error| Error::invalid(place, "text", "UTF-8", error))?;
        let mut lines = text.lines();
        let first = lines.next().unwrap_or("");
        let form = "the header of latency rows in JSON";
        let header: Header = document::read_one_of(place, first, KIND, &VERSIONS, form)?;
        let Header { device, engine, protocol, sentinel, plan, .. } = header;
        for (field, value) in [("threads", engine.threads), ("batch", engine.batch)] {
            if value == 0 {
                return Err(Error::invalid(place, field, "at least 1", value));
            }
        }
        let written = lines.enumerate().filter(|(_, line)| !line.trim().is_empty());
        let records = written
            .map(|(index, line): (usize, &str)| record(&format!("{place}, line {}", index + 2), line))
            .collect::<Result<_>>()?;
        Ok(Self { setting: Setting { device, engine, protocol, sentinel, plan }, records })
    }

    /// The visits, in order.
    pub fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.records.iter().filter_map(|record| match record {
            Record::Visit(visit) => Some(visit),
            Record::Session(_) | Record::Conditions(_) => None,
        })
    }
}

/// The mark that some systems' editors write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The end of the last whole line. A last line without a newline is whole if it is JSON: other tools may omit the
/// newline, but a torn line is not JSON.
fn whole_lines(bytes: &[u8]) -> usize {
    let ended = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let rest = bytes[ended..].strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes[ended..]);
    let is_json = serde_json::from_slice::<serde_json::Map<_, _>>(rest).is_ok();
    if is_json { bytes.len() } else { ended }
}

fn record(place: &str, line: &str) -> Result<Record> {
    let wrong = |field: &str, expected: &str, got: &dyn std::fmt::Display| -> Error {
        Error::invalid(place, field, expected, got)
    };
    let form = "{\"layer\" or \"network\", \"samples_us\"}";
    let line: Line = serde_json::from_str(line).map_err(|error| wrong("visit", form, &error))?;
    let session = line.session;
    let conditions = line.conditions;
    let space = line.space;
    let Line { layer, network, pass, again, inner, .. } = line;
    let subject = match (session, conditions, layer, network) {
        (Some(session), None, None, None) => return Ok(Record::Session(session)),
        (None, Some(conditions), None, None) => return Ok(Record::Conditions(conditions)),
        (None, None, Some(layer), None) if pass.is_none() && !layer.trim().is_empty() => {
            Subject::Layer(layer)
        }
        (None, None, None, Some(arch)) if pass.is_none_or(|pass| (1..=LAST_PASS).contains(&pass)) => {
            Subject::Network(arch)
        }
        _ => return Err(wrong("visit", form, &"something else")),
    };
    let samples = match (line.samples_us, line.layers_us) {
        (Some(whole), None) => Samples::Whole(whole),
        (None, Some(in_place)) if matches!(subject, Subject::Network(_)) => Samples::InPlace(in_place),
        _ => return Err(wrong("visit", form, &"another field, or none, for samples")),
    };
    let inner = inner.unwrap_or(1);
    let possible = |time: &f64| (LEAST_US..=MOST_US).contains(time);
    if !(1..=MOST_RUNS).contains(&inner) || !samples.are_some_of(&possible) {
        let expected = "at least one, each of 1e-6 to 1e12 us, equally many layers in each run, and 1 to 2^24 runs per sample";
        return Err(wrong("samples_us", expected, &format!("{inner} runs per sample, {samples:?}")));
    }
    let readings = line.sentinel_us.iter().flatten().chain(&line.arrival_us);
    if let Some(reading) = readings.copied().find(|reading| !possible(reading)) {
        return Err(wrong("sentinel_us and arrival_us", "times of 1e-6 to 1e12 us", &reading));
    }
    let Line { arrival_us, sentinel_us, at_seconds, .. } = line;
    Ok(Record::Visit(Visit { subject, space, again, inner, samples, arrival_us, sentinel_us, at_seconds }))
}

impl Samples {
    /// Whether there is at least one sample, all are possible, and all runs have equally many layers.
    fn are_some_of(&self, possible: &impl Fn(&f64) -> bool) -> bool {
        match self {
            Self::Whole(samples) => !samples.is_empty() && samples.iter().all(possible),
            Self::InPlace(runs) => {
                let layers = runs.first().map_or(0, Vec::len);
                layers > 0 && runs.iter().all(|run| run.len() == layers && run.iter().all(possible))
            }
        }
    }

    /// Times of whole runs, in microseconds.
    pub fn of_wholes(&self) -> Vec<f64> {
        match self {
            Self::Whole(samples) => samples.clone(),
            Self::InPlace(runs) => runs.iter().map(|run| run.iter().sum()).collect(),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(samples) => samples.len(),
            Self::InPlace(runs) => runs.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        let visit = match record {
            Record::Session(session) => return Self { session: Some(session.clone()), ..Self::default() },
            Record::Conditions(conditions) => {
                return Self { conditions: Some(conditions.clone()), ..Self::default() };
            }
            Record::Visit(visit) => visit,
        };
        let (layer, network) = match &visit.subject {
            Subject::Layer(key) => (Some(key.clone()), None),
            Subject::Network(arch) => (None, Some(arch.clone())),
        };
        let (samples_us, layers_us) = match &visit.samples {
            Samples::Whole(samples) => (Some(samples.clone()), None),
            Samples::InPlace(runs) => (None, Some(runs.clone())),
        };
        Self {
            layer,
            network,
            samples_us,
            layers_us,
            space: visit.space.clone(),
            again: visit.again,
            inner: Some(visit.inner),
            arrival_us: visit.arrival_us,
            sentinel_us: visit.sentinel_us,
            at_seconds: visit.at_seconds,
            ..Self::default()
        }
    }
}

impl From<&Setting> for Header {
    fn from(setting: &Setting) -> Self {
        let Setting { device, engine, protocol, sentinel, plan } = setting.clone();
        Self { kind: KIND.to_string(), version: VERSION, device, engine, protocol, sentinel, plan }
    }
}

#[cfg(test)]
#[path = "rows/tests.rs"]
pub(crate) mod tests;
