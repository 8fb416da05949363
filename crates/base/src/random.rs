//! Generators of all random numbers, each named by its purpose, a seed and numbers.
//!
//! Two purposes never share a stream, and a stream depends on nothing but its name, so the samples and images
//! of a step are a pure function of (seed, step). Knows nothing of what the numbers are used for.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The generator for `purpose`, a user's `seed` and the `numbers` (an epoch, a step, an image) that
/// distinguish its uses.
///
/// The 32 bytes of ChaCha8's key are the BLAKE3 hash of the purpose, the seed and the numbers; purpose and
/// numbers are preceded by their length, so that no two names run together.
pub fn rng_for(purpose: &str, seed: u64, numbers: &[u64]) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(numbers.len() as u64).to_le_bytes());
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// The generator of a numbered stream under a user's `seed`: ChaCha8 with the seed as `rand` expands it, and the stream's number.
///
/// Searches and fits draw from it, since their results for a seed must not change between versions; new code uses
/// [`rng_for`]. The numbers are 1 to 8, each used once in the workspace.
pub fn numbered_rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// The numbers `0..len` in random order, each order equally likely.
pub fn permutation(len: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngCore;

    fn first(purpose: &str, seed: u64, numbers: &[u64]) -> u64 {
        rng_for(purpose, seed, numbers).next_u64()
    }

    #[test]
    fn each_part_of_the_name_counts() {
        let names: [(&str, u64, &[u64]); 7] = [
            ("order", 0, &[]),
            ("order", 0, &[0]),
            ("order", 0, &[0, 0]),
            ("order", 0, &[1]),
            ("order", 1, &[0]),
            ("orde", 0, &[0]),
            ("augmentation", 0, &[0]),
        ];
        let mut seen: Vec<u64> = names.iter().map(|(p, s, n)| first(p, *s, n)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), names.len());
        assert_eq!(first("order", 3, &[1, 2]), first("order", 3, &[1, 2]));
    }

    /// Trained weights depend on these streams: if this fails, a seed no longer repeats older results.
    #[test]
    fn streams_do_not_change_between_versions() {
        // ChaCha8's first two words for the key blake3(le64(5) "order" le64(0) le64(0)), computed in Python
        assert_eq!(first("order", 0, &[]), 14_212_476_648_610_029_946);
        assert_eq!(permutation(8, &mut rng_for("order", 0, &[])), [2, 7, 1, 5, 6, 0, 3, 4]);
    }

    #[test]
    fn a_permutation_holds_each_number_once() {
        for len in [0, 1, 2, 1077] {
            let mut order = permutation(len, &mut rng_for("order", 0, &[5]));
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
    }
}
