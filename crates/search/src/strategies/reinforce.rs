//! REINFORCE (Williams 1992): a [`Controller`] draws a row, and its merit is the reward. The best of all that was drawn is the
//! result, not the policy.

use base::random::rng_for;
use rand_chacha::ChaCha8Rng;

use super::parameters::{Parameter, Parameters};
use super::random::kept;
use crate::error::Result;
use crate::metric::Fidelity;
use crate::policy::{Controller, ControllerSettings, LstmSettings, MOST_HIDDEN, PolicyKind};
use crate::problem::Problem;
use crate::rows::GeneRows;
use crate::solve::{Proof, Scored, Strategy, View};

pub(super) const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "policy",
        default: "independent",
        what: "independent softmaxes, or an lstm that chooses one gene after the other",
    },
    Parameter { name: "lr", default: "0.01", what: "Adam's learning rate; ENAS has 0.001 for its lstm" },
    Parameter {
        name: "momentum",
        default: "0.9",
        what: "of the reward's moving average, which is the baseline; ENAS has 0.99",
    },
    Parameter {
        name: "entropy",
        default: "0",
        what: "weight of the policy's entropy, in units of the reward; ENAS has 0.0001",
    },
    Parameter { name: "batch", default: "1", what: "rows per step of the policy" },
    Parameter { name: "hidden", default: "64", what: "units of the lstm" },
    Parameter { name: "temperature", default: "1", what: "divides the lstm's logits; Zoph and Le have 5" },
    Parameter {
        name: "range",
        default: "1.5",
        what: "of the lstm's logits, squashed by a tanh; Zoph and Le have 2.5",
    },
    Parameter {
        name: "link_share",
        default: "0.4",
        what: "share of links between nodes that the lstm is drawn to",
    },
    Parameter {
        name: "link_weight",
        default: "0",
        what: "weight of the divergence from that share, in units of the reward; ENAS has 0.8",
    },
];

/// The settings that parameters name.
fn settings(parameters: &Parameters) -> Result<ControllerSettings> {
    let hidden = parameters.count("hidden")?;
    if hidden > MOST_HIDDEN {
        return Err(parameters.refused(
            "hidden",
            &format!("at most {MOST_HIDDEN}"),
            parameters.text("hidden"),
        ));
    }
    let momentum = parameters.share("momentum")?;
    if momentum >= 1.0 {
        return Err(parameters.refused("momentum", "a share below 1", parameters.text("momentum")));
    }
    let link_share = parameters.share("link_share")?;
    if link_share == 0.0 || link_share == 1.0 {
        let expected = "a share between 0 and 1";
        return Err(parameters.refused("link_share", expected, parameters.text("link_share")));
    }
    Ok(ControllerSettings {
        policy: match parameters.word("policy", &["independent", "lstm"])? {
            "lstm" => PolicyKind::Lstm,
            _ => PolicyKind::Independent,
        },
        lr: parameters.positive("lr")?,
        momentum,
        entropy: parameters.weight("entropy")?,
        lstm: LstmSettings {
            hidden,
            temperature: parameters.positive("temperature")?,
            range: parameters.positive("range")?,
            link_share,
            link_weight: parameters.weight("link_weight")?,
        },
    })
}

/// The strategy of this module.
pub struct Reinforce<'a> {
    problem: &'a Problem<'a>,
    rng: ChaCha8Rng,
    batch: usize,
    controller: Controller,
    /// The lowest merit of a row that keeps the limits.
    worst: f64,
}

impl<'a> Reinforce<'a> {
    pub(super) fn from_parameters(problem: &'a Problem<'a>, parameters: &Parameters) -> Result<Self> {
        let settings = settings(parameters)?;
        let mut rng = rng_for("reinforce strategy", problem.seed, &[]);
        let controller = Controller::new(problem.genome(), settings, &mut rng);
        let batch = parameters.count("batch")?;
        Ok(Self { problem, rng, batch, controller, worst: f64::INFINITY })
    }

    /// A row's reward: its merit, or for one that breaks a limit less than the worst merit so far, by the violation. `None`
    /// for one that could not be evaluated before any other was.
    fn reward(&mut self, scored: &Scored<'_>, row: usize) -> Option<f64> {
        let merit = scored.merits(row)[0];
        let violation = scored.violation(row);
        if violation == f64::INFINITY {
            return self.worst.is_finite().then(|| rewarded(self.worst, 1.0, self.worst));
        }
        if violation == 0.0 {
            self.worst = self.worst.min(merit);
        }
        Some(rewarded(merit, violation, self.worst))
    }
}

/// The reward of a merit with a violation, below the worst merit of rows that keep the limits.
fn rewarded(merit: f64, violation: f64, worst: f64) -> f64 {
    if violation == 0.0 {
        return merit;
    }
    let base = worst.min(merit);
    base - violation * base.abs().max(f64::MIN_POSITIVE)
}

impl Strategy for Reinforce<'_> {
    fn ask(&mut self, _view: &View<'_>, rows: &mut GeneRows) -> Result<Fidelity> {
        let Self { problem, rng, controller, batch, .. } = self;
        for _ in 0..*batch {
            rows.push(&kept(problem, rng, |rng| controller.draw(problem.genome(), rng)));
        }
        Ok(Fidelity::FULL)
    }

    fn tell(&mut self, _view: &View<'_>, scored: &Scored<'_>) -> Result<()> {
        let mut rewarded = Vec::with_capacity(scored.rows.len());
        for (at, row) in scored.rows.iter().enumerate() {
            rewarded.extend(self.reward(scored, at).map(|reward| (row, reward)));
        }
        self.controller.learn(self.problem.genome(), rewarded);
        Ok(())
    }

    fn finished(&self) -> Option<Proof> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_limit_is_rewarded_less_than_what_keeps_it() {
        assert_eq!(rewarded(0.5, 0.0, -0.8), 0.5);
        for (merit, worst) in [(0.5, -0.8), (0.9, 0.6), (-3.0, -2.0), (0.4, f64::INFINITY)] {
            let [little, much] = [0.1, 1.0].map(|violation| rewarded(merit, violation, worst));
            assert!(much < little && little < worst.min(merit), "{merit} {worst}: {little} {much}");
        }
    }
}
