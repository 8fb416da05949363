//! Progress and messages of commands that take steps.

use std::path::Path;

use base::timing::{Spread, peak_rss_mb};
use command::{Common, ProgressBar};
use serde_json::{Map, Value, json};
use supernet::train::{Resumed, StepRecord};
use tracing::{info, warn};

/// Number of recent steps that the rate on the bar averages.
const RECENT: usize = 20;

/// A bar of steps, and the time that each took.
pub struct StepBar<'a> {
    common: &'a Common,
    bar: ProgressBar,
    /// Milliseconds of each step.
    pub times: Vec<f64>,
    batch: usize,
}

impl<'a> StepBar<'a> {
    /// No bar yet; each step has `batch` images.
    pub fn new(common: &'a Common, batch: usize) -> Self {
        Self { common, bar: ProgressBar::hidden(), times: Vec::new(), batch }
    }

    /// Begins a bar of `steps`, of which `done` are taken.
    pub fn begin(&mut self, steps: u64, done: u64) {
        self.bar.finish_and_clear();
        self.bar = self.common.bar(steps, "{bar:30} {pos}/{len}  {msg}  ETA {eta}");
        self.bar.set_position(done);
        self.bar.reset_eta();
    }

    /// A step was taken.
    pub fn step(&mut self, record: &StepRecord) {
        self.times.push(record.ms);
        let recent = &self.times[self.times.len().saturating_sub(RECENT)..];
        let rate = self.batch as f64 * recent.len() as f64 / recent.iter().sum::<f64>() * 1e3;
        self.bar.set_message(format!("loss {:.3}  {rate:.0} images/s", record.loss));
        self.bar.inc(1);
    }

    /// The fields of `--json` for a run: whether and where it ended, and how fast it was.
    pub fn document(&self, interrupted: Option<u64>, resumed: Option<&Resumed>) -> Map<String, Value> {
        let step_ms = Spread::of(&self.times);
        let images_per_second =
            if self.times.is_empty() { 0.0 } else { self.batch as f64 / step_ms.median * 1e3 };
        let fields = [
            ("finished", json!(interrupted.is_none())),
            ("interrupted_at_step", json!(interrupted)),
            ("resumed_from_step", json!(resumed.map(|resumed| resumed.from_step))),
            ("step_ms", json!(step_ms)),
            ("images_per_second", json!(images_per_second)),
            ("peak_rss_mb", json!(peak_rss_mb())),
        ];
        fields.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }
}

/// Reports how plan, machine and tool differ from those of the earlier steps.
pub fn report_differences(resumed: Option<&Resumed>) {
    if let Some(Resumed { from_step, other_plan: Some(other), .. }) = resumed {
        info!("note: from step {from_step} on under another plan: {other}");
    }
    for difference in resumed.into_iter().flat_map(|resumed| &resumed.differences) {
        warn!("{difference}: the last bits of the weights may differ from an unbroken run's");
    }
}

/// Reports that a run begins because there was nothing to resume.
pub fn report_beginning(out: &Path, resume: bool, resumed: Option<&Resumed>) {
    if resume && resumed.is_none() {
        let out = out.display();
        info!("nothing to resume in {out}: no checkpoint was written yet; the run begins at step 0");
    }
}

/// The message of a run that was stopped.
pub fn interrupted(step: u64, steps: u64) -> String {
    format!("interrupted; {step} of {steps} steps are saved, continue with --resume")
}
