//! The log of a run as TensorBoard events: losses, learning rates and accuracies as scalars.
//!
//! The point of a log line is at the number of steps taken when it was written. Each process of a run writes its own
//! file, which begins with a mark: TensorBoard drops points of earlier files from that step on, so that curves match
//! the log after a resume.

mod wire;

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::machine;
use base::timing::{Every, unix_seconds, unix_time};
use prost::Message;
use space::Arch;
use tracing::warn;

use super::record::LogLine;
use crate::error::{Error, Result};
use wire::{Event, SessionLog, Summary, Value, framed};

/// Longest time until a point is flushed to its file.
const FLUSH: Duration = Duration::from_secs(10);

/// Names and values of a run's points.
pub(super) struct Points {
    /// Images per step.
    pub batch: usize,
    /// The sub-network whose accuracies are called `largest`, those of any other `smallest`; `None` if there is only
    /// one.
    pub largest: Option<Arch>,
}

/// The event file that this process writes for a run. The first failure is logged and ends the file; the run
/// continues.
pub(super) struct Events {
    folder: PathBuf,
    points: Points,
    file: Option<EventFile>,
    /// Whether writing has failed, after which nothing is written.
    failed: bool,
}

impl Events {
    /// Events in `folder`; no file is made before the first line.
    pub(super) fn new(folder: PathBuf, points: Points) -> Self {
        Self { folder, points, file: None, failed: false }
    }

    /// Writes the points of a log line.
    pub(super) fn add(&mut self, line: &LogLine) {
        let added = self.try_add(line);
        self.end_after(added);
    }

    /// Flushes all points so far to the file.
    pub(super) fn flush(&mut self) {
        let flushed = self.file.as_mut().map_or(Ok(()), EventFile::flush);
        self.end_after(flushed);
    }

    fn try_add(&mut self, line: &LogLine) -> Result<()> {
        if self.failed {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(EventFile::begin(&self.folder, first_step(line))?),
        };
        let values = self.points.of(line);
        if values.is_empty() {
            return Ok(());
        }
        let summary = Some(Summary { value: values });
        file.write(&Event { summary, ..Event::at(unix_time(), line.steps_taken()) })?;
        // evaluations are rare, and users wait for them
        if matches!(line, LogLine::Evaluation { .. } | LogLine::Validation(_)) || file.flush.due() {
            file.flush()
        } else {
            Ok(())
        }
    }

    fn end_after(&mut self, written: Result<()>) {
        let Err(error) = written else { return };
        self.file = None;
        self.failed = true;
        warn!("TensorBoard events are no longer written: {error}");
    }
}

impl Points {
    fn of(&self, line: &LogLine) -> Vec<Value> {
        match line {
            LogLine::Step(record) => vec![
                Value::new("loss", record.loss),
                Value::new("lr", record.lr),
                Value::new("images_per_second", (self.batch as f64 / record.ms * 1e3) as f32),
                Value::new("resolution", (record.resolution.plane() as f32).sqrt()),
            ],
            LogLine::Evaluation { arch, top1, .. } => vec![Value::new(self.top1_of(arch), *top1 as f32)],
            LogLine::Conflict(record) => vec![Value::new("conflict/cosine", record.cosine as f32)],
            LogLine::Validation(record) => vec![Value::new("val/top1/within a phase", record.top1 as f32)],
            _ => Vec::new(),
        }
    }

    fn top1_of(&self, arch: &Arch) -> &'static str {
        match &self.largest {
            None => "val/top1",
            Some(largest) if largest == arch => "val/top1/largest",
            Some(_) => "val/top1/smallest",
        }
    }
}

/// The first step whose points are written anew, if a log continues with `line`: points before a resume stay.
fn first_step(line: &LogLine) -> u64 {
    match line {
        LogLine::Resumed { resumed_from_step, .. } => resumed_from_step + 1,
        _ => 0,
    }
}

/// A file of records, one per event.
struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
    flush: Every,
}

impl EventFile {
    /// A new file, whose points replace those of all earlier files from `step` on.
    fn begin(folder: &Path, step: u64) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        let host = machine::host().unwrap_or_else(|| "run".to_string());
        let name = format!("events.out.tfevents.{}.{host}.{}", unix_seconds(), std::process::id());
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let out = BufWriter::new(file.map_err(Error::io("write", &path))?);
        let mut begun = Self { path, out, flush: Every::new(FLUSH) };
        let version = Some("brain.Event:2".to_string());
        begun.write(&Event { file_version: version, ..Event::at(unix_time(), 0) })?;
        let session_log = Some(SessionLog { status: SessionLog::START });
        begun.write(&Event { session_log, ..Event::at(unix_time(), step) })?;
        begun.flush()?;
        Ok(begun)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let record = framed(&event.encode_to_vec());
        self.out.write_all(&record).map_err(Error::io("write", &self.path))
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::io("write", &self.path))
    }
}

#[cfg(test)]
mod tests;
