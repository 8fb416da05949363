//! Stochastic gradient descent with Nesterov's momentum.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;
use kernels::{Kernels, Moved};
use network::arena::Arena;
use network::elastic::{Gradients, SharedWeights};

use crate::error::Result;

/// The optimizer: a velocity for each weight.
pub struct Sgd {
    velocities: Arena,
    momentum: f32,
    weight_decay: f32,
    kernels: Kernels,
}

impl Sgd {
    /// An optimizer of these weights at rest.
    ///
    /// # Errors
    /// If there is no room for its state.
    pub fn new(weights: &Arena, momentum: f32, weight_decay: f32, kernels: &Kernels) -> Result<Self> {
        let velocities = weights.zeros_like()?;
        Ok(Self { velocities, momentum, weight_decay, kernels: kernels.for_layer("optimizer") })
    }

    /// The optimizer with these velocities, one for each weight, moved to where the kernels compute.
    ///
    /// # Errors
    /// If they are those of other weights, or there is no room for them.
    pub fn moving(self, velocities: BTreeMap<String, Tensor>) -> Result<Self> {
        let velocities = Arena::of(self.velocities.layout().clone(), velocities, "velocities")?;
        Ok(Self { velocities: velocities.on(&self.kernels.device())?, ..self })
    }

    /// The velocities.
    pub fn velocities(&self) -> &Arena {
        &self.velocities
    }

    /// One step on every weight that some sub-network used; one used in part moves as a whole, the others rest. The
    /// gradients are zero after it.
    ///
    /// # Errors
    /// If the gradients are another space's.
    pub fn step(&self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        let touched = gradients.take_touched();
        self.move_weights(weights.arena(), gradients.arena(), touched.iter().map(String::as_str), lr)
    }

    /// The same on the classifier alone: all else rests, and its gradients are set back to zero.
    ///
    /// # Errors
    /// If the gradients are another space's.
    pub fn step_head(&self, weights: &SharedWeights, gradients: &Gradients, lr: f32) -> Result<()> {
        let (touched, arena) = (gradients.take_touched(), gradients.arena());
        let layout = arena.layout();
        let (head, rest): (Vec<&str>, Vec<&str>) =
            touched.iter().map(String::as_str).partition(|name| layout.is_of_classes(name));
        for run in layout.runs(rest) {
            self.kernels.fill_zero(&arena.run(&run)?)?;
        }
        self.move_weights(weights.arena(), arena, head, lr)
    }

    /// One step on weights by name, each with its gradient, which is zero after it.
    ///
    /// # Errors
    /// If the three are not laid out alike.
    pub(super) fn move_weights<'a>(
        &self,
        weights: &Arena,
        gradients: &Arena,
        names: impl IntoIterator<Item = &'a str>,
        lr: f32,
    ) -> Result<()> {
        let layout = self.velocities.layout();
        let (decaying, others): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| layout.decays(name));
        let decaying = layout.runs(decaying).into_iter().map(|run| (run, self.weight_decay));
        let runs = decaying.chain(layout.runs(others).into_iter().map(|run| (run, 0.0)));
        let parts = runs.map(|(run, decay)| Ok((self.run(weights, gradients, &run)?, decay)));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let moved: Vec<Moved> = parts
            .iter()
            .map(|([parameter, gradient, velocity], weight_decay)| Moved {
                parameter,
                gradient,
                velocity,
                weight_decay: *weight_decay,
            })
            .collect();
        Ok(self.kernels.nesterov(&moved, lr, self.momentum)?)
    }

    /// The values of a run: the weights, their gradients, their velocities.
    fn run(&self, weights: &Arena, gradients: &Arena, run: &Range<usize>) -> Result<[Tensor; 3]> {
        Ok([weights.run(run)?, gradients.run(run)?, self.velocities.run(run)?])
    }
}
