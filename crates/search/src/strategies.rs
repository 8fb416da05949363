//! Search strategies, each behind [`Strategy`], by name.

pub mod climbers;
pub mod evolution;
pub mod exact;
pub mod gradient;
pub mod halving;
pub mod local;
pub mod nsga2;
pub mod parameters;
pub mod portfolio;
pub mod random;
pub mod reinforce;
mod standing;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::problem::Problem;
use crate::solve::Strategy;
use parameters::{Parameter, Parameters};

/// A kind of strategy.
#[derive(Clone, Copy, Debug)]
pub struct StrategyKind {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub what: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

/// All strategies, by name.
pub const STRATEGIES: &[StrategyKind] = &[
    StrategyKind {
        name: "climbers",
        what: "chains of random steps and climbs with many candidates, for estimates that cost nothing",
        parameters: climbers::PARAMETERS,
    },
    StrategyKind {
        name: "evolution",
        what: "regularized evolution, or the generations of Once-for-All",
        parameters: evolution::PARAMETERS,
    },
    StrategyKind {
        name: "exact",
        what: "branch and bound: proves the best, and visits everything that bounds do not rule out",
        parameters: exact::PARAMETERS,
    },
    StrategyKind {
        name: "gradient",
        what: "distributions over values that follow the derivatives of a predictor and of the costs",
        parameters: gradient::PARAMETERS,
    },
    StrategyKind {
        name: "halving",
        what: "asynchronous successive halving around another strategy",
        parameters: halving::PARAMETERS,
    },
    StrategyKind {
        name: "local",
        what: "to a better neighbor until there is none, then from another start",
        parameters: local::PARAMETERS,
    },
    StrategyKind {
        name: "nsga2",
        what: "NSGA-II, for the front of several goals",
        parameters: nsga2::PARAMETERS,
    },
    StrategyKind {
        name: "portfolio",
        what: "evolution and local search in turns on one archive, for estimates that cost much",
        parameters: portfolio::PARAMETERS,
    },
    StrategyKind { name: "random", what: "random rows, the baseline", parameters: random::PARAMETERS },
    StrategyKind {
        name: "reinforce",
        what: "a policy that learns which values are rewarded: softmaxes, or an LSTM controller",
        parameters: reinforce::PARAMETERS,
    },
];

impl StrategyKind {
    /// The strategy of a name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn named(name: &str) -> Result<Self> {
        STRATEGIES.iter().find(|kind| kind.name == name).copied().ok_or_else(|| {
            let names: Vec<&str> = STRATEGIES.iter().map(|kind| kind.name).collect();
            base::Error::invalid("search", "strategy", format!("one of {}", names.join(", ")), name).into()
        })
    }

    /// The strategy for a problem, with some parameters given and others at their defaults.
    ///
    /// # Errors
    /// If a parameter is unknown or refused, or the strategy does not fit the problem.
    pub fn start<'a>(
        &self,
        problem: &'a Problem<'a>,
        given: &BTreeMap<String, String>,
    ) -> Result<Box<dyn Strategy + 'a>> {
        if self.name == "halving" {
            return halving_around(self, problem, given);
        }
        let parameters = &Parameters::new(self.name, self.parameters, given)?;
        Ok(match self.name {
            "climbers" => Box::new(climbers::Climbers::from_parameters(problem, parameters)?),
            "evolution" => Box::new(evolution::Evolution::from_parameters(problem, parameters)?),
            "exact" => Box::new(exact::Exact::from_parameters(problem, parameters)?),
            "gradient" => Box::new(gradient::Gradient::from_parameters(problem, parameters)?),
            "local" => Box::new(local::Local::from_parameters(problem, parameters)?),
            "nsga2" => Box::new(nsga2::Nsga2::from_parameters(problem, parameters)?),
            "portfolio" => Box::new(portfolio::Portfolio::from_parameters(problem, parameters)?),
            "reinforce" => Box::new(reinforce::Reinforce::from_parameters(problem, parameters)?),
            _ => Box::new(random::Random::from_parameters(problem, parameters)?),
        })
    }
}

/// Halving, and the strategy that it is around; parameters of that one begin with its name and a point.
fn halving_around<'a>(
    kind: &StrategyKind,
    problem: &'a Problem<'a>,
    given: &BTreeMap<String, String>,
) -> Result<Box<dyn Strategy + 'a>> {
    let (of_inner, own): (BTreeMap<_, _>, BTreeMap<_, _>) =
        given.clone().into_iter().partition(|(name, _)| name.contains('.'));
    let parameters = Parameters::new(kind.name, kind.parameters, &own)?;
    if !problem.has_fidelities() {
        let expected = "one that evaluates at lower fidelities";
        return Err(base::Error::invalid("strategy halving", "estimator", expected, "none").into());
    }
    let inner = StrategyKind::named(parameters.text("of"))?;
    if ["halving", "climbers", "gradient"].contains(&inner.name) {
        let expected = "a strategy that needs no full evaluations of its own";
        return Err(parameters.refused("of", expected, inner.name));
    }
    let mut inner_given = BTreeMap::new();
    for (name, value) in of_inner {
        match name.split_once('.') {
            Some((of, parameter)) if of == inner.name => {
                inner_given.insert(parameter.to_string(), value);
            }
            _ => return Err(parameters.refused(&name, &format!("a parameter of {}", inner.name), &value)),
        }
    }
    Ok(Box::new(halving::Halving::new(inner.start(problem, &inner_given)?, &parameters)?))
}

#[cfg(test)]
mod tests;
