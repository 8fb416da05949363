//! The check that a run fits into memory.

use base::machine::{memory_held, memory_left};
use kernels::Backend;
use supernet::train::{MemoryEstimate, readable};

use tracing::warn;

/// The flag that overrides the check.
#[derive(clap::Args)]
pub struct Room {
    /// Start even if the expected memory exceeds what is available
    #[arg(long)]
    force: bool,
}

impl Room {
    /// Refuses a run that does not fit, or with --force warns; returns its total memory in bytes.
    ///
    /// # Errors
    /// If the run needs more memory than is available. If the system does not report that, nothing is refused.
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

/// The expected memory of a run in words.
pub fn in_words(bytes: u64) -> String {
    format!("about {} of memory", readable(bytes))
}
