//! The error type of the crate: failures of training, and errors of files, values and networks.

use std::path::Path;

use base::ErrorKind;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error in training, evaluating or describing a supernet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of a file or a value.
    #[error(transparent)]
    Base(#[from] base::Error),
    /// Training diverged: no further step can recover.
    #[error(
        "step {step} (phase {phase}): {what} with {archs}; {}; {next}",
        kept(.checkpoint)
    )]
    Diverged {
        /// The optimizer step, counted from 0.
        step: u64,
        /// The phase's name.
        phase: String,
        /// The bad loss or weight, in words.
        what: String,
        /// The sub-networks of the step.
        archs: String,
        /// Steps taken at the last good checkpoint, if there is one.
        checkpoint: Option<u64>,
        /// The advice.
        next: &'static str,
    },
    /// A run does not fit into memory.
    #[error(transparent)]
    NoRoom(base::Error),
    /// An error of a network or of the kernels.
    #[error(transparent)]
    Network(network::Error),
}

impl From<network::Error> for Error {
    fn from(error: network::Error) -> Self {
        match error {
            network::Error::Base(error) => Self::Base(error),
            other => Self::Network(other),
        }
    }
}

impl From<kernels::Error> for Error {
    fn from(error: kernels::Error) -> Self {
        network::Error::from(error).into()
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        network::Error::from(error).into()
    }
}

fn kept(checkpoint: &Option<u64>) -> String {
    match checkpoint {
        Some(steps) => format!("the checkpoint of {steps} steps is kept"),
        None => "there was no checkpoint yet".to_string(),
    }
}

impl Error {
    /// Kind of the error: [`Error::Diverged`] is [`ErrorKind::NotFinite`], [`Error::NoRoom`] is
    /// [`ErrorKind::OutOfMemory`], the others have the kind of the error inside.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Base(error) => error.kind(),
            Self::Diverged { .. } => ErrorKind::NotFinite,
            Self::NoRoom(_) => ErrorKind::OutOfMemory,
            Self::Network(error) => error.kind(),
        }
    }

    /// [`base::Error::io`].
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let failed = base::Error::io(action, path);
        move |cause| failed(cause).into()
    }

    /// [`base::Error::invalid`].
    pub fn invalid(
        place: impl ToString,
        field: impl ToString,
        expected: impl ToString,
        got: impl ToString,
    ) -> Self {
        base::Error::invalid(place, field, expected, got).into()
    }

    /// [`base::Error::or_do`]; other variants carry their own advice.
    #[must_use]
    pub fn or_do(self, advice: impl ToString) -> Self {
        self.with(|error| error.or_do(advice))
    }

    /// [`base::Error::in_place`], also for errors of the network crate.
    #[must_use]
    pub fn in_place(self, outer: impl std::fmt::Display) -> Self {
        match self {
            Self::Network(error) => Self::Network(error.in_place(outer)),
            other => other.with(|error| error.in_place(outer)),
        }
    }

    /// [`base::Error::and_then_do`]; other variants carry their own advice.
    #[must_use]
    pub fn and_then_do(self, advice: impl ToString) -> Self {
        self.with(|error| error.and_then_do(advice))
    }

    fn with(self, change: impl FnOnce(base::Error) -> base::Error) -> Self {
        match self {
            Self::Base(error) => Self::Base(change(error)),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_a_kind() {
        let phase = "full".to_string();
        let what = "the loss is NaN".to_string();
        let archs = String::new();
        let diverged = Error::Diverged { step: 3, phase, what, archs, checkpoint: None, next: "" };
        let value = || base::Error::invalid("training", "memory", "1 GB", "2 GB");
        for (error, expected) in [
            (diverged, ErrorKind::NotFinite),
            (Error::NoRoom(value()), ErrorKind::OutOfMemory),
            (value().into(), ErrorKind::Invalid),
            (network::Error::Uncalibrated { name: "bn".to_string() }.into(), ErrorKind::Invalid),
        ] {
            assert_eq!(error.kind(), expected, "{error}");
        }
    }
}
