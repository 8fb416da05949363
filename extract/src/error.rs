//! The one error type of the crate: what its own steps can meet, around what networks and their files can.

use std::path::PathBuf;

use serde::Serialize;
use space::Arch;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in measuring, estimating, searching and exporting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a value or a tensor operation; see the networks' own error type.
    #[error(transparent)]
    Network(Box<network::Error>),
    /// One limit alone rules out every sub-network of the space.
    #[error(
        "no sub-network keeps {} within {limit}: the least there is is {} ({}); ask for at least that",
        .nearest.quantity, .nearest.text, .nearest.arch
    )]
    Infeasible {
        /// The limit as it was asked for, with its unit.
        limit: String,
        /// The least value that any sub-network has.
        nearest: Box<Nearest>,
    },
    /// Each limit can be kept by some sub-network, but it is proved that none keeps all of them.
    #[error(
        "no sub-network keeps {limits} together, though each can be kept alone: as shares of the limits, {weights} would be at most 1, and is at least {factor:.4}; with all limits {} there is {}; ask for that, or relax one",
        .nearest.text, .nearest.arch
    )]
    InfeasibleTogether {
        /// The limits, with their units.
        limits: String,
        /// The weighted sum of the costs that proves it.
        weights: String,
        /// The least that the sum is.
        factor: f64,
        /// What the limits have to be multiplied by for a sub-network that was met; there may be one for which less is
        /// enough.
        nearest: Box<Nearest>,
    },
    /// Each limit can be kept by some sub-network, but none was found that keeps all of them.
    #[error(
        "no sub-network found that keeps {limits} together, though each can be kept alone; the closest is {closest} with {got}; relax one of them"
    )]
    NotFound {
        /// The limits, with their units.
        limits: String,
        /// The sub-network that breaks them least.
        closest: Box<Arch>,
        /// Its values of the limited quantities.
        got: String,
    },
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
        /// Its expected accuracy.
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
        /// What was compared.
        what: String,
        /// The supernet's value.
        expected: String,
        /// The export's value.
        got: String,
    },
}

/// The least value of a limited quantity, and a sub-network that has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Nearest {
    /// The quantity's name, such as `latency`.
    pub quantity: String,
    /// Its least value: microseconds, multiply-accumulates, parameters or bytes; of limits together, the factor of all.
    pub value: f64,
    /// The value with its unit, rounded up so that it is feasible as a limit.
    pub text: String,
    /// A sub-network that has it.
    pub arch: Arch,
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
