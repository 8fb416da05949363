//! The written form of a space, and the door at which it is checked.

use serde::{Deserialize, Serialize};

use super::Expand;
use super::activation::Activation;
use super::layer::{LayerSpec, make_divisible};
use super::sampler::largest;
use super::search_space::{Choices, Family, FirstBlock, Head, SearchSpace, Stage, Stem};
use crate::document::check_version;
use crate::error::{Error, Result};

/// Version of the form that this code writes and reads.
pub(super) const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceFile {
    pub version: u32,
    pub name: String,
    pub family: Family,
    pub classes: usize,
    pub input_channels: usize,
    pub resolutions: Vec<usize>,
    #[serde(default = "one")]
    pub width_multiplier: f64,
    pub kernel: Vec<usize>,
    pub expand: Vec<Expand>,
    pub depth: Vec<usize>,
    /// PyTorch's default, which OFA's MobileNetV3 keeps.
    #[serde(default = "default_epsilon")]
    pub batch_norm_epsilon: f32,
    /// Before the classifier, in training only; OFA's value is .1.
    #[serde(default = "default_dropout")]
    pub dropout: f32,
    pub stem: StemFile,
    pub first_block: FirstBlockFile,
    pub stages: Vec<StageFile>,
    pub head: HeadFile,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StemFile {
    pub channels: usize,
    pub stride: usize,
    pub activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FirstBlockFile {
    pub channels: usize,
    pub activation: Activation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StageFile {
    pub channels: usize,
    pub stride: usize,
    pub activation: Activation,
    pub squeeze_excite: bool,
    /// Where it differs from the space's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<Vec<Expand>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Vec<usize>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadFile {
    pub expand_channels: usize,
    pub feature_channels: usize,
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

/// Largest value that a size in a space may have: keeps products of sizes far from overflow.
const LARGEST: usize = 65_536;

/// Most parameters that the largest sub-network may have: 4 GB of f32.
const MOST_PARAMETERS: u128 = 1 << 30;

struct Door<'a> {
    place: &'a str,
}

impl Door<'_> {
    fn within(&self, field: &str, value: usize, least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(Error::invalid(self.place, field, format!("{least} to {most}"), value))
    }

    /// A network whose weights no memory holds is a mistake, and better found here than by an allocation.
    fn parameters(&self, space: &SearchSpace) -> Result<()> {
        let layers = space.lower(&largest(space))?;
        let weights = layers.iter().flat_map(LayerSpec::weights);
        let sizes = weights.map(|weight| weight.shape.iter().map(|&size| size as u128).product::<u128>());
        let parameters: u128 = sizes.sum();
        if parameters > MOST_PARAMETERS {
            let field = "parameters of the largest sub-network";
            return Err(Error::invalid(self.place, field, format!("at most {MOST_PARAMETERS}"), parameters)
                .and_then_do("make it narrower or shallower"));
        }
        Ok(())
    }

    fn share(&self, field: &str, value: f64, above: f64, below: f64) -> Result<()> {
        if value >= above && value < below {
            return Ok(());
        }
        Err(Error::invalid(self.place, field, format!("a number from {above} to below {below}"), value))
    }

    /// A list of choices: not empty, rising, without doubles.
    fn rising<T: PartialOrd + std::fmt::Debug>(&self, field: &str, list: &[T]) -> Result<()> {
        if list.is_empty() || list.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(Error::invalid(self.place, field, "a rising list of choices", format!("{list:?}")));
        }
        Ok(())
    }

    fn choices(&self, stage: &str, choices: &Choices) -> Result<()> {
        self.rising(&format!("{stage}kernel"), &choices.kernel)?;
        self.rising(&format!("{stage}expand"), &choices.expand)?;
        self.rising(&format!("{stage}depth"), &choices.depth)?;
        for &kernel in &choices.kernel {
            if ![3, 5, 7].contains(&kernel) {
                return Err(Error::invalid(self.place, format!("{stage}kernel"), "3, 5 or 7", kernel));
            }
        }
        for &depth in &choices.depth {
            self.within(&format!("{stage}depth"), depth, 1, 64)?;
        }
        Ok(())
    }
}

impl SpaceFile {
    /// Turns the written form into a space that cannot be wrong.
    pub(super) fn check(self, place: &str) -> Result<SearchSpace> {
        let door = Door { place };
        check_version(place, self.version, VERSION)?;
        if self.name.is_empty() {
            return Err(Error::invalid(place, "name", "some text", "none"));
        }
        door.within("classes", self.classes, 2, LARGEST)?;
        door.within("input_channels", self.input_channels, 1, 64)?;
        door.rising("resolutions", &self.resolutions)?;
        for &side in &self.resolutions {
            door.within("resolutions", side, 4, 4096)?;
        }
        door.share("width_multiplier", self.width_multiplier, 0.05, 16.0)?;
        door.share("batch_norm_epsilon", f64::from(self.batch_norm_epsilon), f64::from(1e-12f32), 1.0)?;
        door.share("dropout", f64::from(self.dropout), 0.0, 1.0)?;
        door.within("number of stages", self.stages.len(), 1, 64)?;
        let (kernel, expand, depth) = (self.kernel.clone(), self.expand.clone(), self.depth.clone());
        door.choices("", &Choices { kernel, expand, depth })?;
        self.assemble(&door)
    }

    fn assemble(self, door: &Door) -> Result<SearchSpace> {
        let stages = self.stages.iter().enumerate();
        let stages = stages.map(|(index, stage)| self.stage(door, index, stage)).collect::<Result<_>>()?;
        door.within("stem.stride", self.stem.stride, 1, 2)?;
        let stem = Stem {
            channels: self.widened(door, "stem.channels", self.stem.channels)?,
            stride: self.stem.stride,
            activation: self.stem.activation,
        };
        let first_block = FirstBlock {
            channels: self.widened(door, "first_block.channels", self.first_block.channels)?,
            activation: self.first_block.activation,
        };
        let head = Head {
            expand_channels: self.widened(door, "head.expand_channels", self.head.expand_channels)?,
            feature_channels: self.widened(door, "head.feature_channels", self.head.feature_channels)?,
            activation: self.head.activation,
        };
        let space = SearchSpace { file: self, stem, first_block, stages, head };
        door.parameters(&space)?;
        Ok(space)
    }

    fn widened(&self, door: &Door, field: &str, channels: usize) -> Result<usize> {
        door.within(field, channels, 1, LARGEST)?;
        Ok(make_divisible(channels as f64 * self.width_multiplier, 8))
    }

    fn stage(&self, door: &Door, index: usize, stage: &StageFile) -> Result<Stage> {
        let prefix = format!("stages[{}].", index + 1);
        let choices = Choices {
            kernel: stage.kernel.clone().unwrap_or_else(|| self.kernel.clone()),
            expand: stage.expand.clone().unwrap_or_else(|| self.expand.clone()),
            depth: stage.depth.clone().unwrap_or_else(|| self.depth.clone()),
        };
        door.choices(&prefix, &choices)?;
        door.within(&format!("{prefix}stride"), stage.stride, 1, 2)?;
        Ok(Stage {
            channels: self.widened(door, &format!("{prefix}channels"), stage.channels)?,
            stride: stage.stride,
            activation: stage.activation,
            squeeze_excite: stage.squeeze_excite,
            choices,
        })
    }
}

impl TryFrom<SpaceFile> for SearchSpace {
    type Error = Error;

    fn try_from(file: SpaceFile) -> Result<Self> {
        let place = format!("space {}", file.name);
        file.check(&place)
    }
}

impl From<SearchSpace> for SpaceFile {
    fn from(space: SearchSpace) -> Self {
        space.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{preset, preset_names};

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
            ("classes = 10", "clases = 10", "text"),
        ];
        for (from, to, field) in table {
            assert!(good.contains(from), "{from} in\n{good}");
            let error = SearchSpace::from_toml("x.toml", &good.replace(from, to)).expect_err(to).to_string();
            assert!(error.starts_with("x.toml: ") && error.contains(field), "{to}: {error}");
        }
    }
}
