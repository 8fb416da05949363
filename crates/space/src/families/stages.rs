//! Stages of blocks, which the families of convolutional networks share: their choices, genes and text.

use std::fmt;
use std::str::FromStr;

use base::error::{Error, Result};

use super::Words;
use crate::activation::Activation;
use crate::genome::{Choice, Declaring, Dimension, GeneId, GeneRow, Genome, Index};
use crate::value::{Extent, Ratio};

pub(super) const RESOLUTION: Dimension = Dimension::named("resolution");
pub(super) const DEPTH: Dimension = Dimension::named("depth");
pub(super) const KERNEL: Dimension = Dimension::named("kernel");
pub(super) const EXPAND: Dimension = Dimension { key: "expand", words: "expand ratio" };
pub(super) const WIDTH: Dimension = Dimension::named("width");

/// The choices of a stage's blocks; each list is sorted, without doubles, and not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choices {
    /// Sides of the depthwise kernel.
    pub kernel: Vec<usize>,
    /// Expand ratios.
    pub expand: Vec<Ratio>,
    /// Numbers of blocks.
    pub depth: Vec<usize>,
    /// Width multipliers; empty where the width is not elastic.
    pub width: Vec<Ratio>,
}

impl Choices {
    /// The shallowest choice.
    pub fn min_depth(&self) -> usize {
        self.depth.first().copied().unwrap_or(0)
    }

    /// The deepest choice.
    pub fn max_depth(&self) -> usize {
        self.depth.last().copied().unwrap_or(0)
    }

    /// The widest kernel.
    pub fn max_kernel(&self) -> usize {
        self.kernel.last().copied().unwrap_or(0)
    }
}

/// The first convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stem {
    /// Output channels, width multiplier applied.
    pub channels: usize,
    /// Stride.
    pub stride: usize,
    /// Activation.
    pub activation: Activation,
}

/// The block before the stages: kernel 3, no expansion, not elastic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstBlock {
    /// Output channels, width multiplier applied.
    pub channels: usize,
    /// Activation.
    pub activation: Activation,
}

/// Blocks of one width, of which the first may halve the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Output channels at the largest width, the space's width multiplier applied.
    pub channels: usize,
    /// Output channels at each width multiplier of the space, rising; empty where the width is not elastic.
    pub channels_by_width: Vec<(Ratio, usize)>,
    /// Stride of the first block.
    pub stride: usize,
    /// Activation inside the blocks.
    pub activation: Activation,
    /// Whether the blocks have squeeze-and-excite.
    pub squeeze_excite: bool,
    /// Its choices.
    pub choices: Choices,
}

impl Stage {
    /// Output channels at a chosen width multiplier; at the largest if there is none.
    pub fn channels_at(&self, width: Option<Ratio>) -> usize {
        let listed = self.channels_by_width.iter().find(|(ratio, _)| Some(*ratio) == width);
        listed.map_or(self.channels, |(_, channels)| *channels)
    }

    /// The largest multiplier that gives as many channels: the one that stands for all equal networks.
    pub fn canonical(&self, width: Ratio) -> Ratio {
        let channels = self.channels_at(Some(width));
        let equals = self.channels_by_width.iter().filter(|(_, other)| *other == channels);
        equals.map(|(ratio, _)| *ratio).max().unwrap_or(width)
    }
}

/// The layers between the stages and the classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Channels of the convolution before the pooling, width multiplier applied.
    pub expand_channels: usize,
    /// Channels of the convolution after it, width multiplier applied; `None` where there is none.
    pub feature_channels: Option<usize>,
    /// Activation of both convolutions.
    pub activation: Activation,
}

/// The genes of one block that can exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockGenes {
    pub kernel: Choice<usize>,
    pub expand: Choice<Ratio>,
}

/// The genes of one stage.
#[derive(Clone, Debug)]
pub(crate) struct StageGenes {
    pub depth: Choice<usize>,
    pub blocks: Vec<BlockGenes>,
    /// The width, where it can be chosen.
    pub width: Option<Choice<Ratio>>,
}

/// One block's place in a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockPlace<'a> {
    pub stage: &'a Stage,
    pub genes: &'a StageGenes,
    /// Its number within the stage.
    pub position: usize,
    /// Its number in the largest network.
    pub slot: usize,
}

impl BlockPlace<'_> {
    pub fn kernel(&self) -> Choice<usize> {
        self.genes.blocks[self.position].kernel
    }

    pub fn expand(&self) -> Choice<Ratio> {
        self.genes.blocks[self.position].expand
    }

    /// The stage's stride in its first block, 1 in the others.
    pub fn stride(&self) -> usize {
        if self.position == 0 { self.stage.stride } else { 1 }
    }
}

/// All stages of a family with their genes.
#[derive(Clone, Debug)]
pub(crate) struct Stages {
    /// The space's name, for messages.
    space: String,
    /// Channels before the first stage.
    pub input: usize,
    pub resolution: Choice<Extent>,
    pub stages: Vec<Stage>,
    pub genes: Vec<StageGenes>,
}

impl Stages {
    /// Declares the resolution, then for each stage its depth and the choices of its blocks, then the widths: the order
    /// in which training has always drawn them.
    pub fn declare(space: &str, input: usize, resolutions: &[Extent], stages: Vec<Stage>) -> (Self, Genome) {
        let mut list = Declaring::new();
        let resolution = list.choice("resolution".into(), String::new(), RESOLUTION, resolutions, None);
        let mut genes: Vec<StageGenes> =
            stages.iter().enumerate().map(|(at, stage)| declare_stage(&mut list, at, stage)).collect();
        for (at, (stage, genes)) in stages.iter().zip(&mut genes).enumerate() {
            let name = format!("s{}.width", at + 1);
            let place = format!("stage {}", at + 1);
            let widths = &stage.choices.width;
            genes.width = (!widths.is_empty()).then(|| list.choice(name, place, WIDTH, widths, None));
        }
        (Self { space: space.to_string(), input, resolution, stages, genes }, list.finish())
    }

    /// The blocks and widths of a row.
    pub fn blocks(&self, genome: &Genome, row: &GeneRow) -> Blocks {
        let widths = self.genes.iter().filter_map(|genes| genes.width);
        let widths = widths.map(|width| genome.get(row, width)).collect();
        let mut stages = Vec::with_capacity(self.genes.len());
        for genes in &self.genes {
            let existing = genes.blocks[..genome.get(row, genes.depth)].iter();
            let blocks = existing.map(|block| Block {
                kernel: genome.get(row, block.kernel),
                expand: genome.get(row, block.expand),
            });
            stages.push(blocks.collect());
        }
        Blocks { stages, widths }
    }

    /// Writes blocks and widths into a row that has its resolution already.
    ///
    /// # Errors
    /// Names the stage, the block and the choice that may not be drawn; `place` names the source.
    pub fn write(&self, genome: &Genome, blocks: &Blocks, place: &str, row: &mut [Index]) -> Result<()> {
        let expected = |count: usize| format!("{count} (space {})", self.space);
        if blocks.stages.len() != self.stages.len() {
            let error =
                Error::invalid(place, "number of stages", expected(self.stages.len()), blocks.stages.len());
            return Err(error);
        }
        let widths: Vec<_> = self.genes.iter().filter_map(|genes| genes.width).collect();
        if blocks.widths.len() != widths.len() {
            let error =
                Error::invalid(place, "number of widths", expected(widths.len()), blocks.widths.len());
            return Err(error);
        }
        for (width, ratio) in widths.into_iter().zip(&blocks.widths) {
            genome.choose(row, width, *ratio, place)?;
        }
        for (genes, blocks) in self.genes.iter().zip(&blocks.stages) {
            genome.choose(row, genes.depth, blocks.len(), place)?;
            for (genes, block) in genes.blocks.iter().zip(blocks) {
                genome.choose(row, genes.kernel, block.kernel, place)?;
                genome.choose(row, genes.expand, block.expand, place)?;
            }
        }
        Ok(())
    }
}

impl Words for Stages {
    fn text(&self, genome: &Genome, row: &GeneRow) -> String {
        self.blocks(genome, row).to_string()
    }

    fn parse(&self, genome: &Genome, text: &str, place: &str, row: &mut GeneRow) -> Result<()> {
        self.write(genome, &text.parse()?, place, row)
    }

    /// Genes by stage: its width, then kernel and expand ratio of each block; last the resolution. Depths follow from
    /// the blocks that exist (Cai et al. 2020, section 3.4).
    fn features(&self) -> Vec<GeneId> {
        let mut order = Vec::new();
        for stage in &self.genes {
            order.extend(stage.width.map(Choice::gene));
            for block in &stage.blocks {
                order.extend([block.kernel.gene(), block.expand.gene()]);
            }
        }
        order.push(self.resolution.gene());
        order
    }

    /// One line per stage: its fixed sizes and its choices.
    fn describe(&self, genome: &Genome) -> Vec<String> {
        let list = |gene: GeneId| {
            genome.values_of(gene).map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
        };
        let mut lines = Vec::with_capacity(self.stages.len());
        for (at, (stage, genes)) in self.stages.iter().zip(&self.genes).enumerate() {
            let squeeze = if stage.squeeze_excite { ", squeeze-and-excite" } else { "" };
            let mut line = format!(
                "stage {}: {} channels, stride {}, {}{squeeze}",
                at + 1,
                stage.channels,
                stage.stride,
                stage.activation
            );
            if let Some(block) = genes.blocks.first() {
                let kernel = list(block.kernel.gene());
                let expand = list(block.expand.gene());
                line += &format!("; kernel {kernel}; expand {expand}");
            }
            line += &format!("; depth {}", list(genes.depth.gene()));
            if let Some(width) = genes.width {
                line += &format!("; width {}", list(width.gene()));
            }
            lines.push(line);
        }
        lines
    }
}

fn declare_stage(list: &mut Declaring, at: usize, stage: &Stage) -> StageGenes {
    let name = format!("s{}", at + 1);
    let place = format!("stage {}", at + 1);
    let depth = list.choice(format!("{name}.depth"), place.clone(), DEPTH, &stage.choices.depth, None);
    let mut blocks = Vec::with_capacity(stage.choices.max_depth());
    for position in 0..stage.choices.max_depth() {
        let there = list.only(depth, |depth: usize| depth > position);
        let named = |what: &str| format!("{name}.b{}.{what}", position + 1);
        let place = format!("{place}, block {}", position + 1);
        let kernel = list.choice(named("kernel"), place.clone(), KERNEL, &stage.choices.kernel, Some(&there));
        let expand = list.choice(named("expand"), place, EXPAND, &stage.choices.expand, Some(&there));
        blocks.push(BlockGenes { kernel, expand });
    }
    StageGenes { depth, blocks, width: None }
}

/// The choices of one block that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Block {
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Inner width over input width; in a bottleneck, over output width.
    pub expand: Ratio,
}

/// The blocks that exist, stage by stage, and the widths of stages; a stage's depth is its number of blocks.
///
/// Its text names the stages: `k3e4,k5e6/k7e3,k3e3`. Where a space is elastic in the width of its stages, each begins with
/// its multiplier: `w0.8:/w1:k3e1/w0.65:k3e0.2,k3e0.35`; the first stage there has no block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// The blocks of each stage, in order.
    pub stages: Vec<Vec<Block>>,
    /// The width multiplier of each stage; empty where the space is not elastic in them.
    pub widths: Vec<Ratio>,
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, stage) in self.stages.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "/" })?;
            if let Some(width) = self.widths.get(index) {
                write!(f, "w{width}:")?;
            }
            for (position, block) in stage.iter().enumerate() {
                let comma = if position == 0 { "" } else { "," };
                write!(f, "{comma}k{}e{}", block.kernel, block.expand)?;
            }
        }
        Ok(())
    }
}

fn unreadable(field: &str, got: &str) -> Error {
    Error::invalid("arch", field, "text like r28:k3e4,k5e6/k7e3", format!("`{got}`"))
}

impl FromStr for Block {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || unreadable("block", text);
        let (kernel, expand) =
            text.strip_prefix('k').and_then(|rest| rest.split_once('e')).ok_or_else(wrong)?;
        Ok(Self {
            kernel: kernel.parse().map_err(|_| wrong())?,
            expand: expand.parse().map_err(|_| wrong())?,
        })
    }
}

/// The blocks of a stage, possibly none: the space decides whether a stage can be so shallow.
fn blocks_of(text: &str) -> Result<Vec<Block>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',').map(Block::from_str).collect()
}

impl FromStr for Blocks {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut widths = Vec::new();
        for stage in text.split('/') {
            let (width, list) =
                stage.split_once(':').map_or((None, stage), |(width, list)| (Some(width), list));
            if let Some(width) = width {
                let ratio = width.strip_prefix('w').ok_or_else(|| unreadable("width", width))?;
                widths.push(ratio.parse().map_err(|_| unreadable("width", width))?);
            }
            blocks.push(blocks_of(list)?);
        }
        if !widths.is_empty() && widths.len() != blocks.len() {
            return Err(unreadable("widths (of all stages or none)", text));
        }
        Ok(Self { stages: blocks, widths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["k3e4,k5e6/k7e3,k3e3", "k3e0.35", "k5e6/k3e4/k7e3", "w0.8:/w1:k3e0.2,k3e1"] {
            assert_eq!(text.parse::<Blocks>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn broken_text_is_refused() {
        for text in ["k3", "k3e3,", "k3e-1", ",/k3e3", "kxe3"] {
            assert!(text.parse::<Blocks>().is_err(), "{text}");
        }
        for text in ["w1:k3e3/k3e3", "k3e3/w1:k3e3", "x1:k3e3", "w:k3e3", "w-1:k3e3", "w1:,"] {
            assert!(text.parse::<Blocks>().is_err(), "{text}");
        }
    }
}
