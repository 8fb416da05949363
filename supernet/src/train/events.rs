//! What a run logs, in TensorBoard's form besides: losses, rates and accuracies as scalars.
//!
//! The point of a log's line stands at the number of steps that were taken when it was written. Each process of a run writes a
//! file of its own. It begins with a mark at which TensorBoard drops what an earlier one wrote from that step on, so that a
//! curve is as the log is after a resume.

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

/// How long a point may wait before others can read it.
const FLUSH: Duration = Duration::from_secs(10);

/// What the points of a run are called, and made of.
pub(super) struct Points {
    /// Images a step.
    pub batch: usize,
    /// The sub-network whose accuracies are those of the `largest`, others are of the `smallest`; `None` where there is but one.
    pub largest: Option<Arch>,
}

/// The event files of a run, of which this process writes one. What fails is logged once, and ends it; the run goes on.
pub(super) struct Events {
    folder: PathBuf,
    points: Points,
    file: Option<EventFile>,
    /// Whether writing has failed, after which nothing is written.
    failed: bool,
}

impl Events {
    /// Files in `folder`; nothing is made before the first line.
    pub(super) fn new(folder: PathBuf, points: Points) -> Self {
        Self { folder, points, file: None, failed: false }
    }

    /// Writes the points of a line that is logged.
    pub(super) fn add(&mut self, line: &LogLine) {
        let added = self.try_add(line);
        self.end_after(added);
    }

    /// Lets others read all points so far.
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
        // an evaluation takes long and is waited for
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
        warn!("no more is written for TensorBoard: {error}");
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

/// The first step whose points are to come, where a log goes on with `line`: what is there already after a resume stays.
fn first_step(line: &LogLine) -> u64 {
    match line {
        LogLine::Resumed { resumed_from_step, .. } => resumed_from_step + 1,
        _ => 0,
    }
}

/// A file of records, each an event.
struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
    flush: Every,
}

impl EventFile {
    /// A new file, whose points replace those from `step` on of all files before.
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
