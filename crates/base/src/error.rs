//! What goes wrong with a file or a value: where, what was expected, what was found, what to do.

use std::path::{Path, PathBuf};

/// Result of what deals with files and values.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with a file or a value.
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

    /// Says in which file the value of an [`Error::Invalid`] stands, before the place that it names itself.
    #[must_use]
    pub fn in_place(mut self, outer: impl std::fmt::Display) -> Self {
        if let Self::Invalid { place, .. } = &mut self {
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
