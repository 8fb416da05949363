//! Errors of a search: refused problems, and limits that no sub-network keeps.

use base::ErrorKind;
use serde::Serialize;
use space::Arch;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a search.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value is invalid.
    #[error(transparent)]
    Base(#[from] base::Error),
    /// An error of an objective.
    #[error(transparent)]
    Objective(Box<dyn std::error::Error + Send + Sync>),
    /// The strategy follows derivatives, and the estimator has none.
    #[error(
        "strategy {strategy}: expected an estimator with derivatives for the goal, got {got}; give a fitted or imported estimator with a perceptron or a linear model, or another strategy"
    )]
    NotRelaxed {
        /// The strategy's name.
        strategy: &'static str,
        /// What the estimator is.
        got: String,
    },
    /// One limit alone rules out every sub-network of the space.
    #[error(
        "no sub-network keeps {} within {limit}: the lowest in this space is {} ({}); raise the limit at least to that",
        .nearest.quantity, .nearest.text, .nearest.arch
    )]
    Infeasible {
        /// The limit as the user wrote it, with its unit.
        limit: String,
        /// The least value that any sub-network has.
        nearest: Box<Nearest>,
    },
    /// Each limit can be kept by some sub-network, but provably none keeps all of them.
    #[error(
        "no sub-network keeps {limits} together, though each can be kept alone: as shares of the limits, {weights} would have to be at most 1, but is at least {factor:.4}; {} keeps limits {}; raise all limits to that, or relax one",
        .nearest.arch, .nearest.text
    )]
    InfeasibleTogether {
        /// The limits, with their units.
        limits: String,
        /// The weighted sum of the costs that proves it.
        weights: String,
        /// The least value of the sum.
        factor: f64,
        /// The factor for all limits with which a known sub-network keeps them; a lower one may suffice for another.
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
    /// Of the sub-networks that were evaluated, none has values that keep all limits.
    #[error(
        "none of {count} evaluated sub-networks has values that keep the limits{}; relax a limit, evaluate more, or look at why evaluations fail",
        within(.limits)
    )]
    NoneEvaluated {
        /// Their number.
        count: usize,
        /// The limits; may be empty.
        limits: String,
    },
}

fn within(limits: &str) -> String {
    if limits.is_empty() { String::new() } else { format!(" ({limits})") }
}

impl Error {
    /// The kind of error: a proof that no sub-network exists is [`ErrorKind::Infeasible`], a search that found none is
    /// [`ErrorKind::NoneFound`]. An objective's error has its own kind if it is of this crate or of `base`, else
    /// [`ErrorKind::Other`].
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Base(error) => error.kind(),
            Self::Objective(error) => {
                let own = error.downcast_ref::<Self>().map(Self::kind);
                own.or_else(|| error.downcast_ref::<base::Error>().map(base::Error::kind))
                    .unwrap_or(ErrorKind::Other)
            }
            Self::NotRelaxed { .. } => ErrorKind::Misuse,
            Self::Infeasible { .. } | Self::InfeasibleTogether { .. } => ErrorKind::Infeasible,
            Self::NotFound { .. } | Self::NoneEvaluated { .. } => ErrorKind::NoneFound,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proved_is_told_from_what_was_not_found() {
        let arch = space::sampler::smallest(&space::preset("tiny").expect("a preset"));
        let limits = String::new();
        let closest = Box::new(arch.clone());
        let got = String::new();
        let nearest = Nearest { quantity: "latency".into(), value: 1.0, text: "1us".into(), arch };
        let infeasible = Error::Infeasible { limit: "0.5us".into(), nearest: Box::new(nearest) };
        let of_objective = Error::Objective(Box::new(base::Error::invalid("x", "y", 1, 2)));
        for (error, expected) in [
            (infeasible, ErrorKind::Infeasible),
            (Error::NotFound { limits, closest, got }, ErrorKind::NoneFound),
            (Error::NoneEvaluated { count: 3, limits: String::new() }, ErrorKind::NoneFound),
            (Error::NotRelaxed { strategy: "gradient", got: String::new() }, ErrorKind::Misuse),
            (of_objective, ErrorKind::Invalid),
            (Error::Objective("a word".into()), ErrorKind::Other),
        ] {
            assert_eq!(error.kind(), expected, "{error}");
        }
    }
}
