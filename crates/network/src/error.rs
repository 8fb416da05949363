//! Errors of networks and their files: a file or a value, numbers that are not finite, or the kernels.

use std::path::Path;

use base::ErrorKind;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error in reading, computing or evaluating a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or a value.
    #[error(transparent)]
    Base(#[from] base::Error),
    /// A network's numbers have left the range of f32, so that it has no accuracy.
    #[error(
        "{place}: {field}: expected finite numbers, got {got}; the network has no accuracy, for its weights or statistics are \
         too large; train it again with a lower learning rate, or get the file again"
    )]
    NoAccuracy {
        /// The network.
        place: String,
        /// Name of the number.
        field: String,
        /// The first that is not finite.
        got: f32,
    },
    /// An inference pass met a batch normalization without running statistics.
    #[error("{name}: no running statistics for this sub-network; calibrate it first")]
    Uncalibrated {
        /// The batch normalization's name.
        name: String,
    },
    /// The kernels or the tensor library refused an operation.
    #[error(transparent)]
    Kernels(kernels::Error),
}

impl From<kernels::Error> for Error {
    fn from(error: kernels::Error) -> Self {
        match error {
            kernels::Error::Base(error) => Self::Base(error),
            other => Self::Kernels(other),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Kernels(error.into())
    }
}

impl Error {
    /// Kind of the error: [`Error::NoAccuracy`] is [`ErrorKind::NotFinite`], [`Error::Uncalibrated`] is
    /// [`ErrorKind::Invalid`], the others have the kind of the error that they hold.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Base(error) => error.kind(),
            Self::NoAccuracy { .. } => ErrorKind::NotFinite,
            Self::Uncalibrated { .. } => ErrorKind::Invalid,
            Self::Kernels(error) => error.kind(),
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

    /// [`base::Error::in_place`]; of an [`Error::NoAccuracy`] which network it is of, before the place that it names itself.
    #[must_use]
    pub fn in_place(mut self, outer: impl std::fmt::Display) -> Self {
        if let Self::NoAccuracy { place, .. } = &mut self {
            *place = format!("{outer}: {place}");
        }
        self.with(|error| error.in_place(outer))
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
        let exploded = Error::NoAccuracy { place: "network".into(), field: "logits".into(), got: f32::NAN };
        for (error, expected) in [
            (Error::io("read", Path::new("x"))(std::io::ErrorKind::NotFound.into()), ErrorKind::NotFound),
            (exploded.in_place("arch"), ErrorKind::NotFinite),
            (Error::Uncalibrated { name: "bn".into() }, ErrorKind::Invalid),
            (candle_core::Error::msg("the GPU: CUDA_ERROR_OUT_OF_MEMORY").into(), ErrorKind::OutOfMemory),
        ] {
            assert_eq!(error.kind(), expected, "{error}");
        }
    }
}
