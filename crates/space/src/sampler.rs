//! Ways to pick sub-networks; every one that comes out is legal in the space that was given.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::search_space::{Choices, Stage};
use super::{Arch, Block, Ratio, SearchSpace};

const NOT_EMPTY: &str = "a checked space has at least one choice everywhere";

/// Largest kernels, expand ratios and depths at the highest resolution.
pub fn largest(space: &SearchSpace) -> Arch {
    at_end(space, End::Largest)
}

/// Smallest kernels, expand ratios and depths at the lowest resolution.
pub fn smallest(space: &SearchSpace) -> Arch {
    at_end(space, End::Smallest)
}

/// One end of every list of choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first choice.
    Smallest,
    /// The last choice.
    Largest,
}

impl End {
    fn of<T: Copy>(self, choices: &[T]) -> T {
        *match self {
            Self::Smallest => choices.first(),
            Self::Largest => choices.last(),
        }
        .expect(NOT_EMPTY)
    }
}

fn at_end(space: &SearchSpace, end: End) -> Arch {
    corner(space, end.of(space.resolutions()), end, end, end)
}

/// The sub-network whose depths, expand ratios and kernels all lie at the given ends; widths of stages lie where the
/// expand ratios do.
pub fn corner(space: &SearchSpace, resolution: usize, depth: End, expand: End, kernel: End) -> Arch {
    let stage = |stage: &Stage| {
        let Choices { kernel: kernels, expand: expands, depth: depths, .. } = &stage.choices;
        vec![Block { kernel: kernel.of(kernels), expand: expand.of(expands) }; depth.of(depths)]
    };
    let stages = space.stages().iter().map(stage).collect();
    Arch { resolution, stages, widths: widths(space, |choices| expand.of(choices)) }
}

/// A width multiplier for each stage, where the space is elastic in them.
fn widths(space: &SearchSpace, choose: impl FnMut(&[Ratio]) -> Ratio) -> Vec<Ratio> {
    let lists = space.stages().iter().map(|stage| stage.choices.width.as_slice());
    lists.filter(|list| !list.is_empty()).map(choose).collect()
}

fn pick<T: Copy>(choices: &[T], rng: &mut impl Rng) -> T {
    *choices.choose(rng).expect(NOT_EMPTY)
}

fn random_block(stage: &Stage, rng: &mut impl Rng) -> Block {
    Block { kernel: pick(&stage.choices.kernel, rng), expand: pick(&stage.choices.expand, rng) }
}

/// Draws each gene (resolution, depths, kernels, expand ratios, widths) by itself and uniformly.
///
/// This is what Once-for-All trains with; it is not uniform over networks, for a deep stage has more variants
/// than a shallow one.
pub fn random(space: &SearchSpace, rng: &mut impl Rng) -> Arch {
    let resolution = pick(space.resolutions(), rng);
    let mut stages = Vec::with_capacity(space.stages().len());
    for stage in space.stages() {
        let depth = pick(&stage.choices.depth, rng);
        stages.push((0..depth).map(|_| random_block(stage, rng)).collect());
    }
    Arch { resolution, stages, widths: widths(space, |choices| pick(choices, rng)) }
}

/// Takes each gene from one parent or the other; a block that only one parent has comes from that parent.
pub fn crossover(left: &Arch, right: &Arch, rng: &mut impl Rng) -> Arch {
    let resolution = if rng.random() { left.resolution } else { right.resolution };
    let mut stages = Vec::with_capacity(left.stages.len());
    for (ours, theirs) in left.stages.iter().zip(&right.stages) {
        let depth = if rng.random() { ours.len() } else { theirs.len() };
        stages
            .push((0..depth).map(|position| cross(ours.get(position), theirs.get(position), rng)).collect());
    }
    let pairs = left.widths.iter().zip(&right.widths);
    let widths = pairs.map(|(&ours, &theirs)| if rng.random() { ours } else { theirs }).collect();
    Arch { resolution, stages, widths }
}

fn cross(ours: Option<&Block>, theirs: Option<&Block>, rng: &mut impl Rng) -> Block {
    let (Some(&ours), Some(&theirs)) = (ours, theirs) else {
        return *ours.or(theirs).expect("the depth is one parent's");
    };
    Block {
        kernel: if rng.random() { ours.kernel } else { theirs.kernel },
        expand: if rng.random() { ours.expand } else { theirs.expand },
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{preset, preset_names};

    #[test]
    fn everything_sampled_is_legal_and_reproducible() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let draw = |seed| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let (left, right) = (random(&space, &mut rng), random(&space, &mut rng));
                let child = crossover(&left, &right, &mut rng);
                [left, right, child]
            };
            for seed in 0..200 {
                for arch in draw(seed) {
                    space.check(&arch).expect("legal");
                }
                assert_eq!(draw(seed), draw(seed));
            }
        }
    }

    #[test]
    fn crossover_mixes_only_what_the_parents_have() {
        let space = preset("fashion").expect("a preset");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (left, right) = (smallest(&space), largest(&space));
        let child = crossover(&left, &right, &mut rng);
        assert!(child.widths.is_empty());
        for (stage, (ours, theirs)) in child.stages.iter().zip(left.stages.iter().zip(&right.stages)) {
            assert!(stage.len() == ours.len() || stage.len() == theirs.len());
            assert!(stage.iter().all(|block| [3, 7].contains(&block.kernel)));
        }
    }
}
