//! What moves the weights by their gradients: a trait, and a module for each optimizer.

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

/// An optimizer of some weights, with what it remembers of each.
pub trait Optimizer: Send {
    /// What recipes and checkpoints call it.
    fn kind(&self) -> &'static str;

    /// What it remembers, by what a checkpoint calls it: arenas laid out as the weights.
    fn arenas(&self) -> Vec<(&'static str, &Arena)>;

    /// How many steps each weight has taken; empty where that decides nothing.
    fn steps(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Takes up a state that [`Optimizer::state`] gave, moved to where the kernels compute.
    ///
    /// # Errors
    /// If it is another optimizer's or of other weights, or there is no room for it.
    fn restore(&mut self, state: OptimizerState) -> Result<()>;

    /// What computes.
    fn backend(&self) -> &Backend;

    /// One step on weights by name, each with its gradient, which is zero after it. Other weights rest.
    ///
    /// # Errors
    /// If weights or gradients are not laid out as the optimizer's own.
    fn move_weights(&mut self, weights: &Arena, gradients: &Arena, names: &[&str], lr: f32) -> Result<()>;

    /// One step on every weight that some sub-network used; one used in part moves as a whole, the others rest. The
    /// gradients are zero after it.
    ///
    /// # Errors
    /// If the gradients are another space's.
    fn step(&mut self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        let touched = gradients.take_touched();
        let names: Vec<&str> = touched.iter().map(String::as_str).collect();
        self.move_weights(weights.arena(), gradients.arena(), &names, lr)
    }

    /// One step on the classifier alone: all else rests, and its gradients are set back to zero.
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

    /// Name of the first weight of which it remembers a number that is not finite.
    ///
    /// # Errors
    /// If the state cannot be read: a GPU has failed, which says nothing of the numbers.
    fn unsound(&self) -> Result<Option<&str>> {
        for (_, arena) in self.arenas() {
            if let Some(name) = arena.unsound()? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// An arena of these tensors, laid out as `like`, where the kernels compute.
fn restored(like: &Arena, tensors: BTreeMap<String, Tensor>, sort: &str, backend: &Backend) -> Result<Arena> {
    Ok(Arena::of(like.layout().clone(), tensors, sort)?.on(&backend.device())?)
}

/// Which optimizer, and what it is given beside learning rate and weight decay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimizerSettings {
    /// Stochastic gradient descent with Nesterov's momentum.
    Nesterov {
        /// Share of the velocity that stays in a step: 0.9 unless said (Cai et al. 2020, the authors' code).
        #[serde(default = "momentum")]
        momentum: f32,
    },
    /// AdamW (Loshchilov & Hutter 2019), with the defaults of `torch.optim.AdamW`.
    AdamW {
        /// Share that the first moment keeps in a step.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Share that the second moment keeps in a step.
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
    /// The optimizer of these weights, at rest.
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

    /// What recipes and checkpoints call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nesterov { .. } => NESTEROV,
            Self::AdamW { .. } => ADAMW,
        }
    }

    /// How many values it remembers of each weight.
    pub fn values_per_weight(&self) -> u64 {
        match self {
            Self::Nesterov { .. } => 1,
            Self::AdamW { .. } => 2,
        }
    }

    /// Whether they are in range; `place` names the recipe in messages.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        match *self {
            Self::Nesterov { momentum } => within(place, "momentum", f64::from(momentum), [0.0, 0.9999]),
            Self::AdamW { beta1, beta2, epsilon } => {
                within(place, "optimizer.beta1", beta1, [0.0, 0.9999])?;
                within(place, "optimizer.beta2", beta2, [0.0, 0.999_999])?;
                // an f32 above 0: where all gradients of a weight were 0 it is what is divided by
                within(place, "optimizer.epsilon", epsilon, [1e-30, 1.0])
            }
        }
    }

    /// The settings of a recipe that says a momentum, or has a table `optimizer`; `place` names it in messages.
    ///
    /// # Errors
    /// If it says both or neither.
    pub(super) fn of_recipe(place: &str, momentum: Option<f32>, table: Option<Self>) -> Result<Self> {
        let expected = "a number, or a table [optimizer]";
        match (momentum, table) {
            (Some(momentum), None) => Ok(Self::Nesterov { momentum }),
            (None, Some(table)) => Ok(table),
            (None, None) => Err(Error::invalid(place, "momentum", expected, "neither")),
            (Some(_), Some(_)) => Err(Error::invalid(place, "momentum", expected, "both")
                .and_then_do("leave momentum out, or say it in the table of kind nesterov")),
        }
    }

    /// What recipes say in the fields `momentum` and `optimizer`: of Nesterov's optimizer what they always did.
    pub(super) fn fields(self) -> (Option<f32>, Option<Self>) {
        match self {
            Self::Nesterov { momentum } => (Some(momentum), None),
            other @ Self::AdamW { .. } => (None, Some(other)),
        }
    }

    /// Those fields, for a plan, which keeps its hash.
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
