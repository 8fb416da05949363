//! The crate's error type: the errors of its own steps, and those of networks and their files.

use std::path::PathBuf;

use base::ErrorKind;
use space::Arch;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The errors of measuring, estimating, searching and exporting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a value or a tensor operation; see the networks' own error type.
    #[error(transparent)]
    Network(Box<network::Error>),
    /// An error of a search.
    #[error(transparent)]
    Search(search::Error),
    /// No sub-network was found whose accuracy reaches a limit for certain.
    #[error(
        "no sub-network found whose accuracy is at least {:.2} % at the lower end of its 95 % interval: the closest is {closest} with {:.2} to {:.2} %, {:.2} % expected; ask for less, relax the other limits, or train longer",
        100.0 * .least, 100.0 * .low, 100.0 * .high, 100.0 * .accuracy
    )]
    NotAccurate {
        /// The least accuracy, as a share.
        least: f64,
        /// The sub-network whose interval's lower end is highest.
        closest: Box<Arch>,
        /// The closest sub-network's expected accuracy.
        accuracy: f64,
        /// Lower end of the interval.
        low: f64,
        /// Upper end of the interval.
        high: f64,
    },
    /// An exported network does not compute what the supernet's sub-network computes.
    #[error("{path}: {what}: expected {expected}, got {got}")]
    VerificationFailed {
        /// The exported folder.
        path: PathBuf,
        /// The compared value's name.
        what: String,
        /// The supernet's value.
        expected: String,
        /// The export's value.
        got: String,
    },
}

impl Error {
    /// The kind of error: [`Error::NotAccurate`] is [`ErrorKind::NoneFound`], [`Error::VerificationFailed`] is the kind
    /// of its name, the others are of the kind of what they hold.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Network(error) => error.kind(),
            Self::Search(error) => error.kind(),
            Self::NotAccurate { .. } => ErrorKind::NoneFound,
            Self::VerificationFailed { .. } => ErrorKind::VerificationFailed,
        }
    }
}

impl From<search::Error> for Error {
    fn from(error: search::Error) -> Self {
        match error {
            search::Error::Base(error) => error.into(),
            // an estimator's error is one of these, or of what they wrap
            search::Error::Objective(error) => match error.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Search(search::Error::Objective(other)),
            },
            other => Self::Search(other),
        }
    }
}

impl From<network::Error> for Error {
    fn from(error: network::Error) -> Self {
        Self::Network(Box::new(error))
    }
}

impl From<base::Error> for Error {
    fn from(error: base::Error) -> Self {
        network::Error::from(error).into()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Error {
        let [what, expected, got] = ["weights", "1", "2"].map(str::to_string);
        Error::VerificationFailed { path: PathBuf::from("model"), what, expected, got }
    }

    #[test]
    fn each_error_has_a_kind() {
        let arch = space::sampler::smallest(&space::preset("tiny").expect("a preset"));
        let limits = String::new();
        let closest = Box::new(arch);
        let got = String::new();
        let accurate =
            Error::NotAccurate { least: 0.9, closest: closest.clone(), accuracy: 0.8, low: 0.7, high: 0.9 };
        for (error, expected) in [
            (failed(), ErrorKind::VerificationFailed),
            (search::Error::Objective(Box::new(failed())).into(), ErrorKind::VerificationFailed),
            (search::Error::NotFound { limits, closest, got }.into(), ErrorKind::NoneFound),
            (accurate, ErrorKind::NoneFound),
            (base::Error::invalid("x", "y", 1, 2).into(), ErrorKind::Invalid),
        ] {
            assert_eq!(error.kind(), expected, "{error}");
        }
    }
}
