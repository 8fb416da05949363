//! The one error type of the crate: what went wrong, where, what was expected, what was found, what to do.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in training, evaluating or describing a supernet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: cannot {action}: {cause}")]
    Io {
        /// What was being done: `read`, `write`, `create the folder`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        cause: std::io::Error,
    },
    /// A value from a file, a flag or a caller breaks a promise.
    #[error("{place}: {field}: expected {expected}, got {got}{}", next_step(.next))]
    Invalid {
        /// The file, flag or type that holds the value.
        place: String,
        /// Which part of it.
        field: String,
        /// What would have been right.
        expected: String,
        /// What is there.
        got: String,
        /// What to do about it; may be empty.
        next: String,
    },
    /// A used run folder, a locked one, or a file that must not be overwritten.
    #[error("{path}: {reason}; {next}")]
    Occupied {
        /// The folder or file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
        /// What to do about it.
        next: String,
    },
    /// Training produced numbers that no further step can mend.
    #[error(
        "step {step} (phase {phase}): {what} with {archs}; {}; {next}",
        kept(.checkpoint)
    )]
    Diverged {
        /// The optimizer step, counted from 0.
        step: u64,
        /// The phase's name.
        phase: String,
        /// What is wrong: the loss or the weight that was seen.
        what: String,
        /// The sub-networks of the step.
        archs: String,
        /// Steps that the last good checkpoint holds, if there is one.
        checkpoint: Option<u64>,
        /// What to do about it.
        next: &'static str,
    },
    /// A network's numbers have left the range of f32, so that it has no accuracy.
    #[error(
        "{place}: {field}: expected finite numbers, got {got}; the network has no accuracy, for its weights or statistics are \
         too large; train it again with a lower learning rate, or get the file again"
    )]
    NoAccuracy {
        /// The network.
        place: String,
        /// Which of its numbers.
        field: String,
        /// The first that is not finite.
        got: f32,
    },
    /// An inference pass met a batch normalisation without running statistics.
    #[error("{name}: no running statistics for this sub-network; calibrate it first")]
    Uncalibrated {
        /// The batch normalisation's name.
        name: String,
    },
    /// The tensor library refused an operation.
    #[error("{}", explained(.0))]
    Candle(candle_core::Error),
}

// not by `#[from]`, which would make it its own cause and say it twice
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

/// What can be done about it is said of the one refusal that a user can mend.
fn explained(error: &candle_core::Error) -> String {
    let text = error.to_string();
    let full = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];
    match full.into_iter().find(|code| text.contains(code)) {
        Some(code) => format!("the GPU has no room left ({code}); take a smaller batch or resolution"),
        None => text,
    }
}

fn kept(checkpoint: &Option<u64>) -> String {
    match checkpoint {
        Some(steps) => format!("the checkpoint of {steps} steps is kept"),
        None => "there was no checkpoint yet".to_string(),
    }
}

fn next_step(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!("; {next}") }
}

impl Error {
    /// An [`Error::Io`], for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |cause| Self::Io { action, path, cause }
    }

    /// An [`Error::Invalid`] without a next step; add one with [`Error::and_then_do`].
    pub fn invalid(
        place: impl ToString,
        field: impl ToString,
        expected: impl ToString,
        got: impl ToString,
    ) -> Self {
        Self::Invalid {
            place: place.to_string(),
            field: field.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
            next: String::new(),
        }
    }

    /// Says what the reader can do about an [`Error::Invalid`] that says nothing of it yet.
    #[must_use]
    pub fn or_do(self, advice: impl ToString) -> Self {
        match self {
            Self::Invalid { ref next, .. } if next.is_empty() => self.and_then_do(advice),
            told => told,
        }
    }

    /// Says in which file the value of an [`Error::Invalid`] stands (or which network an [`Error::NoAccuracy`] is of), before
    /// the place that it names itself.
    #[must_use]
    pub fn in_place(mut self, outer: impl std::fmt::Display) -> Self {
        if let Self::Invalid { place, .. } | Self::NoAccuracy { place, .. } = &mut self {
            *place = format!("{outer}: {place}");
        }
        self
    }

    /// Says what the reader can do about an [`Error::Invalid`]; other variants carry their own advice.
    #[must_use]
    pub fn and_then_do(mut self, advice: impl ToString) -> Self {
        if let Self::Invalid { next, .. } = &mut self {
            *next = advice.to_string();
        }
        self
    }
}
