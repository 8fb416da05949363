//! The controller of a recipe: a policy that draws the sub-networks of steps, and learns from what they score on validation
//! images (Pham et al. 2018, ENAS).

use base::random::rng_for;
use network::checkpoint::{OptimizerState, POLICY};
use rand_chacha::ChaCha8Rng;
use search::policy::{
    Controller, ControllerSettings, ControllerState, LstmSettings, MOST_HIDDEN, PolicyKind,
};
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace};

use super::cost_axis::CostKind;
use super::policy_state::{Lists, count_of, parts_of, put};
use super::recipe::within;
use crate::error::{Error, Result};

/// Most updates of a lesson, samples of an update, and candidates.
const MOST: f64 = 1e5;

/// Settings of a recipe's controller. Defaults are those of ENAS's macro space, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerRecipe {
    /// The form of the policy.
    pub policy: PolicyKind,
    /// Passes over the training images between two lessons.
    pub every_epochs: f64,
    /// Updates of the policy in a lesson.
    pub updates: usize,
    /// Sub-networks of an update; all see the same validation images, as many as a step has.
    pub samples: usize,
    /// Adam's learning rate.
    pub lr: f64,
    /// Momentum of the reward's moving average, the baseline.
    pub momentum: f64,
    /// Weight of the policy's entropy, in units of the reward.
    pub entropy: f64,
    /// Units of an LSTM.
    pub hidden: usize,
    /// Logits of an LSTM are divided by it.
    pub temperature: f64,
    /// Then they are squashed to this range by a tanh.
    pub range: f64,
    /// Share of links between nodes that an LSTM is drawn to.
    pub link_share: f64,
    /// Weight of the divergence from that share.
    pub link_weight: f64,
    /// Sub-networks that are drawn at the end, of which the one with the highest reward is derived.
    pub candidates: usize,
    /// Validation images that these are scored on, in whole minibatches.
    pub images: usize,
    /// A cost that counts in the reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<RewardCost>,
}

/// A cost in a reward: accuracy * (cost / limit)^exponent (Tan et al. 2019, MnasNet).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardCost {
    /// The cost.
    pub by: CostKind,
    /// The cost that leaves an accuracy as it is: multiply-accumulates, or microseconds.
    pub limit: f64,
    /// The exponent, below 0; MnasNet has -0.07.
    pub exponent: f64,
}

impl Default for ControllerRecipe {
    fn default() -> Self {
        Self {
            policy: PolicyKind::Lstm,
            every_epochs: 1.0,
            updates: 50,
            samples: 20,
            lr: 0.001,
            momentum: 0.99,
            entropy: 0.0001,
            hidden: 64,
            temperature: 1.0,
            range: 1.5,
            link_share: 0.4,
            link_weight: 0.8,
            candidates: 100,
            images: 1000,
            cost: None,
        }
    }
}

impl ControllerRecipe {
    /// Checks the fields; `place` names the recipe in messages.
    ///
    /// # Errors
    /// If one is out of range.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let field = |name: &str| format!("controller.{name}");
        let counts = [
            ("updates", self.updates),
            ("samples", self.samples),
            ("candidates", self.candidates),
            ("images", self.images),
        ];
        for (name, count) in counts {
            within(place, &field(name), count as f64, [1.0, MOST])?;
        }
        within(place, &field("every_epochs"), self.every_epochs, [1e-6, 1e6])?;
        within(place, &field("lr"), self.lr, [1e-12, 10.0])?;
        within(place, &field("momentum"), self.momentum, [0.0, 0.999_999])?;
        within(place, &field("entropy"), self.entropy, [0.0, 1e3])?;
        within(place, &field("hidden"), self.hidden as f64, [1.0, MOST_HIDDEN as f64])?;
        within(place, &field("temperature"), self.temperature, [1e-3, 1e3])?;
        within(place, &field("range"), self.range, [1e-3, 1e3])?;
        within(place, &field("link_share"), self.link_share, [0.001, 0.999])?;
        within(place, &field("link_weight"), self.link_weight, [0.0, 1e3])?;
        if let Some(RewardCost { limit, exponent, .. }) = self.cost {
            within(place, &field("cost.limit"), limit, [1e-9, 1e18])?;
            within(place, &field("cost.exponent"), exponent, [-10.0, 0.0])?;
        }
        Ok(())
    }

    fn settings(&self) -> ControllerSettings {
        let Self { policy, lr, momentum, entropy, hidden, temperature, range, .. } = *self;
        let Self { link_share, link_weight, .. } = *self;
        let lstm = LstmSettings { hidden, temperature, range, link_share, link_weight };
        ControllerSettings { policy, lr, momentum, entropy, lstm }
    }

    /// The reward of an accuracy at a cost, which is asked for where it counts.
    ///
    /// # Errors
    /// If the cost is unknown.
    pub(super) fn reward(&self, accuracy: f64, cost: impl FnOnce() -> Result<f64>) -> Result<f64> {
        match self.cost {
            Some(RewardCost { limit, exponent, .. }) => Ok(accuracy * (cost()? / limit).powf(exponent)),
            None => Ok(accuracy),
        }
    }
}

/// A controller between two lessons.
#[derive(Clone, Debug)]
pub(super) struct Pupil {
    pub recipe: ControllerRecipe,
    pub controller: Controller,
    /// Lessons so far.
    pub lessons: u64,
}

impl Pupil {
    /// A fresh one.
    pub fn new(recipe: ControllerRecipe, space: &SearchSpace, seed: u64) -> Self {
        let mut rng = rng_for("controller", seed, &[]);
        let controller = Controller::new(space.genome(), recipe.settings(), &mut rng);
        Self { recipe, controller, lessons: 0 }
    }

    /// Draws a sub-network.
    pub fn draw(&self, space: &SearchSpace, rng: &mut ChaCha8Rng) -> Arch {
        space.arch(&self.controller.draw(space.genome(), rng))
    }

    /// Adds its state to that which a checkpoint holds.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn add_to(&self, state: &mut OptimizerState) -> Result<()> {
        let ControllerState { values, means, squares, steps, baseline: [sum, weight] } =
            self.controller.state();
        let mut counts = [u64::from(steps), self.lessons].map(parts_of).concat();
        counts.extend([sum, weight]);
        put(state, [("values", values), ("means", means), ("squares", squares), ("counts", counts)])
    }

    /// The controller as a checkpoint's state holds it, taken out of that.
    ///
    /// # Errors
    /// If the state has none, or another's.
    pub fn restored(self, state: &mut OptimizerState) -> Result<Self> {
        let place = "checkpoint";
        let mut lists = Lists::take(state).ok_or_else(|| {
            Error::invalid(place, "controller", "the state of one", "none")
                .and_then_do("resume with the recipe that the run was started with")
        })?;
        let mut list = |name: &str| {
            let none = || Error::invalid(place, format!("{POLICY}.{name}"), "a tensor", "none");
            lists.list(name)?.ok_or_else(none)
        };
        let [values, means, squares] = [list("values")?, list("means")?, list("squares")?];
        let counts = list("counts")?;
        let [steps_high, steps_low, lessons_high, lessons_low, sum, weight] = counts[..] else {
            return Err(Error::invalid(place, format!("{POLICY}.counts"), "6 numbers", counts.len()));
        };
        let steps = count_of([steps_high, steps_low], "steps")?;
        let lessons = count_of([lessons_high, lessons_low], "lessons")?;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let state = ControllerState { values, means, squares, steps, baseline: [sum, weight] };
        let controller = self.controller.restored(state, place)?;
        Ok(Self { controller, lessons, ..self })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use space::preset;

    #[test]
    fn a_cost_at_its_limit_leaves_the_accuracy() {
        let cost = Some(RewardCost { by: CostKind::Macs, limit: 100.0, exponent: -0.5 });
        let recipe = ControllerRecipe { cost, ..ControllerRecipe::default() };
        for (macs, reward) in [(100.0, 0.8), (400.0, 0.4), (25.0, 1.6)] {
            assert_eq!(recipe.reward(0.8, || Ok(macs)).expect("known"), reward);
        }
        let without = ControllerRecipe::default();
        assert_eq!(without.reward(0.8, || unreachable!()).expect("not asked for"), 0.8);
    }

    #[test]
    fn a_state_is_restored_and_that_of_another_is_refused() {
        let space = preset("tiny-macro").expect("a preset");
        let recipe = ControllerRecipe { hidden: 4, ..ControllerRecipe::default() };
        let mut pupil = Pupil::new(recipe, &space, 1);
        let mut rng = rng_for("test", 1, &[]);
        let row = pupil.controller.draw(space.genome(), &mut rng);
        pupil.controller.learn(space.genome(), [(row.as_slice(), 0.7)]);
        pupil.lessons = (3 << 20) + 5;
        let empty =
            || OptimizerState { kind: "nesterov".into(), tensors: BTreeMap::new(), steps: BTreeMap::new() };
        let mut state = empty();
        pupil.add_to(&mut state).expect("tensors");
        let other = Pupil::new(recipe, &space, 2).restored(&mut state.clone()).expect("its own");
        assert_eq!((other.controller.state(), other.lessons), (pupil.controller.state(), pupil.lessons));
        let error = Pupil::new(recipe, &space, 1).restored(&mut empty()).expect_err("none").to_string();
        assert!(error.contains("controller: expected the state of one, got none"), "{error}");
        let wider = ControllerRecipe { hidden: 5, ..recipe };
        let error = Pupil::new(wider, &space, 1).restored(&mut state).expect_err("another").to_string();
        assert!(error.contains("controller.values: expected ") && error.contains("numbers"), "{error}");
    }
}
