//! AdamW: steps by the first moment of the gradients over the root of the second, with decoupled weight decay.
//!
//! Moments begin at zero, and the bias correction counts the steps of each weight, not of the run: a weight that no
//! sub-network of a step used is skipped, as in PyTorch a parameter whose `grad` is `None`. If the run's steps were
//! counted, a weight first used late in a phase would begin with steps many times too small.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;
use kernels::{AdamWConstants, AdamWParameter, Backend};
use network::arena::Arena;
use network::checkpoint::{ADAMW, OptimizerState};

use super::{Optimizer, restored};
use crate::error::{Error, Result};

/// Names of the moments in a checkpoint.
const FIRST: &str = "first_moment";
const SECOND: &str = "second_moment";

/// AdamW (Loshchilov & Hutter 2019) as `torch.optim.AdamW`: two moments and a number of steps for each weight.
pub struct AdamW {
    first: Arena,
    second: Arena,
    steps: BTreeMap<String, u64>,
    constants: AdamWConstants,
    weight_decay: f32,
    backend: Backend,
}

/// Contiguous weights with the same decay and number of steps.
struct Alike {
    run: Range<usize>,
    weight_decay: f32,
    count: u64,
}

impl AdamW {
    /// A fresh optimizer of these weights.
    ///
    /// # Errors
    /// If there is no room for its state.
    pub fn new(
        weights: &Arena,
        constants: AdamWConstants,
        weight_decay: f32,
        backend: &Backend,
    ) -> Result<Self> {
        let [first, second] = [weights.zeros_like()?, weights.zeros_like()?];
        let steps = weights.layout().names().map(|name| (name.to_string(), 0)).collect();
        Ok(Self { first, second, steps, constants, weight_decay, backend: backend.for_layer("optimizer") })
    }

    /// The named weights in few runs, each with the number of its next step.
    fn alike(&self, names: &[&str]) -> Vec<Alike> {
        let layout = self.first.layout();
        let mut groups: BTreeMap<(bool, u64), Vec<&str>> = BTreeMap::new();
        for &name in names {
            let count = self.steps.get(name).copied().unwrap_or_default() + 1;
            groups.entry((layout.decays(name), count)).or_default().push(name);
        }
        let mut alike = Vec::new();
        for ((decays, count), names) in groups {
            let weight_decay = if decays { self.weight_decay } else { 0.0 };
            for run in layout.runs(names) {
                alike.push(Alike { run, weight_decay, count });
            }
        }
        alike
    }

    /// The values of a run: the weights, their gradients, both moments.
    fn run(&self, weights: &Arena, gradients: &Arena, run: &Range<usize>) -> Result<[Tensor; 4]> {
        Ok([weights.run(run)?, gradients.run(run)?, self.first.run(run)?, self.second.run(run)?])
    }
}

impl Optimizer for AdamW {
    fn kind(&self) -> &'static str {
        ADAMW
    }

    fn arenas(&self) -> Vec<(&'static str, &Arena)> {
        vec![(FIRST, &self.first), (SECOND, &self.second)]
    }

    fn steps(&self) -> BTreeMap<String, u64> {
        self.steps.clone()
    }

    fn restore(&mut self, mut state: OptimizerState) -> Result<()> {
        let [first, second] = [state.take(FIRST)?, state.take(SECOND)?];
        if let Some(name) = self.steps.keys().find(|name| !state.steps.contains_key(*name)) {
            return Err(Error::invalid("optimizer", format!("steps.{name}"), "a number of steps", "none"));
        }
        self.first = restored(&self.first, first, FIRST, &self.backend)?;
        self.second = restored(&self.second, second, SECOND, &self.backend)?;
        self.steps = state.steps;
        Ok(())
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn move_weights(&mut self, weights: &Arena, gradients: &Arena, names: &[&str], lr: f32) -> Result<()> {
        let alike = self.alike(names);
        let parts = alike.iter().map(|alike| self.run(weights, gradients, &alike.run));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let adapted =
            parts.iter().zip(&alike).map(|([parameter, gradient, first, second], alike)| AdamWParameter {
                parameter,
                gradient,
                moments: [first, second],
                weight_decay: alike.weight_decay,
                count: alike.count,
            });
        self.backend.adamw(&adapted.collect::<Vec<_>>(), lr, self.constants)?;
        for &name in names {
            if let Some(steps) = self.steps.get_mut(name) {
                *steps += 1;
            }
        }
        Ok(())
    }
}
