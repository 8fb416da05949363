//! Optimizers: the trait, the settings, and one module per optimizer.

mod adamw;
mod nesterov;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use kernels::{AdamWConstants, Backend};
use network::arena::Arena;
use network::checkpoint::{ADAMW, NESTEROV, OptimizerState};
use network::elastic::{Gradients, SharedWeights};
use serde::{Deserialize, Serialize, Serializer};

pub use adamw::AdamW;
pub use nesterov::Nesterov;

use super::recipe::within;
use crate::error::{Error, Result};

/// An optimizer of some weights, with its state for each weight.
pub trait Optimizer: Send {
    /// Name of the optimizer in recipes and checkpoints.
    fn kind(&self) -> &'static str;

    /// The state, by its names in a checkpoint: arenas laid out as the weights.
    fn arenas(&self) -> Vec<(&'static str, &Arena)>;

    /// Number of steps that each weight has taken; empty if the optimizer does not use it.
    fn steps(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Restores a state from [`Optimizer::state`], moved to the backend's device.
    ///
    /// # Errors
    /// If the state is of another optimizer or of other weights, or there is no room for it.
    fn restore(&mut self, state: OptimizerState) -> Result<()>;

    /// The backend that computes.
    fn backend(&self) -> &Backend;

    /// One step on the named weights, whose gradients are zero after it. Other weights stay.
    ///
    /// # Errors
    /// If weights or gradients are not laid out as the optimizer's own.
    fn move_weights(&mut self, weights: &Arena, gradients: &Arena, names: &[&str], lr: f32) -> Result<()>;

    /// One step on every weight that some sub-network used; a weight used in part moves as a whole, unused weights
    /// stay. The gradients are zero after it.
    ///
    /// # Errors
    /// If the gradients are another space's.
    fn step(&mut self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        let touched = gradients.take_touched();
        let names: Vec<&str> = touched.iter().map(String::as_str).collect();
        self.move_weights(weights.arena(), gradients.arena(), &names, lr)
    }

    /// One step on the classifier alone: all other weights stay, and their gradients are reset to zero.
    ///
    /// # Errors
    /// If the gradients are another space's.
    fn step_head(&mut self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        let touched = gradients.take_touched();
        let arena = gradients.arena();
        let layout = arena.layout();
        let (head, rest): (Vec<&str>, Vec<&str>) =
            touched.iter().map(String::as_str).partition(|name| layout.is_of_classes(name));
        for run in layout.runs(rest) {
            self.backend().fill_zero(&arena.run(&run)?)?;
        }
        self.move_weights(weights.arena(), arena, &head, lr)
    }

    /// The state as a checkpoint holds it, on the CPU.
    ///
    /// # Errors
    /// If it cannot be copied from a GPU.
    fn state(&self) -> Result<OptimizerState> {
        let on_cpu =
            |(sort, arena): (&str, &Arena)| Ok((sort.to_string(), arena.on(&Device::Cpu)?.tensors().clone()));
        let tensors = self.arenas().into_iter().map(on_cpu).collect::<Result<_>>()?;
        Ok(OptimizerState { kind: self.kind().to_string(), tensors, steps: self.steps() })
    }

    /// Name of the first weight whose state has a number that is not finite.
    ///
    /// # Errors
    /// If the state cannot be read: a GPU has failed, which says nothing about the numbers.
    fn unsound(&self) -> Result<Option<&str>> {
        for (_, arena) in self.arenas() {
            if let Some(name) = arena.unsound()? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// An arena of these tensors, laid out as `like`, on the backend's device.
fn restored(like: &Arena, tensors: BTreeMap<String, Tensor>, sort: &str, backend: &Backend) -> Result<Arena> {
    Ok(Arena::of(like.layout().clone(), tensors, sort)?.on(&backend.device())?)
}

/// Which optimizer, and its settings other than learning rate and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerSettings {
    /// Stochastic gradient descent with Nesterov's momentum.
    Nesterov {
        /// Share of the velocity kept per step: 0.9 by default (Cai et al. 2020, the authors' code).
        #[serde(default = "momentum")]
        momentum: f32,
    },
    /// AdamW (Loshchilov & Hutter 2019), with the defaults of `torch.optim.AdamW`.
    AdamW {
        /// Share of the first moment kept per step.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Share of the second moment kept per step.
        #[serde(default = "beta2")]
        beta2: f64,
        /// Added to the root of the second moment.
        #[serde(default = "epsilon")]
        epsilon: f64,
    },
}

fn momentum() -> f32 {
    0.9
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn epsilon() -> f64 {
    1e-8
}

impl OptimizerSettings {
    /// A fresh optimizer of these weights.
    ///
    /// # Errors
    /// If there is no room for its state.
    pub fn at_rest(
        &self,
        weights: &Arena,
        weight_decay: f32,
        backend: &Backend,
    ) -> Result<Box<dyn Optimizer>> {
        Ok(match *self {
            Self::Nesterov { momentum } => Box::new(Nesterov::new(weights, momentum, weight_decay, backend)?),
            Self::AdamW { beta1, beta2, epsilon } => {
                let constants = AdamWConstants { beta1, beta2, epsilon };
                Box::new(AdamW::new(weights, constants, weight_decay, backend)?)
            }
        })
    }

    /// Name of the optimizer in recipes and checkpoints.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nesterov { .. } => NESTEROV,
            Self::AdamW { .. } => ADAMW,
        }
    }

    /// Number of state values per weight.
    pub fn values_per_weight(&self) -> u64 {
        match self {
            Self::Nesterov { .. } => 1,
            Self::AdamW { .. } => 2,
        }
    }

    /// Checks that the settings are in range; `place` names the recipe in messages.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        match *self {
            Self::Nesterov { momentum } => within(place, "momentum", f64::from(momentum), [0.0, 0.9999]),
            Self::AdamW { beta1, beta2, epsilon } => {
                within(place, "optimizer.beta1", beta1, [0.0, 0.9999])?;
                within(place, "optimizer.beta2", beta2, [0.0, 0.999_999])?;
                // an f32 above 0: it is the divisor where all gradients of a weight were 0
                within(place, "optimizer.epsilon", epsilon, [1e-30, 1.0])
            }
        }
    }

    /// The settings of a recipe with a field `momentum` or a table `optimizer`; `place` names the recipe in messages.
    ///
    /// # Errors
    /// If it has both or neither.
    pub(super) fn of_recipe(place: &str, momentum: Option<f32>, table: Option<Self>) -> Result<Self> {
        let expected = "a number, or a table [optimizer]";
        match (momentum, table) {
            (Some(momentum), None) => Ok(Self::Nesterov { momentum }),
            (None, Some(table)) => Ok(table),
            (None, None) => Err(Error::invalid(place, "momentum", expected, "neither")),
            (Some(_), Some(_)) => Err(Error::invalid(place, "momentum", expected, "both")
                .and_then_do("leave momentum out, or give it in the table of kind nesterov")),
        }
    }

    /// A recipe's fields `momentum` and `optimizer`: Nesterov's optimizer keeps the field it always had.
    pub(super) fn fields(self) -> (Option<f32>, Option<Self>) {
        match self {
            Self::Nesterov { momentum } => (Some(momentum), None),
            other @ Self::AdamW { .. } => (None, Some(other)),
        }
    }

    /// Serializes the fields for a plan, which so keeps its hash.
    pub(super) fn serialize_fields<S: Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            #[serde(skip_serializing_if = "Option::is_none")]
            momentum: Option<f32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            optimizer: Option<OptimizerSettings>,
        }
        let (momentum, optimizer) = self.fields();
        Fields { momentum, optimizer }.serialize(serializer)
    }
}

#[cfg(test)]
mod tests;
