//! Small steps between sub-networks: neighbours, and the way from one to another.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use supernet::space::sampler::{End, corner};
use supernet::space::{Arch, Block, SearchSpace, Stage};

/// Every kernel with every expand ratio.
fn blocks(stage: &Stage) -> impl Iterator<Item = Block> + Clone + '_ {
    let kernels = stage.choices.kernel.iter();
    kernels.flat_map(|&kernel| stage.choices.expand.iter().map(move |&expand| Block { kernel, expand }))
}

/// All sub-networks that differ in one resolution, one block or one depth; a stage that grows gets blocks of
/// one kind.
pub(super) fn neighbours(space: &SearchSpace, arch: &Arch) -> Vec<Arch> {
    let others = space.resolutions().iter().filter(|&&side| side != arch.resolution);
    let mut all: Vec<Arch> = others.map(|&side| arch.at(side)).collect();
    let mut push = |stage: usize, change: &dyn Fn(&mut Vec<Block>)| {
        let mut other = arch.clone();
        change(&mut other.stages[stage]);
        all.push(other);
    };
    for (index, stage) in space.stages().iter().enumerate() {
        let now = &arch.stages[index];
        for position in 0..now.len() {
            for block in blocks(stage).filter(|block| *block != now[position]) {
                push(index, &|blocks| blocks[position] = block);
            }
        }
        for &depth in stage.choices.depth.iter().filter(|&&depth| depth < now.len()) {
            push(index, &|blocks| blocks.truncate(depth));
        }
        for &depth in stage.choices.depth.iter().filter(|&&depth| depth > now.len()) {
            for block in blocks(stage) {
                push(index, &|blocks| blocks.resize(depth, block));
            }
        }
    }
    all
}

/// The sub-networks whose depths, expand ratios and kernels lie at the ends, at each resolution.
pub(super) fn corners(space: &SearchSpace) -> Vec<Arch> {
    const ENDS: [End; 2] = [End::Largest, End::Smallest];
    let mut all = Vec::new();
    for &resolution in space.resolutions() {
        for depth in ENDS {
            for expand in ENDS {
                for kernel in ENDS {
                    all.push(corner(space, resolution, depth, expand, kernel));
                }
            }
        }
    }
    all
}

/// One thing that two sub-networks can differ in.
#[derive(Clone, Copy)]
enum Gene {
    Resolution,
    Depth(usize),
    Block(usize, usize),
}

/// Takes over genes of `anchor`, one by one in random order, until `keeps` is content; the last step is
/// `anchor` itself, so the work is bounded by the number of genes.
pub(super) fn toward(arch: &mut Arch, anchor: &Arch, rng: &mut ChaCha8Rng, keeps: impl Fn(&Arch) -> bool) {
    let mut genes = vec![Gene::Resolution];
    for (stage, blocks) in anchor.stages.iter().enumerate() {
        genes.push(Gene::Depth(stage));
        genes.extend((0..blocks.len()).map(|position| Gene::Block(stage, position)));
    }
    genes.shuffle(rng);
    for gene in genes {
        if keeps(arch) {
            return;
        }
        take(arch, anchor, gene);
    }
}

fn take(arch: &mut Arch, anchor: &Arch, gene: Gene) {
    match gene {
        Gene::Resolution => arch.resolution = anchor.resolution,
        Gene::Depth(stage) => {
            let (ours, theirs) = (&mut arch.stages[stage], &anchor.stages[stage]);
            ours.truncate(theirs.len());
            ours.extend_from_slice(&theirs[ours.len()..]);
        }
        Gene::Block(stage, position) => {
            if let Some(block) = arch.stages[stage].get_mut(position) {
                *block = anchor.stages[stage][position];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;
    use supernet::space::{preset, sampler};

    #[test]
    fn neighbours_are_legal_different_and_all_there() {
        let space = preset("tiny").expect("a preset");
        let arch: Arch = "r8:k3e3/k5e4,k7e6".parse().expect("an arch");
        let all = neighbours(&space, &arch);
        let distinct: BTreeSet<_> = all.iter().collect();
        // 1 resolution, 8 for each of 3 blocks, 9 ways to grow, 1 to shrink
        assert_eq!((all.len(), distinct.len()), (1 + 24 + 9 + 1, 35));
        for other in &all {
            space.check(other).expect("legal");
            assert_ne!(*other, arch);
        }
    }

    #[test]
    fn the_way_ends_at_the_anchor() {
        let space = preset("fashion").expect("a preset");
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for _ in 0..200 {
            let (from, anchor) = (sampler::random(&space, &mut rng), sampler::random(&space, &mut rng));
            let mut arch = from.clone();
            toward(&mut arch, &anchor, &mut rng, |_| true);
            assert_eq!(arch, from);
            toward(&mut arch, &anchor, &mut rng, |arch| {
                space.check(arch).expect("each step is legal");
                false
            });
            assert_eq!(arch, anchor);
        }
    }
}
