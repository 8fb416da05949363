//! Picks sub-networks; each is legal in the given space.

use rand::Rng;

use crate::arch::Arch;
use crate::genome::End;
use crate::search_space::SearchSpace;

/// The largest value of every choice: kernels, expand ratios, depths and so on at the highest resolution.
pub fn largest(space: &SearchSpace) -> Arch {
    space.arch(&space.genome().corner(|_| End::Largest))
}

/// The smallest value of every choice.
pub fn smallest(space: &SearchSpace) -> Arch {
    space.arch(&space.genome().corner(|_| End::Smallest))
}

/// Draws each choice independently and uniformly, as [`Genome::random`](crate::Genome::random) does.
pub fn random(space: &SearchSpace, rng: &mut impl Rng) -> Arch {
    space.arch(&space.genome().random(rng))
}
