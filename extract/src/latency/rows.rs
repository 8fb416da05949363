//! `rows.jsonl`: what was sampled so far, one line a visit, so that a power cut loses the visit it was in.
//!
//! The native engines write it while they measure; any other tool can write it too and have it folded into a table.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use supernet::Error;
use supernet::document;
use supernet::file::{self, hold};
use supernet::space::Arch;

use super::device::{Conditions, DeviceFacts};
use super::engine::EngineFacts;
use crate::error::Result;

/// What the header's `kind` says.
const KIND: &str = "latency-rows";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 1;

/// What must be the same for visits to belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The machine.
    pub device: DeviceFacts,
    /// What ran the layers.
    pub engine: EngineFacts,
    /// How they were measured, for a reader.
    pub protocol: String,
    /// Name of what is measured again before and after samples are taken; empty where nothing is.
    pub sentinel: String,
    /// [`Plan::id`](super::Plan::id) of the plan that they are of; empty where there is none.
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

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One layer by itself, by its key.
    Layer(String),
    /// A whole sub-network, in the first or the second of two passes that are apart in time; or one that was searched
    /// for a limit, in the third to learn from it and in the fourth to judge.
    Network(Arch, u8),
}

/// The pass in which sub-networks are measured that were searched for a limit, to learn from them.
pub const SEARCHED: u8 = 3;
/// The same for those that judge what was learnt.
pub const SEARCHED_AGAIN: u8 = 4;

/// Times that can be: a picosecond to eleven days.
pub(super) const LEAST_US: f64 = 1e-6;
const MOST_US: f64 = 1e12;
/// Most runs in one sample.
pub(super) const MOST_RUNS: u64 = 1 << 24;

/// Samples that were taken one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Visit {
    /// Of what.
    pub subject: Subject,
    /// Whether the subject was prepared for the line before, and not afresh: both are of one visit then.
    pub again: bool,
    /// Runs a sample.
    pub inner: u64,
    /// Microseconds a run.
    pub samples_us: Vec<f64>,
    /// Microseconds a run of the sentinel just before and just after.
    pub sentinel_us: Option<[f64; 2]>,
}

/// When and how a process began to measure.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Seconds since 1970.
    #[serde(default)]
    pub unix_seconds: u64,
    /// What the operating system tells.
    #[serde(default)]
    pub conditions: Conditions,
}

/// One line after the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// A process began.
    Session(Session),
    /// It visited something.
    Visit(Visit),
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<Session>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<Arch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pass: Option<u8>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    inner: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    samples_us: Option<Vec<f64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sentinel_us: Option<[f64; 2]>,
}

/// A setting and all that was sampled in it, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// Of which machine and engine.
    pub setting: Setting,
    /// Line by line.
    pub records: Vec<Record>,
}

/// Rows that grow, and with them a file, if there is one, which is locked against other processes.
pub struct RowsLog {
    rows: Rows,
    file: Option<(File, PathBuf)>,
}

impl Rows {
    /// Reads a file; what a power cut left after the last line's end is passed over.
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
        let whole = &bytes[..whole_lines(bytes)];
        let text =
            std::str::from_utf8(whole).map_err(|error| Error::invalid(place, "text", "UTF-8", error))?;
        let mut lines = text.lines();
        let first = lines.next().unwrap_or("");
        let header: Header =
            document::read(place, first, (KIND, VERSION), "the header of latency rows in JSON")?;
        let Header { device, engine, protocol, sentinel, plan, .. } = header;
        for (field, value) in [("threads", engine.threads), ("batch", engine.batch)] {
            if value == 0 {
                return Err(Error::invalid(place, field, "at least 1", value).into());
            }
        }
        let parse = |(index, line): (usize, &str)| record(&format!("{place}, line {}", index + 2), line);
        let records = lines.enumerate().map(parse).collect::<Result<_>>()?;
        Ok(Self { setting: Setting { device, engine, protocol, sentinel, plan }, records })
    }

    /// What was written before the first line that is of such a subject.
    #[must_use]
    pub fn before(&self, is_of: impl Fn(&Subject) -> bool) -> Self {
        let is_first = |record: &Record| matches!(record, Record::Visit(visit) if is_of(&visit.subject));
        let end = self.records.iter().position(is_first).unwrap_or(self.records.len());
        Self { setting: self.setting.clone(), records: self.records[..end].to_vec() }
    }

    /// The lines of samples, in order.
    pub fn visits(&self) -> impl Iterator<Item = &Visit> {
        self.records.iter().filter_map(|record| match record {
            Record::Visit(visit) => Some(visit),
            Record::Session(_) => None,
        })
    }
}

fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

fn record(place: &str, line: &str) -> Result<Record> {
    let wrong = |field: &str, expected: &str, got: &dyn std::fmt::Display| -> crate::Error {
        Error::invalid(place, field, expected, got).into()
    };
    let form = "{\"layer\" or \"network\" and \"pass\", \"samples_us\"}";
    let line: Line = serde_json::from_str(line).map_err(|error| wrong("visit", form, &error))?;
    let subject = match (line.session, line.layer, line.network, line.pass) {
        (Some(session), None, None, None) => return Ok(Record::Session(session)),
        (None, Some(layer), None, None) if !layer.trim().is_empty() => Subject::Layer(layer),
        (None, None, Some(arch), pass @ (None | Some(1..=SEARCHED_AGAIN))) => {
            Subject::Network(arch, pass.unwrap_or(1))
        }
        _ => return Err(wrong("visit", form, &"something else")),
    };
    let (inner, samples_us) = (line.inner.unwrap_or(1), line.samples_us.unwrap_or_default());
    let above = |time: &f64| (LEAST_US..=MOST_US).contains(time);
    if !(1..=MOST_RUNS).contains(&inner) || samples_us.is_empty() || !samples_us.iter().all(above) {
        let got = format!("{inner} runs a sample, {samples_us:?}");
        return Err(wrong(
            "samples_us",
            "at least one, each of 1e-6 to 1e12 us, and 1 to 2^24 runs a sample",
            &got,
        ));
    }
    if let Some(pair) = line.sentinel_us.filter(|pair| !pair.iter().all(above)) {
        return Err(wrong("sentinel_us", "two times of 1e-6 to 1e12 us", &format!("{pair:?}")));
    }
    let (again, sentinel_us) = (line.again, line.sentinel_us);
    Ok(Record::Visit(Visit { subject, again, inner, samples_us, sentinel_us }))
}

impl From<&Record> for Line {
    fn from(record: &Record) -> Self {
        let visit = match record {
            Record::Session(session) => return Self { session: Some(session.clone()), ..Self::default() },
            Record::Visit(visit) => visit,
        };
        let (layer, network, pass) = match &visit.subject {
            Subject::Layer(key) => (Some(key.clone()), None, None),
            Subject::Network(arch, pass) => (None, Some(arch.clone()), Some(*pass)),
        };
        let (inner, samples_us) = (Some(visit.inner), Some(visit.samples_us.clone()));
        let (again, sentinel_us) = (visit.again, visit.sentinel_us);
        Self { session: None, layer, network, pass, again, inner, samples_us, sentinel_us }
    }
}

impl From<&Setting> for Header {
    fn from(setting: &Setting) -> Self {
        let Setting { device, engine, protocol, sentinel, plan } = setting.clone();
        Self { kind: KIND.to_string(), version: VERSION, device, engine, protocol, sentinel, plan }
    }
}

impl RowsLog {
    /// Rows without a file.
    pub fn in_memory(setting: Setting) -> Self {
        Self { rows: Rows { setting, records: Vec::new() }, file: None }
    }

    /// Starts a file, or goes on with one of the same setting, and notes that a session begins. What a kill left after
    /// the last line's end is cut off.
    ///
    /// # Errors
    /// If it holds rows of another setting, is damaged, another process holds it, or it cannot be written.
    pub fn open(path: &Path, setting: Setting, session: Session) -> Result<Self> {
        let file =
            OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))?;
        hold(&file, path, path, "another process is measuring into it", "wait until it ends")?;
        // the process that held it may have removed it in between
        let bytes = file::read(path)?;
        let whole = whole_lines(&bytes);
        let header = line_of(&Header::from(&setting));
        let rows = if whole > 0 {
            let rows = Rows::from_bytes(&path.display().to_string(), &bytes)?;
            if rows.setting != setting {
                return Err(occupied(
                    path,
                    "it holds rows of a measuring on another machine or with other flags",
                ));
            }
            rows
        } else if header.as_bytes().starts_with(&bytes) {
            Rows { setting, records: Vec::new() }
        } else {
            return Err(occupied(path, "it holds something else than rows"));
        };
        file.set_len(whole as u64).map_err(Error::io("shorten", path))?;
        let mut log = Self { rows, file: Some((file, path.to_path_buf())) };
        if whole == 0 {
            log.write(&header)?;
            file::sync_folder_of(path);
        }
        log.push(Record::Session(session))?;
        Ok(log)
    }

    /// All so far.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Appends a record; a file is synced.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, record: Record) -> Result<()> {
        self.write(&line_of(&Line::from(&record)))?;
        self.rows.records.push(record);
        Ok(())
    }

    /// Removes the file, if there is one: its samples stand in a table now.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<()> {
        let Some((_, path)) = self.file else { return Ok(()) };
        Ok(std::fs::remove_file(&path).map_err(Error::io("remove", &path))?)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        Ok(file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_data())
            .map_err(Error::io("write", path))?)
    }
}

fn occupied(path: &Path, reason: &str) -> crate::Error {
    let next = "finish that one with its flags, or move the file away".to_string();
    Error::Occupied { path: path.to_path_buf(), reason: reason.to_string(), next }.into()
}

fn line_of(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("finite numbers and text") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(protocol: &str) -> Setting {
        let text = str::to_string;
        let (name, cpu, os, arch) = (text("board"), text("a76"), text("linux"), text("aarch64"));
        let device = DeviceFacts { name, cpu, os, arch, cores: 4 };
        let (engine, engine_version, dtype) = (text("fake"), text("1"), text("f32"));
        let engine = EngineFacts { engine, engine_version, threads: 1, dtype, batch: 1 };
        Setting {
            device,
            engine,
            protocol: text(protocol),
            sentinel: text("pool 8 @2x2"),
            plan: text("none"),
        }
    }

    fn open(path: &Path, protocol: &str) -> Result<RowsLog> {
        RowsLog::open(path, setting(protocol), Session::default())
    }

    fn visit(subject: Subject, samples_us: &[f64]) -> Record {
        let (again, sentinel_us) = (samples_us.len() > 1, Some([1.0, 1.5]));
        Record::Visit(Visit { subject, again, inner: 7, samples_us: samples_us.to_vec(), sentinel_us })
    }

    #[test]
    fn rows_outlive_a_kill_and_a_torn_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.jsonl");
        let mut log = open(&path, "p").expect("a new file");
        let layer = |key: &str| Subject::Layer(key.to_string());
        let arch: Arch = "r8:k3e3".parse().expect("an arch");
        for record in [
            visit(layer("a"), &[1.5, 2.5]),
            visit(Subject::Network(arch, 2), &[3.0]),
            visit(layer("a"), &[4.0]),
        ] {
            log.push(record).expect("written");
        }
        let error = open(&path, "p").err().expect("held").to_string();
        assert!(error.contains("another process is measuring"), "{error}");
        let rows = log.rows().clone();
        drop(log);
        assert_eq!(Rows::read(&path).expect("own file"), rows);
        let whole = std::fs::read(&path).expect("a file");
        for torn in [&b""[..], b"{\"layer\":\"a\",\"inn", b"\xff\xfe"] {
            std::fs::write(&path, [&whole[..], torn].concat()).expect("written");
            assert_eq!(Rows::read(&path).expect("passed over"), rows);
            let log = open(&path, "p").expect("gone on with");
            assert_eq!(log.rows().records[..4], rows.records);
            assert_eq!(log.rows().records.len(), 5, "one session more");
        }
        open(&path, "p").expect("gone on with").remove().expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn another_tool_needs_to_say_little() {
        let text = concat!(
            "{\"kind\":\"latency-rows\",\"version\":1,\"device\":{\"name\":\"phone\"},",
            "\"engine\":{\"engine\":\"tflite\",\"engine_version\":\"2.17\",\"threads\":1,\"dtype\":\"f32\",\"batch\":1}}\n",
            "{\"layer\":\"pool 8 @2x2\",\"samples_us\":[2.5,2.6]}\n",
            "{\"network\":\"r8:k3e3\",\"samples_us\":[40]}\n",
        );
        let rows = Rows::from_bytes("x", text.as_bytes()).expect("rows");
        let visits: Vec<_> = rows.visits().collect();
        assert_eq!((rows.setting.device.name.as_str(), visits.len()), ("phone", 2));
        assert_eq!((visits[0].inner, visits[0].sentinel_us), (1, None));
        assert_eq!(visits[1].subject, Subject::Network("r8:k3e3".parse().expect("an arch"), 1));
    }

    #[test]
    fn other_settings_and_damage_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rows.jsonl");
        drop(open(&path, "p").expect("a new file"));
        let header = std::fs::read_to_string(&path).expect("a file");
        let refused = |text: &str, protocol: &str| {
            std::fs::write(&path, text).expect("written");
            let error = open(&path, protocol).err().expect("refused").to_string();
            assert_eq!(std::fs::read_to_string(&path).expect("still there"), text, "nothing is lost");
            error
        };
        assert!(refused(&header, "other").contains("with other flags; finish that one"));
        for (text, part) in [
            ("nonsense".to_string(), "something else than rows"),
            (header.replace("\"version\":1", "\"version\":2"), "version: expected 1, got 2"),
            (header.replace("\"threads\":1", "\"threads\":0"), "threads: expected at least 1"),
            (header.replace(KIND, "x"), "kind: expected latency-rows"),
            (format!("{header}nonsense\n"), "line 3: visit"),
            (format!("{header}{{\"layer\":\"a\"}}\n"), "line 3: samples_us: expected at least one"),
            (format!("{header}{{\"layer\":\" \",\"samples_us\":[1]}}\n"), "line 3: visit"),
            (format!("{header}{{\"layer\":\"a\",\"inner\":0,\"samples_us\":[1]}}\n"), "2^24 runs"),
            (format!("{header}{{\"layer\":\"a\",\"samples_us\":[-1]}}\n"), "each of 1e-6"),
            (
                format!("{header}{{\"layer\":\"a\",\"samples_us\":[1],\"sentinel_us\":[0,1]}}\n"),
                "sentinel_us",
            ),
            (format!("{header}{{\"layer\":\"a\",\"network\":\"r8:k3e3\",\"samples_us\":[1]}}\n"), "visit"),
            (format!("{header}{{\"network\":\"r8:k3e3\",\"pass\":5,\"samples_us\":[1]}}\n"), "visit"),
        ] {
            let error = refused(&text, "p");
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
