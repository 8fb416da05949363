//! The folder of a run: its lock, its files, and the log.

mod phase_ends;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use base::file::{self, write_atomically};
use base::machine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::events::{Events, Points};
use super::history::{Begun, Difference, History, OPTIMIZER, first_difference};
use super::log_file;
use super::plan::hash_of;
use super::record::LogLine;
use crate::error::{Error, Result};

/// A run's folder, locked against other processes while the value lives.
pub struct RunFolder {
    path: PathBuf,
    log: Option<File>,
    /// Whether the log records that there is a checkpoint.
    checkpoint_noted: bool,
    /// TensorBoard events, if they are written too.
    events: Option<Events>,
    _lock: File,
}

impl RunFolder {
    /// Opens a folder for a run, and creates it if needed.
    ///
    /// # Errors
    /// If the folder is used and `resume` is false, another process holds it, or it cannot be written.
    pub fn open(path: &Path, resume: bool) -> Result<Self> {
        Self::open_for(path, resume, &["teacher.safetensors", "supernet.safetensors"])
    }

    /// Opens a folder for a run that leaves `results` next to plan, log and checkpoint.
    ///
    /// # Errors
    /// As [`RunFolder::open`].
    pub(super) fn open_for(path: &Path, resume: bool, results: &[&str]) -> Result<Self> {
        // a link may point to a folder that does not exist yet
        std::fs::create_dir_all(file::followed(path)).map_err(Error::io("create the folder", path))?;
        let busy = "another process is training in this folder";
        let lock =
            file::lock(&path.join("run.lock"), path, busy, "wait until it ends, or choose another folder")?;
        let folder =
            Self { path: path.to_path_buf(), log: None, checkpoint_noted: false, events: None, _lock: lock };
        let state = [folder.plan(), folder.log_path(), folder.checkpoint()];
        let mut used = state.into_iter().chain(results.iter().map(|name| path.join(name)));
        if !resume && used.any(|file| file.exists()) {
            return Err(base::Error::Occupied {
                path: path.to_path_buf(),
                reason: "the folder holds a run".to_string(),
                next: "add --resume to continue it, or choose another folder".to_string(),
            }
            .into());
        }
        Ok(folder)
    }

    /// Name of the recipe that the run in a folder follows, if there is a plan.
    pub fn recipe_of(path: &Path) -> Option<String> {
        let text = file::read_text(&path.join("plan.json")).ok()?;
        let document: Value = serde_json::from_str(&text).ok()?;
        document.pointer("/plan/recipe")?.as_str().map(str::to_string)
    }

    /// Path of the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the plan, `plan.json`.
    pub fn plan(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// Path of the log, one line per step or evaluation.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// Path of the checkpoint: weights and state at the last save.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join("checkpoint.safetensors")
    }

    /// Path of the teacher: the largest network after the full phase.
    pub fn teacher(&self) -> PathBuf {
        self.path.join("teacher.safetensors")
    }

    /// Path of the finished weights.
    pub fn supernet(&self) -> PathBuf {
        self.path.join("supernet.safetensors")
    }

    /// The sub-network that a controller derived.
    #[must_use]
    pub fn derived(&self) -> PathBuf {
        self.path.join("derived.json")
    }

    /// From now on also writes the log as TensorBoard events, in the folder `tensorboard`. The first failure is
    /// logged and ends these files; the run continues.
    pub(super) fn write_events(&mut self, points: Points) {
        self.events = Some(Events::new(self.path.join("tensorboard"), points));
    }

    /// Writes `plan.json`; `run` holds what may differ between equal runs, such as dates and estimates. The
    /// processor is added to it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_plan(&self, plan: &impl Serialize, run: &serde_json::Value) -> Result<()> {
        self.write_document(json!({ "version": 1, "hash": hash_of(plan), "plan": plan }), run)
    }

    /// Writes `plan.json` of a run that may have followed several plans: the last plan, and the earlier ones, each
    /// with its first step.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write_history(&self, history: &History, run: &Value) -> Result<()> {
        let Begun { from_step, plan } = history.last();
        let mut document = json!({ "version": 1, "hash": history.hash(), "plan": plan });
        if !history.earlier().is_empty() {
            document["earlier"] = json!(history.earlier());
            document["from_step"] = json!(from_step);
        }
        self.write_document(document, run)
    }

    fn write_document(&self, mut document: Value, run: &Value) -> Result<()> {
        document["run"] = run.clone();
        document["run"]["cpu"] = machine::cpu().into();
        let mut text = serde_json::to_string_pretty(&document).expect("plain data");
        text.push('\n');
        Ok(write_atomically(&self.plan(), text.as_bytes())?)
    }

    /// The plans of the run, if `plan.json` has them.
    pub(super) fn history(&self) -> Option<History> {
        #[derive(Deserialize)]
        struct Written {
            plan: Value,
            #[serde(default)]
            earlier: Vec<Begun>,
            #[serde(default)]
            from_step: u64,
        }
        let written = serde_json::from_str(&self.plan_text()).ok();
        written.map(|Written { plan, earlier, from_step }| History::of(earlier, from_step, plan))
    }

    /// The last plan of the run, if `plan.json` has it.
    pub(super) fn planned(&self) -> Option<Value> {
        self.history().map(|history| history.last().plan.clone())
    }

    fn plan_text(&self) -> String {
        file::read_text(&self.plan()).unwrap_or_default()
    }

    /// The processor that the run was last planned on, if `plan.json` names it.
    pub fn planned_cpu(&self) -> Option<String> {
        let plan: Value = serde_json::from_str(&self.plan_text()).ok()?;
        plan.pointer("/run/cpu")?.as_str().map(str::to_string)
    }

    /// The error of resuming a run under a plan that differs from its own.
    pub fn other_plan(&self, plan: &impl Serialize) -> Error {
        let started =
            serde_json::from_str::<Value>(&self.plan_text()).ok().and_then(|file| file.get("plan").cloned());
        let now = serde_json::to_value(plan).expect("plain data");
        let difference = started.and_then(|started| first_difference("plan", &started, &now));
        self.differs(difference.unwrap_or_else(|| Difference {
            field: "plan".to_string(),
            before: "the one that the checkpoint was made with".to_string(),
            now: "another".to_string(),
        }))
    }

    /// The error of a plan with this difference.
    pub(super) fn differs(&self, difference: Difference) -> Error {
        let Difference { field, before, now } = difference;
        let advice = match field.as_str() {
            OPTIMIZER => {
                "the state of one optimizer is useless to another: resume with the recipe the run was started with, or begin \
                 another run with --start from this one's weights"
            }
            _ => "resume with the flags the run was started with, or choose another folder",
        };
        Error::invalid(self.plan().display(), field, before, now).and_then_do(advice)
    }

    /// Cuts the log after the lines written when at most `steps` steps were taken, and returns the lines written at
    /// exactly `steps`. A torn last line is cut too.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn cut_log(&mut self, steps: u64) -> Result<Vec<LogLine>> {
        self.log = None;
        log_file::cut(&self.log_path(), steps)
    }

    /// The lines logged before the first step.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub(super) fn log_before_steps(&self) -> Result<Vec<LogLine>> {
        log_file::beginning(&self.log_path())
    }

    /// Empties the log of a run that was killed before its first checkpoint.
    ///
    /// # Errors
    /// If the log records a checkpoint, or cannot be read or written.
    pub fn empty_log(&mut self) -> Result<()> {
        self.log = None;
        let path = self.log_path();
        if let Some(step) = log_file::checkpoint_shown(&path)? {
            let got = format!("none, though log.jsonl says that one of {step} steps was written");
            return Err(Error::invalid(self.checkpoint().display(), "file", "the run's checkpoint", got)
                .and_then_do("put it back, or train in another folder"));
        }
        log_file::empty(&path)
    }

    /// Logs that there is a checkpoint after `step` steps, once each time the folder is opened.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn note_checkpoint(&mut self, step: u64) -> Result<()> {
        if self.checkpoint_noted {
            return Ok(());
        }
        self.log(&LogLine::Checkpoint { step })?;
        self.checkpoint_noted = true;
        Ok(())
    }

    /// Syncs the log to disk, so that it survives a power cut like the checkpoint that follows.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync_log(&mut self) -> Result<()> {
        if let Some(events) = &mut self.events {
            events.flush();
        }
        let synced = self.log.as_ref().map_or(Ok(()), File::sync_data);
        synced.map_err(Error::io("write", &self.log_path()))
    }

    /// Appends a line to the log.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn log(&mut self, line: &LogLine) -> Result<()> {
        let path = self.log_path();
        let failed = |error| Error::io("write", &path)(error);
        let mut text = serde_json::to_string(line).expect("plain data");
        text.push('\n');
        let log = match self.log.take() {
            Some(log) => log,
            None => OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?,
        };
        self.log.insert(log).write_all(text.as_bytes()).map_err(failed)?;
        if let Some(events) = &mut self.events {
            events.add(line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::StepRecord;

    fn step(step: u64) -> LogLine {
        LogLine::Step(StepRecord {
            step,
            phase: "full".to_string(),
            loss: 1.0,
            lr: 0.1,
            resolution: 8.into(),
            ms: 1.0,
        })
    }

    #[test]
    fn a_used_folder_needs_resume_and_a_locked_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = RunFolder::open(folder.path(), false).expect("empty");
        let error = RunFolder::open(folder.path(), true).err().expect("locked").to_string();
        assert!(error.contains("another process"), "{error}");
        run.log(&step(0)).expect("written");
        drop(run);
        let error = RunFolder::open(folder.path(), false).err().expect("used").to_string();
        assert!(error.contains("--resume"), "{error}");
        assert!(RunFolder::open(folder.path(), true).is_ok());
    }

    #[test]
    fn a_checkpoint_that_the_log_records_must_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = RunFolder::open(folder.path(), false).expect("empty");
        run.log(&step(0)).expect("written");
        run.empty_log().expect("there was no checkpoint");
        run.log(&step(0)).expect("written");
        run.note_checkpoint(1).expect("written");
        run.note_checkpoint(2).expect("once is enough");
        let log = std::fs::read_to_string(run.log_path()).expect("a log");
        assert_eq!(log.matches("{\"event\":\"checkpoint\",\"step\":1}").count(), 1, "{log}");
        let error = run.empty_log().expect_err("one is recorded").to_string();
        assert!(error.contains("checkpoint.safetensors: file: expected the run's checkpoint"), "{error}");
        assert!(error.contains("one of 1 steps was written; put it back"), "{error}");
        assert_eq!(std::fs::read_to_string(run.log_path()).expect("a log"), log, "nothing is lost");
        // files older than that line: an evaluation after the first phase, or a resume
        let resumed = LogLine::Resumed { resumed_from_step: 7, time: 0 };
        assert!(resumed.shows_checkpoint() && !step(5).shows_checkpoint());
    }

    #[test]
    fn a_plan_with_a_byte_order_mark_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let run = RunFolder::open(folder.path(), false).expect("empty");
        std::fs::write(run.plan(), "\u{feff}{\"plan\":{},\"run\":{\"cpu\":\"a\"}}").expect("written");
        assert_eq!(run.planned_cpu().as_deref(), Some("a"));
        assert!(run.history().is_some());
    }

    #[test]
    fn the_log_is_cut_back_to_the_checkpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut run = RunFolder::open(folder.path(), false).expect("empty");
        for at in 0..5 {
            run.log(&step(at)).expect("written");
        }
        let path = run.log_path();
        let mut text = std::fs::read_to_string(&path).expect("a log");
        text.push_str("{\"event\":\"st");
        std::fs::write(&path, text).expect("written");
        run.cut_log(3).expect("cut");
        run.log(&step(3)).expect("written");
        let lines = std::fs::read_to_string(&path).expect("a log");
        let steps: Vec<_> =
            lines.lines().map(|l| serde_json::from_str::<LogLine>(l).expect("whole").steps_taken()).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }
}
