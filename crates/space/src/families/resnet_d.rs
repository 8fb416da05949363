//! ResNet, variant D: a stem of two or three convolutions, stages of bottlenecks, all of elastic width.
//!
//! The stem is two stages of the sub-network, each of one kernel and one expand ratio, so that sampling, encoding,
//! search and training need no special case for it. Of width multipliers that give equal channels only the largest is a
//! choice, so that equal networks are equal values.

use super::stages::{BlockPlace, Stage, StageGenes, Stages, Stem};
use super::{Ends, Family, Words};
use crate::builder::{Builder, Port, SlotName};
use crate::layer::inner_channels;
use crate::operators::{Bottleneck, Operator};
use crate::trace::{Traced, fixed, traced};
use crate::value::Extent;

/// Number of stages that form the stem.
pub(crate) const STEM_STAGES: usize = 2;

/// A network of bottlenecks.
#[derive(Clone, Debug)]
pub(crate) struct ResNetD {
    pub ends: Ends,
    pub stem: Stem,
    /// The stem's two stages come first: one keeps the channels and adds its input, the next changes them.
    pub stages: Stages,
}

impl Family for ResNetD {
    fn build(&self, b: &mut Builder<'_>) {
        let image = b.input(self.ends.input_channels, self.ends.resolution);
        let mut x = self.stem(b, &image);
        x = b.push(SlotName::one("max_pooling"), &[&x], x.channels.clone(), x.through(2), |_| {
            Operator::MaxPool { stride: 2 }
        });
        let mut slot = 0;
        let pairs = self.stages.stages[STEM_STAGES - 1..].iter().zip(&self.stages.stages[STEM_STAGES..]);
        for ((before, stage), genes) in pairs.zip(&self.stages.genes[STEM_STAGES..]) {
            let same = same_channels(before, stage);
            for position in 0..genes.blocks.len() {
                let exists = b.test(genes.depth, |depth| depth > position);
                let place = BlockPlace { stage, genes, position, slot };
                let block = b.when(&exists, |b| block(b, &x, place, position == 0 && !same));
                x = block.or(&x);
                slot += 1;
            }
        }
        x = b.push(SlotName::one("pool"), &[&x], x.channels.clone(), fixed(Extent::ONE), |_| Operator::Pool);
        b.push(SlotName::one("classifier"), &[&x], fixed(self.ends.classes), fixed(Extent::ONE), |_| {
            Operator::Classifier
        });
    }

    fn words(&self) -> &dyn Words {
        &self.stages
    }

    fn stages(&self) -> Option<&Stages> {
        Some(&self.stages)
    }
}

impl ResNetD {
    fn stem(&self, b: &mut Builder<'_>, image: &Port) -> Port {
        let Stem { stride, activation, .. } = self.stem;
        let stages = self.stages.stages.iter().zip(&self.stages.genes);
        let mut x = None;
        for (at, (stage, genes)) in stages.take(STEM_STAGES).enumerate() {
            let channels = width(b, stage, genes);
            let first = match x.take() {
                Some(before) => before,
                None => b.push(
                    SlotName::numbered("input_stem", 0),
                    &[image],
                    channels.clone(),
                    image.through(stride),
                    |_| Operator::Stem { kernel: 3, stride, activation },
                ),
            };
            let exists = b.test(genes.depth, |depth| depth > 0);
            let residual = at == 0;
            let convolution = b.when(&exists, |b| {
                let kernel = genes.blocks.first().map(|block| b.of(block.kernel));
                b.push(
                    SlotName::numbered("input_stem", 1 + at),
                    &[&first],
                    channels.clone(),
                    first.extent.clone(),
                    |t| Operator::Conv {
                        kernel: kernel.as_ref().map_or(3, |kernel| t.get(kernel)),
                        stride: 1,
                        activation: stage.activation,
                        residual,
                    },
                )
            });
            x = Some(convolution.or(&first));
        }
        x.expect("a stem has stages")
    }
}

/// The output channels of a stage.
fn width(b: &Builder<'_>, stage: &Stage, genes: &StageGenes) -> Traced<usize> {
    let Some(width) = genes.width else { return fixed(stage.channels) };
    let width = b.of(width);
    traced(|t| stage.channels_at(Some(t.get(&width))))
}

/// Whether a stage can begin with the plain shortcut. All choices of the stages decide it, not the chosen ones: all
/// sub-networks share the block's weights.
fn same_channels(before: &Stage, stage: &Stage) -> bool {
    stage.stride == 1
        && before.channels == stage.channels
        && before.channels_by_width.len() <= 1
        && stage.channels_by_width.len() <= 1
}

/// One block, as if it existed. `downsample`: its shortcut is a pooling and a convolution.
fn block(b: &mut Builder<'_>, x: &Port, place: BlockPlace<'_>, downsample: bool) -> Port {
    let BlockPlace { stage, genes, slot, .. } = place;
    let stride = place.stride();
    let kernel = b.of(place.kernel());
    let expand = b.of(place.expand());
    let channels = width(b, stage, genes);
    b.push(SlotName::numbered("blocks", slot), &[x], channels.clone(), x.through(stride), |t| {
        Operator::Bottleneck(Bottleneck {
            kernel: t.get(&kernel),
            stride,
            mid: inner_channels(t.get(&expand), t.get(&channels)),
            activation: stage.activation,
            downsample,
        })
    })
}
