//! Errors of files and values: the place, the expected value, the value found, the next step.

mod kind;

use std::path::{Path, PathBuf};

pub use kind::ErrorKind;

/// Result of functions on files and values.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a file or a value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: cannot {action}: {cause}")]
    Io {
        /// The failed action: `read`, `write`, `create the folder`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        cause: std::io::Error,
    },
    /// A value from a file, a flag or a caller breaks a promise.
    #[error("{place}: {field}: expected {expected}, got {got}{}", next_step(.next))]
    Invalid {
        /// The file, flag or type that holds the value.
        place: String,
        /// The part of the place that holds it.
        field: String,
        /// A description of right values.
        expected: String,
        /// The value found.
        got: String,
        /// The next step for the user; may be empty.
        next: String,
    },
    /// A used run folder, a locked one, or a file that must not be overwritten.
    #[error("{path}: {reason}; {next}")]
    Occupied {
        /// The folder or file.
        path: PathBuf,
        /// Why the path cannot be used.
        reason: String,
        /// The next step for the user.
        next: String,
    },
}

fn next_step(next: &str) -> String {
    if next.is_empty() { String::new() } else { format!("; {next}") }
}

impl Error {
    /// The kind of the error: by the operating system's error for [`Error::Io`], by the variant for the others.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { cause, .. } => cause.kind().into(),
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::Occupied { .. } => ErrorKind::Occupied,
        }
    }

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

    /// Adds a next step to an [`Error::Invalid`] that has none yet.
    #[must_use]
    pub fn or_do(self, advice: impl ToString) -> Self {
        match self {
            Self::Invalid { ref next, .. } if next.is_empty() => self.and_then_do(advice),
            other => other,
        }
    }

    /// Puts the name of a file before the place of an [`Error::Invalid`].
    #[must_use]
    pub fn in_place(mut self, outer: impl std::fmt::Display) -> Self {
        if let Self::Invalid { place, .. } = &mut self {
            *place = format!("{outer}: {place}");
        }
        self
    }

    /// Sets the next step of an [`Error::Invalid`]; other variants carry their own advice.
    #[must_use]
    pub fn and_then_do(mut self, advice: impl ToString) -> Self {
        if let Self::Invalid { next, .. } = &mut self {
            *next = advice.to_string();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_a_kind() {
        let io = |cause: std::io::ErrorKind| Error::io("read", Path::new("x"))(cause.into()).kind();
        let occupied = Error::Occupied { path: "run".into(), reason: String::new(), next: String::new() };
        for (kind, expected) in [
            (io(std::io::ErrorKind::NotFound), ErrorKind::NotFound),
            (io(std::io::ErrorKind::PermissionDenied), ErrorKind::Io),
            (io(std::io::ErrorKind::StorageFull), ErrorKind::Io),
            (io(std::io::ErrorKind::AlreadyExists), ErrorKind::Occupied),
            (io(std::io::ErrorKind::OutOfMemory), ErrorKind::OutOfMemory),
            (Error::invalid("x", "version", 1, 2).in_place("file").kind(), ErrorKind::Invalid),
            (occupied.kind(), ErrorKind::Occupied),
        ] {
            assert_eq!(kind, expected);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_not_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = crate::file::read(&folder.path().join("none")).expect_err("there is none");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
