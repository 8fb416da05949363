//! Whether there is room for what a run will take.

use base::machine::{memory_held, memory_left};
use kernels::Backend;
use supernet::train::{MemoryEstimate, readable};

use tracing::warn;

/// How much is taken where it is computed.
#[derive(clap::Args)]
pub struct Room {
    /// Begin although the memory that is expected to be needed is more than there is
    #[arg(long)]
    force: bool,
}

impl Room {
    /// Refuses a run that will not fit, or where it is forced warns of it; returns the bytes that it will take in all.
    ///
    /// # Errors
    /// If more is needed than there is. Where the system does not tell how much that is, nothing is refused.
    pub fn check(&self, estimate: &MemoryEstimate, backend: &Backend) -> anyhow::Result<u64> {
        let estimate = estimate.computed_in(backend.precision());
        let (held, left) = match backend.gpu() {
            Some(_) => (0, backend.gpu_memory_left()),
            None => (memory_held().unwrap_or_default(), memory_left()),
        };
        if let Some(Err(error)) = left.map(|left| estimate.check(held, left)) {
            if !self.force {
                return Err(error.into());
            }
            warn!("{error}");
        }
        Ok(held + estimate.total())
    }
}

/// What a run will take, beside other figures.
pub fn in_words(bytes: u64) -> String {
    format!("about {} of memory", readable(bytes))
}
