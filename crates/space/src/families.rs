//! Families of networks: each declares its choices and builds its layers.

mod cell_operator;
mod dense_cell;
mod door;
mod ds_cnn;
mod inverted_residual;
mod operator_choice;
mod resnet_d;
mod skip_layers;
pub(crate) mod space_file;
pub(crate) mod stages;
#[cfg(test)]
mod testing;

use std::fmt::{self, Debug};

use base::error::Result;
use serde::{Deserialize, Serialize};

use crate::builder::Builder;
use crate::genome::{Choice, Dimension, GeneId, GeneRow, Genome};
use crate::value::Extent;
use stages::Stages;

pub(crate) use dense_cell::{CellFile, DenseCell};
pub(crate) use ds_cnn::DsCnn;
pub(crate) use inverted_residual::InvertedResidual;
pub(crate) use operator_choice::{BlockOperator, ChoiceStage, OperatorChoice};
pub(crate) use resnet_d::{ResNetD, STEM_STAGES};
pub(crate) use skip_layers::{LayersFile, SkipLayers};

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
    /// Blocks that choose between an inverted residual, a plain convolution and no layer, in stages that a connection may
    /// lead past.
    OperatorChoice,
    /// Depthwise-separable blocks of elastic width, for spectrograms (Zhang et al. 2017).
    DsCnn,
    /// Cells in which each earlier node has an edge, with an operator to choose, to each later one (Dong and Yang 2020).
    DenseCell,
    /// Layers that choose an operator and which earlier outputs are added to theirs (Pham et al. 2018, ENAS's macro space).
    SkipLayers,
}

/// Every kind of choice of which a phase of training can allow the largest few, over all families.
pub const KINDS: [Dimension; 6] = [
    stages::KERNEL,
    stages::DEPTH,
    stages::EXPAND,
    stages::WIDTH,
    operator_choice::OPERATOR,
    operator_choice::CONNECTION,
];

/// The input, whose resolution is the first choice, and the classes, which every network has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// Side or sides of the input.
    pub resolution: Choice<Extent>,
    /// Channels of the input.
    pub input_channels: usize,
    /// Number of classes.
    pub classes: usize,
}

/// The name in files.
impl fmt::Display for FamilyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One way to build networks of choices. Everything was checked when it was declared, so nothing here fails.
pub(crate) trait Family: Debug + Send + Sync {
    /// Pushes each slot, in the order in which layers run.
    fn build(&self, b: &mut Builder<'_>);

    /// The names of its choices.
    fn words(&self) -> &dyn Words;

    /// The choices of which a mixture can hold several values at once, each weighted where its output is added.
    fn mixed(&self) -> Vec<GeneId> {
        Vec::new()
    }

    /// Its stages, where they have the choices of OFA's formats: kernels, expand ratios, depths, widths.
    fn stages(&self) -> Option<&Stages> {
        None
    }
}

/// The names of a family's choices, in files and for people. Only a text that somebody wrote can be wrong.
pub(crate) trait Words {
    /// The text of a row's sub-network, without the resolution.
    fn text(&self, genome: &Genome, row: &GeneRow) -> String;

    /// Reads a text into `row`, which has its resolution already. `place` is for messages.
    ///
    /// # Errors
    /// If the text is not of this family, or names a value that may not be chosen.
    fn parse(&self, genome: &Genome, text: &str, place: &str, row: &mut GeneRow) -> Result<()>;

    /// The genes with features for predictors, in the order of their features.
    fn features(&self) -> Vec<GeneId>;

    /// A description of its networks for people, one line per part.
    fn describe(&self, genome: &Genome) -> Vec<String>;
}
