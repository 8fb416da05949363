//! Exit codes for scripts, decided in one place.

use base::ErrorKind;

use crate::run::Ending;

/// The command line is invalid.
pub const WRONG_USAGE: u8 = 2;

/// Stopped by a signal, with the state saved.
pub const INTERRUPTED: u8 = 130;

const DONE: u8 = 0;
const FAILED: u8 = 1;
const INFEASIBLE: u8 = 3;
const VERIFICATION_FAILED: u8 = 4;

/// The exit code of a command: by its ending, or by the kind of its error.
pub fn exit_code(ended: Result<Ending, ErrorKind>) -> u8 {
    match ended {
        Ok(Ending::Done) => DONE,
        Ok(Ending::Partly) => FAILED,
        Ok(Ending::Interrupted) => INTERRUPTED,
        Err(ErrorKind::Misuse) => WRONG_USAGE,
        Err(ErrorKind::Infeasible) => INFEASIBLE,
        Err(ErrorKind::VerificationFailed) => VERIFICATION_FAILED,
        Err(_) => FAILED,
    }
}

/// The kind of an error of the crates that both command lines use; a tool handles its own errors.
pub fn kind_of(error: &anyhow::Error) -> ErrorKind {
    let of_network = error.downcast_ref().map(network::Error::kind);
    of_network
        .or_else(|| error.downcast_ref().map(base::Error::kind))
        .or_else(|| error.downcast_ref().map(kernels::Error::kind))
        .unwrap_or(ErrorKind::Other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn codes_are_what_scripts_know() {
        for (ended, code) in [
            (Ok(Ending::Done), 0),
            (Ok(Ending::Partly), 1),
            (Ok(Ending::Interrupted), 130),
            (Err(ErrorKind::Misuse), 2),
            (Err(ErrorKind::Infeasible), 3),
            (Err(ErrorKind::VerificationFailed), 4),
            (Err(ErrorKind::NoneFound), 1),
            (Err(ErrorKind::NotFound), 1),
            (Err(ErrorKind::Other), 1),
        ] {
            assert_eq!(exit_code(ended), code, "{ended:?}");
        }
    }

    #[test]
    fn a_kind_is_found_under_its_context() {
        let value = || base::Error::invalid("x", "y", 1, 2);
        let said: anyhow::Result<()> = Err(value()).context("--lr");
        assert_eq!(kind_of(&said.expect_err("an error")), ErrorKind::Invalid);
        assert_eq!(kind_of(&network::Error::from(value()).into()), ErrorKind::Invalid);
        assert_eq!(kind_of(&kernels::Error::from(value()).into()), ErrorKind::Invalid);
        assert_eq!(kind_of(&anyhow::anyhow!("words")), ErrorKind::Other);
    }
}
