//! What a measuring has sampled so far, on disk: one line a visit, so that a kill loses the visit it was in.
//!
//! The file lies beside the table while it is being measured; the table takes its place.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use supernet::Error;
use supernet::file::{self, hold};

use super::device::DeviceFacts;
use super::engine::EngineFacts;
use super::measure::Sampled;
use crate::error::Result;
use supernet::document;

/// What the header's `kind` says.
const KIND: &str = "latency-samples";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 1;

/// What must be the same for samples to belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    kind: String,
    version: u32,
    device: DeviceFacts,
    engine: EngineFacts,
    protocol: String,
}

/// One visit.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    layer: String,
    inner: u64,
    samples_us: Vec<f64>,
}

/// The open file of a measuring, locked against other processes.
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Starts the file, or goes on with one of the same setting; returns the samples that it holds, by layer. What a
    /// kill left after the last line's end is cut off.
    ///
    /// # Errors
    /// If it holds samples of another setting, is damaged, another process holds it, or it cannot be written.
    pub fn open(
        path: &Path,
        device: &DeviceFacts,
        engine: &EngineFacts,
        protocol: &str,
    ) -> Result<(Self, BTreeMap<String, Sampled>)> {
        let file =
            OpenOptions::new().create(true).append(true).open(path).map_err(Error::io("write", path))?;
        hold(&file, path, path, "another process is measuring into it", "wait until it ends")?;
        // the process that held it may have removed it in between
        let bytes = file::read(path)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let header = Header {
            kind: KIND.to_string(),
            version: VERSION,
            device: device.clone(),
            engine: engine.clone(),
            protocol: protocol.to_string(),
        };
        let own = line_of(&header);
        if whole == 0 && !own.as_bytes().starts_with(&bytes) {
            let (reason, next) =
                ("it holds something else than samples", "move it away, or give another --out");
            let (reason, next) = (reason.to_string(), next.to_string());
            return Err(Error::Occupied { path: path.to_path_buf(), reason, next }.into());
        }
        let taken = if whole == 0 { BTreeMap::new() } else { read(path, &bytes[..whole], &header)? };
        file.set_len(whole as u64).map_err(Error::io("shorten", path))?;
        let mut journal = Self { file, path: path.to_path_buf() };
        if whole == 0 {
            journal.write(&header)?;
        }
        Ok((journal, taken))
    }

    /// Appends the samples of a visit.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn append(&mut self, layer: &str, inner: u64, samples: &[f64]) -> Result<()> {
        self.write(&Line { layer: layer.to_string(), inner, samples_us: samples.to_vec() })
    }

    /// Removes the file: its samples stand in a table now.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<()> {
        Ok(std::fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))?)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        Ok(self.file.write_all(line_of(line).as_bytes()).map_err(Error::io("write", &self.path))?)
    }
}

fn line_of(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("finite numbers and text") + "\n"
}

fn read(path: &Path, bytes: &[u8], header: &Header) -> Result<BTreeMap<String, Sampled>> {
    let place = path.display().to_string();
    let text = std::str::from_utf8(bytes).map_err(|error| Error::invalid(&place, "text", "UTF-8", error))?;
    let mut lines = text.lines();
    let first = lines.next().unwrap_or("");
    let found: Header =
        document::read(&place, first, (KIND, VERSION), "the header of latency samples in JSON")?;
    if found != *header {
        return Err(Error::Occupied {
            path: path.to_path_buf(),
            reason:
                "it holds samples of a measuring that was cut short on another machine or with other flags"
                    .to_string(),
            next: "finish that one with its flags, or remove the file".to_string(),
        }
        .into());
    }
    let mut taken: BTreeMap<String, Sampled> = BTreeMap::new();
    for (index, line) in lines.enumerate() {
        let wrong = |expected: &str, got: &dyn std::fmt::Display| {
            Error::invalid(format!("{place}, line {}", index + 2), "visit", expected, got)
                .and_then_do("remove the file")
        };
        let line: Line = serde_json::from_str(line)
            .map_err(|error| wrong("{\"layer\", \"inner\", \"samples_us\"}", &error))?;
        if line.inner == 0 || line.samples_us.iter().any(|sample| !(sample.is_finite() && *sample > 0.0)) {
            return Err(wrong("runs and samples above 0", &format!("{line:?}")).into());
        }
        let entry = taken.entry(line.layer).or_default();
        entry.inner = line.inner;
        entry.samples.extend(line.samples_us);
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> (DeviceFacts, EngineFacts) {
        let device = DeviceFacts {
            name: "board".to_string(),
            cpu: "a76".to_string(),
            os: "linux".to_string(),
            arch: "aarch64".to_string(),
            cores: 4,
        };
        let (engine, dtype) = ("fake".to_string(), "f32".to_string());
        (device, EngineFacts { engine, engine_version: "1".to_string(), threads: 1, dtype, batch: 1 })
    }

    fn open(path: &Path, protocol: &str) -> Result<(Journal, BTreeMap<String, Sampled>)> {
        let (device, engine) = facts();
        Journal::open(path, &device, &engine, protocol)
    }

    #[test]
    fn samples_outlive_a_kill_and_a_torn_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.json.samples");
        let (mut journal, taken) = open(&path, "p").expect("a new file");
        assert!(taken.is_empty());
        journal.append("a", 7, &[1.5, 2.5]).expect("written");
        journal.append("b", 1, &[3.0]).expect("written");
        journal.append("a", 7, &[4.0]).expect("written");
        let error = open(&path, "p").err().expect("held").to_string();
        assert!(error.contains("another process is measuring"), "{error}");
        drop(journal);
        let whole = std::fs::read(&path).expect("a file");
        for torn in [&b""[..], b"{\"layer\":\"a\",\"inn", b"\xff\xfe"] {
            std::fs::write(&path, [&whole[..], torn].concat()).expect("written");
            let (_, taken) = open(&path, "p").expect("gone on with");
            assert_eq!(taken["a"], Sampled { inner: 7, samples: vec![1.5, 2.5, 4.0] });
            assert_eq!((taken.len(), std::fs::read(&path).expect("a file")), (2, whole.clone()));
        }
        let (journal, _) = open(&path, "p").expect("gone on with");
        journal.remove().expect("removed");
        assert!(!path.exists());
    }

    #[test]
    fn other_settings_and_damage_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("samples");
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
            (header.replace("\"version\":1", "\"version\":2"), "version: expected 1, got 2"),
            (header.replace(KIND, "x"), "kind: expected latency-samples"),
            (format!("{header}nonsense\n"), "line 2: visit"),
            (format!("{header}{{\"layer\":\"a\",\"inner\":0,\"samples_us\":[1]}}\n"), "above 0"),
            (format!("{header}{{\"layer\":\"a\",\"inner\":1,\"samples_us\":[-1]}}\n"), "above 0"),
        ] {
            let error = refused(&text, "p");
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
