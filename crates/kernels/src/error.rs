//! What can go wrong where numbers are computed.

/// Result of what is done with kernels.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the kernels refuse, or the tensor library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value breaks a promise.
    #[error(transparent)]
    Base(#[from] base::Error),
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
