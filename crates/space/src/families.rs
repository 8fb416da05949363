//! Families of networks: each declares its choices and builds its layers.

mod ds_cnn;
mod inverted_residual;
mod resnet_d;
pub(crate) mod space_file;
pub(crate) mod stages;

use std::fmt::Debug;

use base::error::Result;
use serde::{Deserialize, Serialize};

use crate::builder::Builder;
use crate::genome::{Choice, Dimension, GeneId, Genome, Index, Row};
use crate::value::Extent;
use stages::Stages;

pub(crate) use ds_cnn::DsCnn;
pub(crate) use inverted_residual::InvertedResidual;
pub(crate) use resnet_d::{ResNetD, STEM_STAGES};

/// The structure that a space's networks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FamilyName {
    /// Inverted residuals with squeeze-and-excite (Howard et al. 2019, made elastic by Cai et al. 2020).
    #[serde(rename = "mobilenet-v3")]
    MobileNetV3,
    /// Inverted residuals without squeeze-and-excite, one 1x1 convolution before the pooling (Cai et al. 2019, made
    /// elastic by Cai et al. 2020).
    #[serde(rename = "proxyless-nas")]
    ProxylessNas,
    /// Bottlenecks whose shortcut is averaged where it shrinks (He et al. 2016; the variant D of He et al. 2019, made
    /// elastic in PyPI's `ofa`). Its stem is two stages: the convolution that can be skipped, and the one after it.
    #[serde(rename = "resnet-d")]
    ResNetD,
    /// Depthwise-separable blocks of elastic width, for spectrograms (Zhang et al. 2017).
    DsCnn,
}

/// Every kind of choice of which a phase of training can allow the largest few, over all families.
pub const KINDS: [Dimension; 4] = [stages::KERNEL, stages::DEPTH, stages::EXPAND, stages::WIDTH];

/// What every network has: an input whose resolution is the first choice, and classes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Side or sides of the input.
    pub resolution: Choice<Extent>,
    /// Channels of the input.
    pub input_channels: usize,
    /// Number of classes.
    pub classes: usize,
}

/// One way to build networks of choices. All of it was checked when it was declared, so nothing here fails but reading a
/// text that somebody wrote. What is not said otherwise is as in a network of stages of blocks.
pub(crate) trait Family: Debug + Send + Sync {
    /// Pushes each slot, in the order in which layers run.
    fn build(&self, b: &mut Builder<'_>);

    /// What a row's sub-network is called, its resolution left out.
    fn text(&self, genome: &Genome, row: &Row) -> String {
        self.stages().blocks(genome, row).to_string()
    }

    /// The row that a text names; `row` has its resolution already. `place` is for messages.
    ///
    /// # Errors
    /// If the text is no text of this family, or names a value that may not be chosen.
    fn parse(&self, genome: &Genome, text: &str, place: &str, row: &mut Vec<Index>) -> Result<()> {
        self.stages().write(genome, &text.parse()?, place, row)
    }

    /// The genes that predictors see, in the order of their features.
    fn features(&self) -> Vec<GeneId> {
        self.stages().features()
    }

    /// What its networks are like, a line each, for people.
    fn describe(&self, genome: &Genome) -> Vec<String> {
        self.stages().describe(genome)
    }

    /// Its stages, which the formats of OFA speak of.
    fn stages(&self) -> &Stages;
}
