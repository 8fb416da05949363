//! Where the crate's random numbers come from: one seed, and a stream for each purpose.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What random numbers are used for; each purpose draws from a stream of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// How rows are cut into folds.
    Split = 1,
    /// First weights of the estimator.
    Weights = 2,
    /// The order in which an estimator sees its rows.
    Batches = 3,
    /// Resamples for intervals.
    Bootstrap = 4,
    /// The order in which layers are measured.
    Measure = 5,
    /// Candidates of a search.
    Search = 6,
    /// Chains of a search.
    Annealing = 7,
}

/// The generator of one purpose under a user's seed.
pub(crate) fn rng(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose as u64);
    rng
}
