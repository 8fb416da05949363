//! Sub-networks as short rows of small numbers, which a search changes, compares and prices without memory of its own.
//!
//! Stage by stage: the width, where it can be chosen, then a gene for each block that can exist; last the resolution. A
//! block's gene is 0 where it is absent, so that equal networks are equal rows.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use space::{Arch, Block, SearchSpace, Stage};

use crate::encode::{Encoder, choice_indices, place_of};

/// A choice's place in its list; a block's is one more than that of its kernel and expand ratio.
pub(super) type Gene = u16;

/// Where a stage's genes lie.
#[derive(Clone, Debug)]
pub(super) struct StageGenes {
    /// The width's, if it can be chosen.
    pub width: Option<usize>,
    /// The first block's.
    pub blocks: usize,
    /// Number of widths.
    pub widths: usize,
    pub kernels: usize,
    pub expands: usize,
    pub depths: Vec<usize>,
}

impl StageGenes {
    /// Kernels times expand ratios.
    pub fn choices(&self) -> usize {
        self.kernels * self.expands
    }

    /// Blocks that can exist.
    pub fn places(&self) -> usize {
        self.depths.last().copied().unwrap_or(0)
    }

    /// Blocks that exist.
    pub fn depth(&self, genes: &[Gene]) -> usize {
        genes[self.blocks..self.blocks + self.places()].iter().take_while(|gene| **gene > 0).count()
    }
}

/// How the genes of a space's sub-networks lie.
#[derive(Clone, Debug)]
pub(super) struct Genome {
    pub stages: Vec<StageGenes>,
    /// Number of resolutions.
    pub resolutions: usize,
    /// Where each gene's values begin among all genes' values; the last entry is the number of all.
    values: Vec<usize>,
}

/// One step from a sub-network: the genes from `first` to `last` take a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub first: usize,
    pub last: usize,
    pub value: Gene,
    /// The last gene that no other step may change besides: of a step that changes a depth, the stage's last.
    pub end: usize,
}

impl Move {
    pub fn apply(self, genes: &mut [Gene]) {
        genes[self.first..=self.last].fill(self.value);
    }

    /// Whether the two can be made one after the other, in either order.
    pub fn is_apart(self, other: Self) -> bool {
        self.end < other.first || other.end < self.first
    }
}

impl Genome {
    pub fn new(space: &SearchSpace) -> Self {
        let (mut at, mut counts) = (0, Vec::new());
        let stage = |stage: &Stage| {
            let choices = &stage.choices;
            let width = (!choices.width.is_empty()).then_some(at);
            let blocks = at + usize::from(width.is_some());
            at = blocks + choices.max_depth();
            counts.resize(blocks, choices.width.len());
            counts.resize(at, 1 + choices.kernel.len() * choices.expand.len());
            StageGenes {
                width,
                blocks,
                widths: choices.width.len().max(1),
                kernels: choices.kernel.len(),
                expands: choices.expand.len(),
                depths: choices.depth.clone(),
            }
        };
        let stages = space.stages().iter().map(stage).collect();
        counts.push(space.resolutions().len());
        let mut values = vec![0];
        for count in counts {
            values.push(values.last().expect("it began with one") + count);
        }
        Self { stages, resolutions: space.resolutions().len(), values }
    }

    /// Genes of a sub-network.
    pub fn len(&self) -> usize {
        self.values.len() - 1
    }

    /// Values of all genes together.
    pub fn values(&self) -> usize {
        self.values[self.len()]
    }

    /// The place of a gene's value among all genes' values.
    pub fn value(&self, gene: usize, value: Gene) -> usize {
        self.values[gene] + usize::from(value)
    }

    /// The stage and position of a block's gene; `None` for a width and the resolution.
    pub fn block(&self, gene: usize) -> Option<(usize, usize)> {
        let stage = self.stages.iter().position(|stage| gene < stage.blocks + stage.places())?;
        Some((stage, gene.checked_sub(self.stages[stage].blocks)?))
    }

    /// Where the resolution's gene lies.
    pub fn resolution(&self) -> usize {
        self.len() - 1
    }

    /// Writes a sub-network's genes; `None` if it is not in the space, which is the genome's.
    pub fn encode(&self, space: &SearchSpace, arch: &Arch, genes: &mut [Gene]) -> Option<()> {
        let widths = self.stages.iter().filter(|stage| stage.width.is_some()).count();
        if arch.stages.len() != self.stages.len() || arch.widths.len() != widths {
            return None;
        }
        genes.fill(0);
        for (index, (genome, stage)) in self.stages.iter().zip(space.stages()).enumerate() {
            if !genome.depths.contains(&arch.stages[index].len()) {
                return None;
            }
            if let Some(width) = genome.width {
                genes[width] = place_of(&stage.choices.width, &arch.widths[index])? as Gene;
            }
            for (gene, block) in genes[genome.blocks..].iter_mut().zip(&arch.stages[index]) {
                let (kernel, expand) = choice_indices(stage, block)?;
                *gene = (1 + kernel * genome.expands + expand) as Gene;
            }
        }
        genes[self.resolution()] = place_of(space.resolutions(), &arch.resolution)? as Gene;
        Some(())
    }

    /// The sub-network of a row of genes of this space.
    pub fn decode(&self, space: &SearchSpace, genes: &[Gene]) -> Arch {
        let (mut stages, mut widths) = (Vec::with_capacity(self.stages.len()), Vec::new());
        for (genome, stage) in self.stages.iter().zip(space.stages()) {
            let choices = &stage.choices;
            widths.extend(genome.width.map(|at| choices.width[usize::from(genes[at])]));
            let block = |gene: &Gene| {
                let choice = usize::from(gene - 1);
                let (kernel, expand) = (choice / genome.expands, choice % genome.expands);
                Block { kernel: choices.kernel[kernel], expand: choices.expand[expand] }
            };
            stages.push(genes[genome.blocks..][..genome.depth(genes)].iter().map(block).collect());
        }
        Arch { resolution: space.resolutions()[usize::from(genes[self.resolution()])], stages, widths }
    }

    /// Whether the genes are those of a sub-network: no block behind an absent one, depths that can be.
    pub fn is_whole(&self, genes: &[Gene]) -> bool {
        self.stages.iter().all(|stage| {
            let blocks = &genes[stage.blocks..stage.blocks + stage.places()];
            let depth = stage.depth(genes);
            blocks[depth..].iter().all(|gene| *gene == 0) && stage.depths.contains(&depth)
        })
    }

    /// All steps that change one width, one block or one depth; a stage that grows gets blocks of one kind. The
    /// resolution stays.
    pub fn moves(&self, genes: &[Gene], moves: &mut Vec<Move>) {
        moves.clear();
        for stage in &self.stages {
            if let Some(at) = stage.width {
                let others = (0..stage.widths as Gene).filter(|value| *value != genes[at]);
                moves.extend(others.map(|value| Move { first: at, last: at, value, end: at }));
            }
            let (depth, kinds) = (stage.depth(genes), 1..=stage.choices() as Gene);
            for (at, gene) in genes.iter().enumerate().skip(stage.blocks).take(depth) {
                let others = kinds.clone().filter(|value| value != gene);
                moves.extend(others.map(|value| Move { first: at, last: at, value, end: at }));
            }
            for &other in &stage.depths {
                let (first, last) = (stage.blocks + depth.min(other), stage.blocks + depth.max(other));
                let step =
                    |value| Move { first, last: last - 1, value, end: stage.blocks + stage.places() - 1 };
                if other < depth {
                    moves.push(step(0));
                } else if other > depth {
                    moves.extend(kinds.clone().map(step));
                }
            }
        }
    }

    /// Redraws each gene with the given probability; a stage that grows gets random blocks.
    pub fn mutate(&self, genes: &mut [Gene], probability: f64, rng: &mut ChaCha8Rng) {
        if rng.random_bool(probability) {
            genes[self.resolution()] = rng.random_range(0..self.resolutions) as Gene;
        }
        for stage in &self.stages {
            if let Some(width) = stage.width.filter(|_| rng.random_bool(probability)) {
                genes[width] = rng.random_range(0..stage.widths) as Gene;
            }
            let kept = stage.depth(genes);
            let depth = match rng.random_bool(probability) {
                true => stage.depths[rng.random_range(0..stage.depths.len())],
                false => kept,
            };
            for position in 0..stage.places() {
                let gene = &mut genes[stage.blocks + position];
                if position >= depth {
                    *gene = 0;
                } else if position >= kept || rng.random_bool(probability) {
                    *gene = rng.random_range(1..=stage.choices()) as Gene;
                }
            }
        }
    }

    /// Takes each gene of `other` with a probability of a half; a block that only one of them has comes from that one.
    pub fn cross(&self, genes: &mut [Gene], other: &[Gene], rng: &mut ChaCha8Rng) {
        let resolution = self.resolution();
        if rng.random() {
            genes[resolution] = other[resolution];
        }
        for stage in &self.stages {
            if let Some(width) = stage.width.filter(|_| rng.random()) {
                genes[width] = other[width];
            }
            let depth = if rng.random() { stage.depth(other) } else { stage.depth(genes) };
            for at in stage.blocks..stage.blocks + stage.places() {
                let gene = match (genes[at], other[at]) {
                    _ if at >= stage.blocks + depth => 0,
                    (0, only) | (only, 0) => only,
                    (ours, theirs) => {
                        if rng.random() {
                            theirs
                        } else {
                            ours
                        }
                    }
                };
                genes[at] = gene;
            }
        }
    }

    /// Takes over genes of `anchor`, one by one in random order, until `keeps` is content; the last step is `anchor`
    /// itself, so the work is bounded by the number of genes.
    pub fn toward(
        &self,
        genes: &mut [Gene],
        anchor: &[Gene],
        rng: &mut ChaCha8Rng,
        keeps: impl Fn(&[Gene]) -> bool,
    ) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(rng);
        for at in order {
            if keeps(genes) {
                return;
            }
            match self.stages.iter().find(|stage| (stage.blocks..stage.blocks + stage.places()).contains(&at))
            {
                // a block that only one of them has: their depths differ, and the stage becomes as deep as the anchor's
                Some(stage) if (genes[at] == 0) != (anchor[at] == 0) => {
                    let (ours, theirs) = (stage.depth(genes), stage.depth(anchor));
                    let places = stage.blocks + ours.min(theirs)..stage.blocks + ours.max(theirs);
                    genes[places.clone()].copy_from_slice(&anchor[places]);
                }
                _ => genes[at] = anchor[at],
            }
        }
    }
}

/// The encoder's features of each gene's values.
#[derive(Clone)]
pub(super) struct GeneFeatures {
    /// Where each gene's values begin.
    starts: Vec<usize>,
    /// Up to two features of a value; [`NO_FEATURE`] for none.
    features: Vec<[u32; 2]>,
}

const NO_FEATURE: u32 = u32::MAX;

impl GeneFeatures {
    /// The features of a genome's space as `encoder`'s space has them; `None` if a resolution is not among its own.
    pub fn new(genome: &Genome, space: &SearchSpace, encoder: &Encoder) -> Option<Self> {
        let mut all = Self { starts: Vec::with_capacity(genome.len()), features: Vec::new() };
        for (index, stage) in genome.stages.iter().enumerate() {
            if stage.width.is_some() {
                all.push(
                    (0..stage.widths).map(|width| [encoder.width_feature(index, width) as u32, NO_FEATURE]),
                );
            }
            for position in 0..stage.places() {
                let kind = |choice: usize| {
                    let choice = (choice / stage.expands, choice % stage.expands);
                    encoder.block_features(index, position, choice).map(|feature| feature as u32)
                };
                all.push(std::iter::once([NO_FEATURE; 2]).chain((0..stage.choices()).map(kind)));
            }
        }
        let sides = space.resolutions().iter();
        let sides = sides.map(|side| Some([encoder.resolution_feature(*side)? as u32, NO_FEATURE]));
        all.push(sides.collect::<Option<Vec<_>>>()?);
        Some(all)
    }

    fn push(&mut self, values: impl IntoIterator<Item = [u32; 2]>) {
        self.starts.push(self.features.len());
        self.features.extend(values);
    }

    /// The features of each value of each gene, in [`Genome::value`]'s order.
    pub fn of_values(&self) -> impl Iterator<Item = impl Iterator<Item = u32>> {
        self.features.iter().map(|features| features.iter().copied().filter(|feature| *feature != NO_FEATURE))
    }

    /// The features that are 1, in rising order.
    pub fn of<'a>(&'a self, genes: &'a [Gene]) -> impl Iterator<Item = u32> + 'a {
        let values =
            self.starts.iter().zip(genes).map(|(start, gene)| self.features[start + usize::from(*gene)]);
        values.flatten().filter(|feature| *feature != NO_FEATURE)
    }
}

/// A number that two rows share only by a chance of 2^-64.
pub(super) fn hash(genes: &[Gene]) -> u64 {
    let step = |hash: u64, gene: &Gene| {
        let mixed = (hash ^ u64::from(*gene)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    };
    genes.iter().fold(0x243f_6a88_85a3_08d3, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use space::{preset, preset_names, sampler};
    use std::collections::BTreeSet;

    /// Calls `check` with the genome of each preset, its space and some random sub-networks' genes.
    fn on_every_preset(check: impl Fn(&Genome, &SearchSpace, &[Vec<Gene>], &mut ChaCha8Rng)) {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            let genome = Genome::new(&space);
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            let mut random = || {
                let mut genes = vec![0; genome.len()];
                let arch = sampler::random(&space, &mut rng);
                genome.encode(&space, &arch, &mut genes).expect("legal");
                assert_eq!(genome.decode(&space, &genes), arch, "{name}");
                genes
            };
            let all: Vec<_> = (0..40).map(|_| random()).collect();
            check(&genome, &space, &all, &mut rng);
        }
    }

    #[test]
    fn genes_and_features_are_those_of_the_sub_network() {
        on_every_preset(|genome, space, all, _| {
            let encoder = Encoder::new(space);
            let features = GeneFeatures::new(genome, space, &encoder).expect("the same resolutions");
            for genes in all {
                let mut expected = Vec::new();
                let arch = genome.decode(space, genes);
                encoder.for_each_feature(&arch, |feature| expected.push(feature as u32)).expect("legal");
                assert_eq!(features.of(genes).collect::<Vec<_>>(), expected, "{arch}");
            }
        });
        let tiny = preset("tiny").expect("a preset");
        let (genome, mut genes) = (Genome::new(&tiny), vec![0; 5]);
        for text in
            ["r9:k3e3/k3e3", "r8:k3e3", "r8:k3e5/k3e3", "r8:k3e3,k3e3,k3e3/k3e3", "r8:w1:k3e3/w1:k3e3"]
        {
            let arch = text.parse().expect("an arch");
            assert_eq!(genome.encode(&tiny, &arch, &mut genes), None, "{text}");
        }
    }

    #[test]
    fn moves_are_all_there_and_fit_together() {
        let space = preset("tiny").expect("a preset");
        let (genome, mut genes, mut moves) = (Genome::new(&space), vec![0; 5], Vec::new());
        genome.encode(&space, &"r8:k3e3/k5e4,k7e6".parse().expect("an arch"), &mut genes).expect("legal");
        genome.moves(&genes, &mut moves);
        // 8 for each of 3 blocks, 9 ways to grow, 1 to shrink
        assert_eq!(moves.len(), 24 + 9 + 1);
        on_every_preset(|genome, space, all, _| {
            for genes in all.iter().take(4) {
                let (mut moves, mut seen) = (Vec::new(), BTreeSet::new());
                genome.moves(genes, &mut moves);
                for (index, step) in moves.iter().enumerate() {
                    let mut one = genes.clone();
                    step.apply(&mut one);
                    assert!(seen.insert(one.clone()) && one != *genes);
                    space.check(&genome.decode(space, &one)).expect("legal");
                    for other in moves[..index].iter().filter(|other| other.is_apart(*step)) {
                        let (mut two, mut turned) = (one.clone(), genes.clone());
                        [*other].into_iter().for_each(|step| step.apply(&mut two));
                        [*other, *step].into_iter().for_each(|step| step.apply(&mut turned));
                        assert!(two == turned && genome.is_whole(&two));
                    }
                }
            }
        });
    }

    #[test]
    fn children_are_legal_and_the_way_ends_at_the_anchor() {
        on_every_preset(|genome, space, all, rng| {
            for pair in all.windows(2) {
                let (mut mutant, mut child) = (pair[0].clone(), pair[0].clone());
                genome.mutate(&mut mutant, 0.3, rng);
                genome.cross(&mut child, &pair[1], rng);
                for genes in [&mutant, &child] {
                    assert!(genome.is_whole(genes));
                    space.check(&genome.decode(space, genes)).expect("legal");
                }
                let (mut still, mut way) = (mutant.clone(), mutant.clone());
                genome.toward(&mut still, &pair[1], rng, |_| true);
                genome.toward(&mut way, &pair[1], rng, |genes| {
                    assert!(genome.is_whole(genes));
                    false
                });
                genome.mutate(&mut child, 0.0, rng);
                assert_eq!((&still, &way), (&mutant, &pair[1]));
            }
        });
    }
}
