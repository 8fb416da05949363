//! How a run was resumed, and the first log lines of a process.

use base::machine;
use kernels::Backend;
use network::data::Dataset;
use space::Arch;

use super::record::LogLine;
use super::run_folder::RunFolder;
use crate::error::Result;

/// How a run was resumed.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// The next step.
    pub from_step: u64,
    /// Differences of machine and tool from those of the earlier steps, which may change bits.
    pub differences: Vec<String>,
    /// The change of plan for the remaining steps, in words.
    pub other_plan: Option<String>,
    /// Kernels that computed the weights so far.
    backend: String,
    /// Sub-networks whose evaluation after the last step is in the log already.
    pub(super) evaluated: Vec<Arch>,
    /// Log lines written at the step from which the run is resumed.
    pub(super) happened: Vec<LogLine>,
}

impl Resumed {
    /// A run resumed at a step, whose weights these kernels computed.
    pub(super) fn new(from_step: u64, backend: &str) -> Self {
        Self {
            from_step,
            differences: Vec::new(),
            other_plan: None,
            backend: backend.to_string(),
            evaluated: Vec::new(),
            happened: Vec::new(),
        }
    }

    /// Notes how this machine and this tool differ from those that wrote the checkpoint.
    pub(super) fn compared(mut self, folder: &RunFolder, backend: &Backend, tool: &str) -> Self {
        let cpu = machine::cpu();
        let now = backend.name();
        let before = folder.planned_cpu().filter(|before| *before != cpu);
        self.differences =
            before.iter().map(|before| format!("processor {before} before, {cpu} now")).collect();
        if !self.ends_with(now) {
            self.differences.push(format!("kernels {} before, {now} now", self.backend));
        }
        let version = env!("CARGO_PKG_VERSION");
        if tool != version {
            self.differences.push(format!("version {tool} of the tool before, {version} now"));
        }
        self
    }

    /// Whether these kernels computed the last part of the weights.
    fn ends_with(&self, backend: &str) -> bool {
        self.backend.rsplit(", then ").next() == Some(backend)
    }

    /// All kernels that computed a run's weights, in order: `avx2, then avx512`.
    pub(super) fn backend(resumed: Option<&Self>, now: &Backend) -> String {
        let now = now.name();
        match resumed {
            Some(resumed) if resumed.ends_with(now) => resumed.backend.clone(),
            Some(Self { backend, .. }) => format!("{backend}, then {now}"),
            None => now.to_string(),
        }
    }
}

/// Logs the first lines of a process: that the run was resumed, or which images are left out.
pub(super) fn log_beginning(
    folder: &mut RunFolder,
    resumed: Option<&Resumed>,
    dataset: &Dataset,
) -> Result<()> {
    if let Some(Resumed { from_step, .. }) = resumed {
        let time = base::timing::unix_seconds();
        return folder.log(&LogLine::Resumed { resumed_from_step: *from_step, time });
    }
    for skipped in dataset.skipped() {
        let path = skipped.path.clone();
        let reason = skipped.reason.clone();
        folder.log(&LogLine::SkippedImage { path, reason })?;
    }
    Ok(())
}
