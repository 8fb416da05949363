//! The numbered random streams of fits and measurements; searches have the numbers 6 to 8.

use base::random::numbered_rng;
use rand_chacha::ChaCha8Rng;

/// The purposes of random numbers; each draws from its own stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The split of rows into folds.
    Split = 1,
    /// First weights of the estimator.
    Weights = 2,
    /// The order in which an estimator sees its rows.
    Batches = 3,
    /// Resamples for intervals.
    Bootstrap = 4,
    /// The order in which layers are measured.
    Measure = 5,
}

/// The generator of one purpose under a user's seed.
pub(crate) fn rng(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    numbered_rng(seed, purpose as u64)
}
