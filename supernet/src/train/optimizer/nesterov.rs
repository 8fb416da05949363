//! Stochastic gradient descent with Nesterov's momentum.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;
use kernels::{Backend, NesterovParameter};
use network::arena::Arena;
use network::checkpoint::{NESTEROV, OptimizerState};

use super::{Optimizer, restored};
use crate::error::Result;

/// Name of the velocities in a checkpoint.
const VELOCITY: &str = "velocity";

/// Stochastic gradient descent with a velocity for each weight, as `torch.optim.SGD(nesterov=True)`.
pub struct Nesterov {
    velocities: Arena,
    momentum: f32,
    weight_decay: f32,
    backend: Backend,
}

impl Nesterov {
    /// A fresh optimizer of these weights.
    ///
    /// # Errors
    /// If there is no room for its state.
    pub fn new(weights: &Arena, momentum: f32, weight_decay: f32, backend: &Backend) -> Result<Self> {
        let velocities = weights.zeros_like()?;
        Ok(Self { velocities, momentum, weight_decay, backend: backend.for_layer("optimizer") })
    }

    /// The optimizer with these velocities, one per weight, moved to the backend's device.
    ///
    /// # Errors
    /// If the velocities are of other weights, or there is no room for them.
    pub fn moving(self, velocities: BTreeMap<String, Tensor>) -> Result<Self> {
        let velocities = restored(&self.velocities, velocities, "velocities", &self.backend)?;
        Ok(Self { velocities, ..self })
    }

    /// The velocities.
    pub fn velocities(&self) -> &Arena {
        &self.velocities
    }

    /// The values of a run: the weights, their gradients, their velocities.
    fn run(&self, weights: &Arena, gradients: &Arena, run: &Range<usize>) -> Result<[Tensor; 3]> {
        Ok([weights.run(run)?, gradients.run(run)?, self.velocities.run(run)?])
    }
}

impl Optimizer for Nesterov {
    fn kind(&self) -> &'static str {
        NESTEROV
    }

    fn arenas(&self) -> Vec<(&'static str, &Arena)> {
        vec![(VELOCITY, &self.velocities)]
    }

    fn restore(&mut self, mut state: OptimizerState) -> Result<()> {
        self.velocities = restored(&self.velocities, state.take(VELOCITY)?, "velocities", &self.backend)?;
        Ok(())
    }

    fn backend(&self) -> &Backend {
        &self.backend
    }

    fn move_weights(&mut self, weights: &Arena, gradients: &Arena, names: &[&str], lr: f32) -> Result<()> {
        let layout = self.velocities.layout();
        let (decaying, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| layout.decays(name));
        let decaying = layout.runs(decaying).into_iter().map(|run| (run, self.weight_decay));
        let runs = decaying.chain(layout.runs(others).into_iter().map(|run| (run, 0.0)));
        let parts = runs.map(|(run, decay)| Ok((self.run(weights, gradients, &run)?, decay)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let moved: Vec<NesterovParameter> = parts
            .iter()
            .map(|([parameter, gradient, velocity], weight_decay)| NesterovParameter {
                parameter,
                gradient,
                velocity,
                weight_decay: *weight_decay,
            })
            .collect();
        Ok(self.backend.nesterov(&moved, lr, self.momentum)?)
    }
}
