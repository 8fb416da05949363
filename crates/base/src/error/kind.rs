//! Kinds of errors: callers decide by the kind, people read the text.

use std::io;

/// The kind of an error; every crate's error type has a method `kind` that returns it.
///
/// Being stopped is no error: functions that can be stopped return it as a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file or folder does not exist.
    NotFound,
    /// A file or folder exists, and cannot be read or written.
    Io,
    /// A value from a file, a flag or a caller breaks a promise.
    Invalid,
    /// A folder or file is in use, or must not be overwritten.
    Occupied,
    /// Two things were asked for that do not go together, such as a strategy and an estimator that it cannot use.
    Misuse,
    /// It is proved that no sub-network keeps the limits.
    Infeasible,
    /// No sub-network was found that keeps the limits, which is no proof that there is none.
    NoneFound,
    /// An exported network does not compute what the supernet's sub-network computes.
    VerificationFailed,
    /// Numbers have left the range of f32: a training diverged, or a network has no accuracy.
    NotFinite,
    /// Out of memory: the GPU's, or the machine's for the work about to begin.
    OutOfMemory,
    /// A GPU, its driver or its libraries failed.
    Device,
    /// Anything else, such as an operation that the tensor library refused.
    Other,
}

impl From<io::ErrorKind> for ErrorKind {
    fn from(kind: io::ErrorKind) -> Self {
        match kind {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::AlreadyExists => Self::Occupied,
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            _ => Self::Io,
        }
    }
}
