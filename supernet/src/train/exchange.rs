//! Data-parallel training: the processes over which a step's gradients are summed.

use network::elastic::{Gradients, SharedWeights};

use crate::error::Result;

/// The processes that train one supernet together, as seen by one of them. All take the same steps under the same
/// plan, and call the same functions in the same order.
pub trait Exchange {
    /// The number of this process, from 0 on.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn size(&self) -> usize;

    /// Replaces each gradient with its sum over all processes; called once per step, before the optimizer's step.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn sum(&self, gradients: &Gradients) -> Result<()>;

    /// Replaces the weights of every process with those of rank 0; called once, before the first step.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn broadcast(&self, weights: &SharedWeights) -> Result<()>;
}

/// A single process: gradients and weights stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Exchange for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _gradients: &Gradients) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, _weights: &SharedWeights) -> Result<()> {
        Ok(())
    }
}
