//! Processes that train together: what one step's gradients are summed over.

use network::elastic::{Gradients, SharedWeights};

use crate::error::Result;

/// The processes that train one supernet together, as one of them sees them. All of them take the same steps under the same
/// plan, and call the same functions in the same order.
pub trait Exchange {
    /// The number of this process, from 0 on.
    fn rank(&self) -> usize;

    /// How many processes there are.
    fn size(&self) -> usize;

    /// Puts the sum over all processes in the place of each gradient; called once per step, before the optimizer's.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn sum(&self, gradients: &Gradients) -> Result<()>;

    /// Puts the weights of the process of rank 0 in the place of each process's; called once, before the first step.
    ///
    /// # Errors
    /// If another process cannot be reached.
    fn broadcast(&self, weights: &SharedWeights) -> Result<()>;
}

/// One process by itself, whose sums are what they are.
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
