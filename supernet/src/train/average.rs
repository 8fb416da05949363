//! The exponential moving average of the weights within a phase.

use candle_core::Device;
use kernels::Backend;
use network::checkpoint::{AVERAGE, OptimizerState};
use network::elastic::SharedWeights;
use space::SearchSpace;

use crate::error::Result;

/// The average of a phase's weights: evaluated in place of the weights, and their values at the end of the phase.
pub(super) struct Average {
    weights: SharedWeights,
    decay: f32,
    backend: Backend,
}

impl Average {
    /// The average at the start of a phase: the weights themselves.
    pub(super) fn begin(weights: &SharedWeights, decay: f32, backend: &Backend) -> Result<Self> {
        Ok(Self { weights: weights.detached()?, decay, backend: backend.for_layer("average") })
    }

    /// Takes the weights after `taken` steps of the phase into account. The share of what came before is the decay, in the
    /// first steps less: at most (1 + taken) / (10 + taken), as in TensorFlow's `ExponentialMovingAverage`, so that the average
    /// forgets its start.
    ///
    /// # Errors
    /// If the weights are of another space.
    pub(super) fn follow(&self, weights: &SharedWeights, taken: u64) -> Result<()> {
        let taken = taken as f32;
        let kept = self.decay.min((1.0 + taken) / (10.0 + taken));
        let values = self.weights.arena().values();
        Ok(self.backend.move_toward(values, weights.arena().values(), 1.0 - kept)?)
    }

    /// The averaged weights.
    pub(super) fn weights(&self) -> &SharedWeights {
        &self.weights
    }

    /// Adds the average to a state as a checkpoint holds it.
    ///
    /// # Errors
    /// If it cannot be copied from a GPU.
    pub(super) fn add_to(&self, state: &mut OptimizerState) -> Result<()> {
        let on_cpu = self.weights.arena().on(&Device::Cpu)?;
        state.tensors.insert(AVERAGE.to_string(), on_cpu.tensors().clone());
        Ok(())
    }

    /// The average as a checkpoint's state holds it, taken out of that.
    ///
    /// # Errors
    /// If the state has none, or there is no room for it.
    pub(super) fn restored(self, space: &SearchSpace, state: &mut OptimizerState) -> Result<Self> {
        let weights = SharedWeights::from_tensors(space, state.take(AVERAGE)?, AVERAGE)?;
        Ok(Self { weights: weights.on(&self.backend)?, ..self })
    }
}
