//! The error of the kernels.

use base::ErrorKind;

/// Result of an operation of the kernels.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A value that the kernels refuse, or an error of the tensor library.
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

// not by `#[from]`, which would make the error its own cause and print it twice
impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Candle(error)
    }
}

impl Error {
    /// The kind of the error. Of the tensor library's errors, a GPU without free memory is [`ErrorKind::OutOfMemory`], any
    /// other failure of a GPU [`ErrorKind::Device`], and a refused operation [`ErrorKind::Other`].
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Base(error) => error.kind(),
            Self::Candle(error) => {
                let text = error.to_string();
                let of_gpu = DEVICE.into_iter().any(|part| text.contains(part));
                match (full(&text), of_gpu) {
                    (Some(_), _) => ErrorKind::OutOfMemory,
                    (None, true) => ErrorKind::Device,
                    (None, false) => ErrorKind::Other,
                }
            }
        }
    }
}

/// Texts by which the errors of a GPU, its driver and its libraries are recognized.
const DEVICE: [&str; 5] = ["the GPU: ", "CUDA_ERROR", "CUBLAS_STATUS", "cuBLAS: ", "NVRTC: "];

/// The code of a GPU without free memory, if the text has one.
fn full(text: &str) -> Option<&'static str> {
    let codes = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];
    codes.into_iter().find(|code| text.contains(code))
}

/// The text of an error, with advice for the one that a user can fix.
fn explained(error: &candle_core::Error) -> String {
    let text = error.to_string();
    match full(&text) {
        Some(code) => format!("the GPU has no room left ({code}); take a smaller batch or resolution"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_gpu_differs_from_a_refused_operation() {
        for (text, expected) in [
            ("the GPU: CUDA_ERROR_OUT_OF_MEMORY: out of memory", ErrorKind::OutOfMemory),
            ("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED", ErrorKind::OutOfMemory),
            ("the GPU: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access", ErrorKind::Device),
            ("shapes differ: [1] and [2]", ErrorKind::Other),
        ] {
            assert_eq!(Error::from(candle_core::Error::msg(text)).kind(), expected, "{text}");
        }
        assert_eq!(
            Error::from(base::Error::invalid("kernels", "name", "one", "x")).kind(),
            ErrorKind::Invalid
        );
    }
}
