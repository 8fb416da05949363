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

/// Draws several sub-networks in which each value of a choice occurs equally often, as nearly as their number allows (strict
/// fairness; Chu et al. 2021, FairNAS): every choice runs through its values in random order, again and again.
pub fn fair(space: &SearchSpace, count: usize, rng: &mut impl Rng) -> Vec<Arch> {
    space.genome().fair(count, rng).iter().map(|row| space.arch(row)).collect()
}

/// Draws each choice independently and uniformly, as [`Genome::random`](crate::Genome::random) does.
pub fn random(space: &SearchSpace, rng: &mut impl Rng) -> Arch {
    space.arch(&space.genome().random(rng))
}
