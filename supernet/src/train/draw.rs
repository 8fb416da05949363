//! The sub-networks of a step: a function of seed and step alone.

use base::random::rng_for;
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace, sampler};

/// One way to choose sub-networks for a step, among those that a phase allows. A phase holds a list of these: the sandwich
/// rule (Yu and Huang 2019) is `["largest", "smallest", { random = 2 }]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// The largest one.
    Largest,
    /// The smallest one.
    Smallest,
    /// This many, drawn anew in each step.
    Random(usize),
}

impl Draw {
    /// Number of sub-networks that these draws give.
    pub fn count(draws: &[Self]) -> usize {
        let each = draws.iter().map(|draw| match draw {
            Self::Largest | Self::Smallest => 1,
            Self::Random(count) => *count,
        });
        each.fold(0, usize::saturating_add)
    }

    /// The sub-networks of a step, in the order of the draws, at the largest or a random resolution: the caller sets
    /// the step's.
    pub(super) fn archs(draws: &[Self], allowed: &SearchSpace, seed: u64, step: u64) -> Vec<Arch> {
        let mut rng = rng_for("sub-networks", seed, &[step]);
        let mut archs = Vec::with_capacity(Self::count(draws));
        for draw in draws {
            match draw {
                Self::Largest => archs.push(sampler::largest(allowed)),
                Self::Smallest => archs.push(sampler::smallest(allowed)),
                Self::Random(count) => {
                    archs.extend((0..*count).map(|_| sampler::random(allowed, &mut rng)));
                }
            }
        }
        archs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::preset;

    #[test]
    fn a_sandwich_has_both_ends_and_what_is_between() {
        let space = preset("fashion").expect("a preset");
        let sandwich = [Draw::Largest, Draw::Random(2), Draw::Smallest];
        let archs = Draw::archs(&sandwich, &space, 1, 7);
        assert_eq!((archs.len(), Draw::count(&sandwich)), (4, 4));
        assert_eq!((&archs[0], &archs[3]), (&sampler::largest(&space), &sampler::smallest(&space)));
        assert_ne!(archs[1], archs[2]);
        // what is between does not depend on what stands around it
        assert_eq!(archs[1..3], Draw::archs(&[Draw::Random(2)], &space, 1, 7));
        assert_eq!(archs, Draw::archs(&sandwich, &space, 1, 7));
        assert_ne!(archs, Draw::archs(&sandwich, &space, 1, 8));
        assert_ne!(archs, Draw::archs(&sandwich, &space, 2, 7));
    }
}
