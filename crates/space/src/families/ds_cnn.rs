//! DS-CNN (Zhang et al. 2017, "Hello Edge"): a stem, stages of depthwise-separable blocks of elastic width, a mean over all
//! places, a classifier.
//!
//! For spectrograms, whose extents need not be equal or even. The paper's stem is 10 x 4 wide; kernels here are square.

use base::error::{Error, Result};

use super::door::Door;
use super::space_file::SpaceFile;
use super::stages::{BlockPlace, Stages, Stem};
use super::{Ends, Family, Words};
use crate::builder::{Builder, Port, SlotName};
use crate::operators::{Operator, Separable};
use crate::trace::{fixed, traced};
use crate::value::{Extent, Ratio};

/// Side of the stem's kernel.
const STEM_KERNEL: usize = 5;

/// A network of depthwise-separable blocks, whose expand ratios are all 1.
#[derive(Clone, Debug)]
pub(crate) struct DsCnn {
    pub ends: Ends,
    pub stem: Stem,
    pub stages: Stages,
}

impl Family for DsCnn {
    fn build(&self, b: &mut Builder<'_>) {
        let image = b.input(self.ends.input_channels, self.ends.resolution);
        let Stem { channels, stride, activation } = self.stem;
        let mut x =
            b.push(SlotName::one("first_conv"), &[&image], fixed(channels), image.through(stride), |_| {
                Operator::Stem { kernel: STEM_KERNEL, stride, activation }
            });
        let mut slot = 0;
        for (stage, genes) in self.stages.stages.iter().zip(&self.stages.genes) {
            for position in 0..genes.blocks.len() {
                let exists = b.test(genes.depth, |depth| depth > position);
                let place = BlockPlace { stage, genes, position, slot };
                let block = b.when(&exists, |b| block(b, &x, place));
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

/// Refuses fields that such a network does not have: its blocks have no expansion and no squeeze-and-excite, and there
/// is no layer between stem, stages and classifier.
pub(super) fn check(file: &SpaceFile, door: &Door) -> Result<()> {
    let family = file.family;
    door.belongs(family, "first_block", file.first_block.is_some(), false)?;
    door.belongs(family, "head", file.head.is_some(), false)?;
    door.belongs(family, "stem.depth", file.stem().depth.is_some(), false)?;
    door.belongs(family, "operator", file.operator.is_some(), false)?;
    door.belongs(family, "connection", file.connection.is_some(), false)?;
    check_expand(door, "expand", &file.expand)?;
    for (index, stage) in file.stages.iter().enumerate() {
        let field = |name: &str| format!("stages[{}].{name}", index + 1);
        door.belongs(family, &field("squeeze_excite"), stage.squeeze_excite, false)?;
        door.belongs(family, &field("operator"), stage.operator.is_some(), false)?;
        door.belongs(family, &field("connection"), stage.connection.is_some(), false)?;
        check_expand(door, &field("expand"), stage.expand.as_ref().unwrap_or(&file.expand))?;
    }
    Ok(())
}

fn check_expand(door: &Door, field: &str, expand: &[Ratio]) -> Result<()> {
    if expand == [Ratio::whole(1)] {
        return Ok(());
    }
    let got: Vec<String> = expand.iter().map(Ratio::to_string).collect();
    let got = format!("[{}]", got.join(", "));
    Err(Error::invalid(door.place, field, "[1] in family \"ds-cnn\"", got))
}

/// One block, as if it existed.
fn block(b: &mut Builder<'_>, x: &Port, place: BlockPlace<'_>) -> Port {
    let BlockPlace { stage, genes, slot, .. } = place;
    let kernel = b.of(place.kernel());
    let stride = place.stride();
    let width = genes.width.map(|width| b.of(width));
    let channels = traced(|t| stage.channels_at(width.as_ref().map(|width| t.get(width))));
    b.push(SlotName::numbered("blocks", slot), &[x], channels, x.through(stride), |t| {
        Operator::Separable(Separable { kernel: t.get(&kernel), stride, activation: stage.activation })
    })
}
