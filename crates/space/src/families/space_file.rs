//! Reads, checks and writes search spaces as TOML.

use std::sync::Arc;

use base::document::check_version;
use base::error::{Error, Result};
use serde::{Deserialize, Serialize};

use super::door::{Door, LARGEST};
use super::ds_cnn;
use super::stages::{Choices, FirstBlock, Head, Stage, Stages, Stem};
use super::{
    BlockOperator, CellFile, ChoiceStage, DenseCell, DsCnn, Ends, Family, FamilyName, InvertedResidual,
    LayersFile, OperatorChoice, ResNetD, SkipLayers,
};
use crate::activation::Activation;
use crate::genome::Genome;
use crate::layer::make_divisible;
use crate::search_space::SearchSpace;
use crate::value::{Extent, Ratio};

/// Version of the format that this code writes and reads.
pub(crate) const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpaceFile {
    pub version: u32,
    pub name: String,
    pub family: FamilyName,
    pub classes: usize,
    pub input_channels: usize,
    pub resolutions: Vec<Extent>,
    #[serde(default = "one")]
    pub width_multiplier: f64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expand: Vec<Ratio>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depth: Vec<usize>,
    /// Multipliers of each stage's width that can be chosen; only for a ResNet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<Vec<Ratio>>,
    /// Operators of a block; only for an operator choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Vec<BlockOperator>>,
    /// Whether a stage has a connection past it: 0, 1 or either; only for an operator choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Vec<usize>>,
    /// The choices of the one sub-network that the space holds, if it holds one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// PyTorch's default, which OFA's MobileNetV3 keeps.
    #[serde(default = "default_epsilon")]
    pub batch_norm_epsilon: f32,
    /// Before the classifier, in training only; OFA's value is .1.
    #[serde(default = "default_dropout")]
    pub dropout: f32,
    /// In every family but those of cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stem: Option<StemFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_block: Option<FirstBlockFile>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadFile>,
    /// Only for cells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<CellFile>,
    /// Only for layers with skips.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayersFile>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StemFile {
    pub channels: usize,
    pub stride: usize,
    pub activation: Activation,
    /// Numbers of convolutions between the stem's first and last, 0 or 1; only for a ResNet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Vec<usize>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstBlockFile {
    pub channels: usize,
    pub activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageFile {
    pub channels: usize,
    pub stride: usize,
    pub activation: Activation,
    #[serde(default)]
    pub squeeze_excite: bool,
    /// Given where it differs from the space's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<Vec<Ratio>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<Vec<Ratio>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<Vec<BlockOperator>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Vec<usize>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeadFile {
    pub expand_channels: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature_channels: Option<usize>,
    pub activation: Activation,
}

fn one() -> f64 {
    1.0
}

fn default_epsilon() -> f32 {
    1e-5
}

fn default_dropout() -> f32 {
    0.1
}

impl SpaceFile {
    /// Turns the written form into a space that cannot be wrong.
    pub(crate) fn check(self, place: &str) -> Result<SearchSpace> {
        let door = Door { place };
        check_version(place, self.version, VERSION)?;
        if self.name.is_empty() {
            return Err(Error::invalid(place, "name", "some text", "none"));
        }
        door.within("classes", self.classes, 2, LARGEST)?;
        door.within("input_channels", self.input_channels, 1, 64)?;
        door.rising("resolutions", &self.resolutions)?;
        for resolution in &self.resolutions {
            door.within("resolutions", resolution.height, 4, 4096)?;
            door.within("resolutions", resolution.width, 4, 4096)?;
        }
        door.share("width_multiplier", self.width_multiplier, 0.05, 16.0)?;
        door.share("batch_norm_epsilon", f64::from(self.batch_norm_epsilon), f64::from(1e-12f32), 1.0)?;
        door.share("dropout", f64::from(self.dropout), 0.0, 1.0)?;
        let only = self.only.clone();
        let of_cells = self.family == FamilyName::DenseCell;
        let of_layers = self.family == FamilyName::SkipLayers;
        door.belongs(self.family, "cell", self.cell.is_some(), of_cells)?;
        door.belongs(self.family, "layers", self.layers.is_some(), of_layers)?;
        let space = if of_cells || of_layers {
            self.assemble_operators(&door)?
        } else {
            door.belongs(self.family, "stem", self.stem.is_some(), true)?;
            door.within("number of stages", self.stages.len(), 1, 64)?;
            self.check_family(&door)?;
            door.choices("", &self.choices())?;
            self.assemble(&door)?
        };
        match only {
            Some(choices) => space.narrowed_to(&choices, &format!("{place}: only")),
            None => Ok(space),
        }
    }

    /// The stem, which every family has that comes this far.
    pub(super) fn stem(&self) -> &StemFile {
        self.stem.as_ref().expect("a checked file has one")
    }

    /// A space of cells or of layers with skips; refuses the fields of blocks.
    fn assemble_operators(self, door: &Door) -> Result<SearchSpace> {
        let family = self.family;
        for (field, given) in [
            ("kernel", !self.kernel.is_empty()),
            ("expand", !self.expand.is_empty()),
            ("depth", !self.depth.is_empty()),
            ("width", self.width.is_some()),
            ("width_multiplier", self.width_multiplier != one()),
            ("operator", self.operator.is_some()),
            ("connection", self.connection.is_some()),
            ("stem", self.stem.is_some()),
            ("first_block", self.first_block.is_some()),
            ("stages", !self.stages.is_empty()),
            ("head", self.head.is_some()),
        ] {
            door.belongs(family, field, given, false)?;
        }
        if let Some(layers) = self.layers.clone() {
            layers.check(door)?;
            let (family, genome) = SkipLayers::declare(&self, layers);
            return self.checked(door, Arc::new(family), genome);
        }
        let cell = self.cell.clone().expect("one of both was given");
        cell.check(door)?;
        let (family, genome) = DenseCell::declare(&self, cell);
        self.checked(door, Arc::new(family), genome)
    }

    fn choices(&self) -> Choices {
        let kernel = self.kernel.clone();
        let expand = self.expand.clone();
        let depth = self.depth.clone();
        Choices { kernel, expand, depth, width: self.widths() }
    }

    /// The width multipliers of every stage; a ResNet has at least one.
    fn widths(&self) -> Vec<Ratio> {
        let all = || vec![Ratio::whole(1)];
        if self.family == FamilyName::DsCnn {
            return self.width.clone().unwrap_or_else(all);
        }
        if self.family == FamilyName::ResNetD { self.width.clone().unwrap_or_else(all) } else { Vec::new() }
    }

    /// Refuses fields of another family: no network is half of each.
    fn check_family(&self, door: &Door) -> Result<()> {
        let family = self.family;
        if family == FamilyName::DsCnn {
            return ds_cnn::check(self, door);
        }
        let resnet = family == FamilyName::ResNetD;
        let mixes = family == FamilyName::MobileNetV3;
        let chooses = family == FamilyName::OperatorChoice;
        door.belongs(family, "first_block", self.first_block.is_some(), !resnet && !chooses)?;
        door.belongs(family, "head", self.head.is_some(), !resnet && !chooses)?;
        door.belongs(family, "operator", self.operator.is_some(), chooses)?;
        door.belongs(family, "connection", self.connection.is_some(), chooses)?;
        if let Some(head) = &self.head {
            door.belongs(family, "head.feature_channels", head.feature_channels.is_some(), mixes)?;
        }
        door.belongs(family, "width", self.width.is_some(), resnet && self.width.is_some())?;
        door.belongs(family, "stem.depth", self.stem().depth.is_some(), resnet)?;
        for (index, stage) in self.stages.iter().enumerate() {
            let field = |name: &str| format!("stages[{}].{name}", index + 1);
            door.belongs(family, &field("width"), stage.width.is_some(), resnet && stage.width.is_some())?;
            if !chooses {
                door.belongs(family, &field("operator"), stage.operator.is_some(), false)?;
                door.belongs(family, &field("connection"), stage.connection.is_some(), false)?;
            }
            if resnet {
                door.belongs(family, &field("squeeze_excite"), stage.squeeze_excite, false)?;
                let kernels = stage.kernel.as_ref().unwrap_or(&self.kernel);
                door.within(&format!("{} (number of choices)", field("kernel")), kernels.len(), 1, 1)?;
            }
        }
        Ok(())
    }

    fn assemble(self, door: &Door) -> Result<SearchSpace> {
        door.within("stem.stride", self.stem().stride, 1, 2)?;
        let stem = Stem {
            channels: self.widened(door, "stem.channels", self.stem().channels)?,
            stride: self.stem().stride,
            activation: self.stem().activation,
        };
        let mut stages = self.stem_stages(door)?;
        for (index, stage) in self.stages.iter().enumerate() {
            stages.push(self.stage(door, index, stage)?);
        }
        door.cells(&self.resolutions, &stages)?;
        if self.family == FamilyName::OperatorChoice {
            let stages = self.choice_stages(door, stages)?;
            let (family, genome) = OperatorChoice::declare(&self, stem, stages);
            return self.checked(door, Arc::new(family), genome);
        }
        let first_block = self.checked_first_block(door)?;
        let head = self.checked_head(door)?;
        let input = first_block.map_or(stem.channels, |first| first.channels);
        let (stages, genome) = Stages::declare(&self.name, input, &self.resolutions, stages);
        let input_channels = self.input_channels;
        let classes = self.classes;
        let ends = Ends { resolution: stages.resolution, input_channels, classes };
        let family: Arc<dyn Family> = match self.family {
            FamilyName::ResNetD => Arc::new(ResNetD { ends, stem, stages }),
            FamilyName::DsCnn => Arc::new(DsCnn { ends, stem, stages }),
            _ => {
                let first_block_adds = self.family == FamilyName::MobileNetV3;
                Arc::new(InvertedResidual { ends, stem, first_block, first_block_adds, stages, head })
            }
        };
        self.checked(door, family, genome)
    }

    fn checked(self, door: &Door, family: Arc<dyn Family>, genome: Genome) -> Result<SearchSpace> {
        let space = SearchSpace::new(self, family, genome);
        door.parameters(&space)?;
        Ok(space)
    }

    /// Stages with the choices of their blocks: the space's lists where a stage has none of its own.
    fn choice_stages(&self, door: &Door, stages: Vec<Stage>) -> Result<Vec<ChoiceStage>> {
        let mut checked = Vec::with_capacity(stages.len());
        for (index, (file, stage)) in self.stages.iter().zip(stages).enumerate() {
            let operators = file.operator.clone().or_else(|| self.operator.clone()).unwrap_or_default();
            let connections = file.connection.clone().or_else(|| self.connection.clone()).unwrap_or_default();
            let stage = ChoiceStage { stage, operators, connections };
            checked.push(stage.checked(door, &format!("stages[{}]", index + 1))?);
        }
        Ok(checked)
    }

    fn checked_first_block(&self, door: &Door) -> Result<Option<FirstBlock>> {
        let Some(first) = &self.first_block else { return Ok(None) };
        let channels = self.widened(door, "first_block.channels", first.channels)?;
        Ok(Some(FirstBlock { channels, activation: first.activation }))
    }

    fn checked_head(&self, door: &Door) -> Result<Option<Head>> {
        let Some(head) = &self.head else { return Ok(None) };
        Ok(Some(Head {
            expand_channels: self.widened(door, "head.expand_channels", head.expand_channels)?,
            feature_channels: head
                .feature_channels
                .map(|channels| self.widened(door, "head.feature_channels", channels))
                .transpose()?,
            activation: head.activation,
        }))
    }

    /// The two stages of a ResNet's stem: the convolution that can be skipped, half as wide as the one after it.
    fn stem_stages(&self, door: &Door) -> Result<Vec<Stage>> {
        let Some(depth) = &self.stem().depth else { return Ok(Vec::new()) };
        door.rising("stem.depth", depth)?;
        for &depth in depth {
            door.within("stem.depth", depth, 0, 1)?;
        }
        door.within("stem.channels", self.stem().channels, 1, LARGEST)?;
        let out = |width: Ratio| self.at_width(self.stem().channels, width);
        let stage = |depth: &[usize], channels: &dyn Fn(Ratio) -> usize| {
            let widths = self.widths();
            let by_width = widths.iter().map(|&width| (width, channels(width))).collect();
            let kernel = vec![3];
            let expand = vec![Ratio::whole(1)];
            let choices = Choices { kernel, expand, depth: depth.to_vec(), width: widths };
            elastic(by_width, 1, self.stem().activation, choices)
        };
        Ok(vec![stage(depth, &|width| make_divisible((out(width) / 2) as f64, 8)), stage(&[1], &out)])
    }

    /// Channels at one of the widths that can be chosen.
    fn at_width(&self, channels: usize, width: Ratio) -> usize {
        make_divisible(channels as f64 * self.width_multiplier * width.ratio(), 8)
    }

    fn widened(&self, door: &Door, field: &str, channels: usize) -> Result<usize> {
        door.within(field, channels, 1, LARGEST)?;
        Ok(make_divisible(channels as f64 * self.width_multiplier, 8))
    }

    fn stage(&self, door: &Door, index: usize, stage: &StageFile) -> Result<Stage> {
        let prefix = format!("stages[{}].", index + 1);
        let all = self.choices();
        let choices = Choices {
            kernel: stage.kernel.clone().unwrap_or(all.kernel),
            expand: stage.expand.clone().unwrap_or(all.expand),
            depth: stage.depth.clone().unwrap_or(all.depth),
            width: stage.width.clone().unwrap_or(all.width),
        };
        door.choices(&prefix, &choices)?;
        door.within(&format!("{prefix}stride"), stage.stride, 1, 2)?;
        let channels = self.widened(door, &format!("{prefix}channels"), stage.channels)?;
        let by_width = choices.width.iter().map(|&width| (width, self.at_width(stage.channels, width)));
        let by_width: Vec<_> = by_width.collect();
        let squeeze_excite = stage.squeeze_excite;
        if by_width.is_empty() {
            let stride = stage.stride;
            let activation = stage.activation;
            return Ok(Stage {
                channels,
                channels_by_width: by_width,
                stride,
                activation,
                squeeze_excite,
                choices,
            });
        }
        Ok(elastic(by_width, stage.stride, stage.activation, choices))
    }
}

/// A stage whose width can be chosen; of widths that give equal channels only the largest is a choice.
fn elastic(
    channels_by_width: Vec<(Ratio, usize)>,
    stride: usize,
    activation: Activation,
    choices: Choices,
) -> Stage {
    let channels = channels_by_width.iter().map(|(_, channels)| *channels).max().unwrap_or(0);
    let mut stage = Stage { channels, channels_by_width, stride, activation, squeeze_excite: false, choices };
    let widths = stage.choices.width.clone();
    stage.choices.width = widths.into_iter().filter(|&width| stage.canonical(width) == width).collect();
    stage
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{preset, preset_names};

    #[test]
    fn presets_round_trip() {
        for name in preset_names() {
            let space = preset(name).expect("a preset");
            assert_eq!(space.name(), name);
            assert_eq!(SearchSpace::from_toml("text", &space.to_toml()).expect("own text"), space);
        }
    }

    #[test]
    fn broken_spaces_are_refused_with_the_field() {
        let good = preset("tiny").expect("a preset").to_toml();
        let table = [
            ("version = 1", "version = 2", "version"),
            ("classes = 10", "classes = 1", "classes"),
            ("classes = 10", "classes = -1", "text"),
            ("kernel = [3, 5, 7]", "kernel = [3, 4]", "kernel"),
            ("kernel = [3, 5, 7]", "kernel = [5, 3]", "kernel"),
            ("kernel = [3, 5, 7]", "kernel = []", "kernel"),
            ("depth = [", "depth = [0, ", "depth"),
            ("dropout = 0.0", "dropout = 1.5", "dropout"),
            ("dropout = 0.0", "dropout = nan", "dropout"),
            ("name = \"tiny\"", "name = \"\"", "name"),
            ("dropout = 0.0", "dropout = 0.0\nonly = \"k3e3\"", "only: number of stages: expected 2"),
            ("dropout = 0.0", "dropout = 0.0\nonly = \"k3e9,k3e3/k3e3\"", "only: "),
            ("classes = 10", "clases = 10", "text"),
            (
                "dropout = 0.0",
                "dropout = 0.0\nwidth = [1]",
                "width: expected none in family \"mobilenet-v3\", got one",
            ),
            (
                "family = \"mobilenet-v3\"",
                "family = \"proxyless-nas\"",
                "head.feature_channels: expected none",
            ),
            ("family = \"mobilenet-v3\"", "family = \"resnet-d\"", "first_block: expected none"),
            ("feature_channels = 128", "", "head.feature_channels: expected one in family"),
        ];
        check_refused(&good, &table);
        let good = preset("tiny-spectrogram").expect("a preset").to_toml();
        let table = [
            ("expand = [1]", "expand = [1, 2]", "expand: expected [1] in family \"ds-cnn\", got [1, 2]"),
            (
                "stride = 1\n",
                "stride = 1\nsqueeze_excite = true\n",
                "stages[1].squeeze_excite: expected none in family \"ds-cnn\", got one",
            ),
            ("stride = 1\n", "stride = 1\nexpand = [0.5]\n", "stages[1].expand: expected [1]"),
            ("[stem]", "[stem]\ndepth = [0, 1]", "stem.depth: expected none in family"),
            ("[stem]", "[stem]\nconnection = [0]", "unknown field"),
            ("width = [0.5, 1]", "width = [0.5, 1]\nconnection = [0]", "connection: expected none in family"),
            ("stride = 1\n", "stride = 1\noperator = [\"conv\"]\n", "stages[1].operator: expected none"),
            ("width = [0.5, 1]", "width = [1, 0.5]", "width"),
        ];
        let good = good.replace("squeeze_excite = false\n", "");
        check_refused(&good, &table);
    }

    /// Errors for a text with one part replaced by another, each by its field.
    fn check_refused(good: &str, table: &[(&str, &str, &str)]) {
        for &(from, to, field) in table {
            assert!(good.contains(from), "{from} in\n{good}");
            let error = SearchSpace::from_toml("x.toml", &good.replace(from, to)).expect_err(to).to_string();
            assert!(error.starts_with("x.toml: ") && error.contains(field), "{to}: {error}");
        }
    }

    #[test]
    fn spaces_of_too_many_choices_are_refused() {
        let good = preset("tiny").expect("a preset").to_toml();
        let replaced = |text: &str, key: &str, list: &[String]| -> String {
            text.lines()
                .map(|line: &str| match line.starts_with(&format!("{key} = ")) {
                    true => format!("{key} = [{}]\n", list.join(", ")),
                    false => format!("{line}\n"),
                })
                .collect()
        };
        let sides = |count: usize| (4..4 + count).map(|side| side.to_string()).collect::<Vec<_>>();
        let rectangles =
            (4..40).flat_map(|height| (4..2004).map(move |width| format!("\"{height}x{width}\"")));
        let ratios = |list: std::ops::RangeInclusive<u32>| -> Vec<String> {
            list.map(|hundredths| Ratio::hundredths(hundredths).to_string()).collect()
        };
        let error = |text: &str| SearchSpace::from_toml("x.toml", text).expect_err("too many").to_string();
        let told = error(&replaced(&good, "resolutions", &rectangles.collect::<Vec<_>>()));
        assert!(told.contains("resolutions (number of choices): expected 1 to 4096, got 72000"), "{told}");
        let told = error(&replaced(&good, "expand", &ratios(1..=5000)));
        assert!(told.contains("expand (number of choices): expected 1 to 4096, got 5000"), "{told}");

        let wide = replaced(&good, "expand", &ratios(301..=400));
        let many = sides(2000);
        let told = error(&replaced(&wide, "resolutions", &many));
        assert!(told.contains("over all blocks: expected at most 4194304, got"), "{told}");
        let space = SearchSpace::from_toml("x.toml", &replaced(&wide, "resolutions", &many[..100]));
        assert_eq!(space.expect("few enough").resolutions().len(), 100);
        // two numbers that are each small enough may be too large together
        let space = |list: &[String]| SearchSpace::from_toml("x.toml", &replaced(&good, "resolutions", list));
        let all = sides(4093);
        let tall = (4..100).map(|height| format!("\"{height}x4096\"")).collect::<Vec<_>>();
        let together = space(&all).expect("few enough").at_resolutions_of(&space(&tall).expect("few enough"));
        let told = together.expect_err("too many").to_string();
        assert!(told.contains("resolutions (number of choices): expected 1 to 4096, got 4189"), "{told}");
    }
}
