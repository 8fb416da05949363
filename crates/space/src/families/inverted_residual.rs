//! MobileNetV3 and ProxylessNAS: a stem, one block that is not elastic, stages of inverted residuals, a head.

use super::stages::{BlockPlace, FirstBlock, Head, Stages, Stem};
use super::{Ends, Family, Words};
use crate::builder::{Builder, Port, SlotName};
use crate::layer::{LayerSpec, inner_channels};
use crate::operators::{MbConv, Operator};
use crate::trace::fixed;
use crate::value::Extent;

/// A network of inverted residuals.
#[derive(Clone, Debug)]
pub(crate) struct InvertedResidual {
    pub ends: Ends,
    pub stem: Stem,
    pub first_block: Option<FirstBlock>,
    /// Whether the first block adds its input where it can; ProxylessNAS never has a shortcut there.
    pub first_block_adds: bool,
    pub stages: Stages,
    pub head: Option<Head>,
}

impl Family for InvertedResidual {
    fn build(&self, b: &mut Builder<'_>) {
        let image = b.input(self.ends.input_channels, self.ends.resolution);
        let Stem { channels, stride, activation } = self.stem;
        let mut x =
            b.push(SlotName::one("first_conv"), &[&image], fixed(channels), image.through(stride), |_| {
                Operator::Stem { kernel: 3, stride, activation }
            });
        x = self.first_block(b, x);
        let mut slot = 1;
        for (stage, genes) in self.stages.stages.iter().zip(&self.stages.genes) {
            for position in 0..genes.blocks.len() {
                let exists = b.test(genes.depth, |depth| depth > position);
                let place = BlockPlace { stage, genes, position, slot };
                let block = b.when(&exists, |b| block(b, &x, place));
                x = block.or(&x);
                slot += 1;
            }
        }
        x = self.head(b, x);
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

impl InvertedResidual {
    /// The one block that is not elastic: kernel 3, no expansion.
    fn first_block(&self, b: &mut Builder<'_>, x: Port) -> Port {
        let Some(first) = self.first_block else { return x };
        let mid = self.stem.channels;
        let block = MbConv {
            kernel: 3,
            stride: 1,
            mid,
            expansion: false,
            activation: first.activation,
            squeeze: None,
            residual: mid == first.channels && self.first_block_adds,
        };
        b.push(SlotName::numbered("blocks", 0), &[&x], fixed(first.channels), x.extent.clone(), |_| {
            Operator::MbConv(block.clone())
        })
    }

    /// The names are those of the authors' two classes.
    fn head(&self, b: &mut Builder<'_>, mut x: Port) -> Port {
        let Some(Head { expand_channels, feature_channels, activation }) = self.head else { return x };
        let name = if feature_channels.is_some() { "final_expand_layer" } else { "feature_mix_layer" };
        x = b.push(SlotName::one(name), &[&x], fixed(expand_channels), x.extent.clone(), |_| {
            Operator::HeadConv { activation }
        });
        x = b.push(SlotName::one("pool"), &[&x], fixed(expand_channels), fixed(Extent::ONE), |_| {
            Operator::Pool
        });
        if let Some(channels) = feature_channels {
            x = b.push(
                SlotName::one("feature_mix_layer"),
                &[&x],
                fixed(channels),
                fixed(Extent::ONE),
                |_| Operator::FeatureMix { activation },
            );
        }
        x
    }
}

/// One elastic block, as if it existed.
fn block(b: &mut Builder<'_>, x: &Port, place: BlockPlace<'_>) -> Port {
    let BlockPlace { stage, slot, .. } = place;
    let kernel = b.of(place.kernel());
    let expand = b.of(place.expand());
    let stride = place.stride();
    b.push(SlotName::numbered("blocks", slot), &[x], fixed(stage.channels), x.through(stride), |t| {
        let channels = t.get(&x.channels);
        let mid = inner_channels(t.get(&expand), channels);
        Operator::MbConv(MbConv {
            kernel: t.get(&kernel),
            stride,
            mid,
            expansion: true,
            activation: stage.activation,
            squeeze: stage.squeeze_excite.then(|| LayerSpec::squeeze_of(mid)),
            residual: stride == 1 && channels == stage.channels,
        })
    })
}
