//! A family of networks as checked data.

use num_bigint::BigUint;
use serde::{Deserialize, Serialize};

use super::activation::Activation;
use super::space_file::{SpaceFile, VERSION};
use super::{Arch, LayerSpec, Ratio, walk};
use base::document;
use base::error::{Error, Result};

/// The structure that a space's networks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
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
}

/// What the blocks of a stage can be; each list is sorted, without doubles, and not empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// Sides of the depthwise kernel.
    pub kernel: Vec<usize>,
    /// Expand ratios.
    pub expand: Vec<Ratio>,
    /// Numbers of blocks.
    pub depth: Vec<usize>,
    /// Width multipliers; none at all where the width is not elastic.
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

    /// How many different stages there are: widths times the sum over depths of (kernels x expand ratios)^depth.
    fn count(&self) -> BigUint {
        let per_block = BigUint::from(self.kernel.len() * self.expand.len());
        let blocks: BigUint = self.depth.iter().map(|&depth| per_block.pow(depth as u32)).sum();
        blocks * self.width.len().max(1)
    }

    /// So many of the largest of each list, but at least one of what there is.
    fn largest(&self, counts: Counts) -> Self {
        fn top<T: Clone>(list: &[T], count: usize) -> Vec<T> {
            list[list.len().saturating_sub(count.max(1))..].to_vec()
        }
        Self {
            kernel: top(&self.kernel, counts.kernel),
            expand: top(&self.expand, counts.expand),
            depth: top(&self.depth, counts.depth),
            width: top(&self.width, counts.width),
        }
    }
}

/// How many choices of each dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of the kernel sizes.
    pub kernel: usize,
    /// Of the expand ratios.
    pub expand: usize,
    /// Of the depths.
    pub depth: usize,
    /// Of the width multipliers.
    pub width: usize,
}

/// The first convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stem {
    /// Output channels, width multiplier applied.
    pub channels: usize,
    /// Stride.
    pub stride: usize,
    /// Activation.
    pub activation: Activation,
}

/// The block before the stages: kernel 3, no expansion, not elastic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstBlock {
    /// Output channels, width multiplier applied.
    pub channels: usize,
    /// Activation.
    pub activation: Activation,
}

/// Blocks of one width, of which the first may halve the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Output channels of the widest, the space's width multiplier applied.
    pub channels: usize,
    /// Output channels at each width multiplier that the space lists, rising; none where the width is not elastic.
    pub channels_by_width: Vec<(Ratio, usize)>,
    /// Stride of the first block.
    pub stride: usize,
    /// Activation inside the blocks.
    pub activation: Activation,
    /// Whether the blocks have squeeze-and-excite.
    pub squeeze_excite: bool,
    /// What can be chosen.
    pub choices: Choices,
}

impl Stage {
    /// Output channels at a chosen width multiplier; of the widest, where there is none.
    pub fn channels_at(&self, width: Option<Ratio>) -> usize {
        let listed = self.channels_by_width.iter().find(|(ratio, _)| Some(*ratio) == width);
        listed.map_or(self.channels, |(_, channels)| *channels)
    }

    /// The largest multiplier that gives as many channels: of equal networks it is the one that is chosen.
    pub(super) fn canonical(&self, width: Ratio) -> Ratio {
        let channels = self.channels_at(Some(width));
        let equals = self.channels_by_width.iter().filter(|(_, other)| *other == channels);
        equals.map(|(ratio, _)| *ratio).max().unwrap_or(width)
    }
}

/// What follows the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Channels of the convolution before the pooling, width multiplier applied.
    pub expand_channels: usize,
    /// Channels of the one after it, width multiplier applied; `None` where there is none.
    pub feature_channels: Option<usize>,
    /// Activation of both.
    pub activation: Activation,
}

/// A checked search space: everything that is fixed, and the lists of what is not.
///
/// Made from TOML ([`SearchSpace::from_toml`]) or by name ([`preset`](super::preset)); serialized in the
/// same form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "SpaceFile", into = "SpaceFile")]
pub struct SearchSpace {
    pub(super) file: SpaceFile,
    pub(super) stem: Stem,
    pub(super) first_block: Option<FirstBlock>,
    pub(super) stages: Vec<Stage>,
    pub(super) head: Option<Head>,
}

impl SearchSpace {
    /// Reads a space from TOML text; `place` names it in messages.
    ///
    /// # Errors
    /// If the text is not TOML, a field is missing, unknown or out of range.
    pub fn from_toml(place: &str, text: &str) -> Result<Self> {
        let file: SpaceFile = document::read_toml(place, text, VERSION, "a search space in TOML")
            .map_err(|error| error.or_do("compare with `supernet space tiny --toml`"))?;
        file.check(place)
    }

    /// The space as TOML that [`SearchSpace::from_toml`] reads.
    pub fn to_toml(&self) -> String {
        toml::to_string(&self.file).expect("a checked space is plain data")
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// The structure of its networks.
    pub fn family(&self) -> Family {
        self.file.family
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.file.classes
    }

    /// Channels of the input images.
    pub fn input_channels(&self) -> usize {
        self.file.input_channels
    }

    /// Input resolutions that can be chosen, in rising order.
    pub fn resolutions(&self) -> &[usize] {
        &self.file.resolutions
    }

    /// Added to the variance in batch norms.
    pub fn batch_norm_epsilon(&self) -> f32 {
        self.file.batch_norm_epsilon
    }

    /// Share of the features dropped before the classifier in training.
    pub fn dropout(&self) -> f32 {
        self.file.dropout
    }

    /// The first convolution.
    pub fn stem(&self) -> Stem {
        self.stem
    }

    /// The block before the stages; only families of inverted residuals have one.
    pub fn first_block(&self) -> Option<FirstBlock> {
        self.first_block
    }

    /// The elastic stages.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// What stands between the stages and the classifier, besides the pooling; `None` in a ResNet.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Number of different sub-networks at one resolution, exactly.
    pub fn subnetworks(&self) -> BigUint {
        self.stages.iter().map(|stage| stage.choices.count()).product()
    }

    /// Sixteen hexadecimal digits that two spaces share only if everything in them is equal but the name.
    pub fn fingerprint(&self) -> String {
        let mut file = self.file.clone();
        file.name = String::new();
        fingerprint_of(&file)
    }

    /// The same of a space whose resolutions may differ too.
    pub fn fingerprint_at_any_resolution(&self) -> String {
        let mut file = self.file.clone();
        (file.name, file.resolutions) = (String::new(), Vec::new());
        fingerprint_of(&file)
    }

    /// The same space with so many classes.
    ///
    /// # Errors
    /// If there may not be so many.
    pub fn with_classes(&self, classes: usize) -> Result<Self> {
        let mut file = self.file.clone();
        file.classes = classes;
        file.check(&format!("space {}", self.name()))
    }

    /// Whether the width of its stages can be chosen.
    pub fn elastic_width(&self) -> bool {
        self.stages.iter().any(|stage| !stage.choices.width.is_empty())
    }

    /// The space with only so many of the largest choices of every stage; its sub-networks lie in this space as well.
    #[must_use]
    pub fn restricted(&self, counts: Counts) -> Self {
        let mut narrowed = self.clone();
        for stage in &mut narrowed.stages {
            stage.choices = stage.choices.largest(counts);
        }
        narrowed
    }

    /// The space with only these of its input resolutions; its sub-networks lie in this space as well.
    ///
    /// # Errors
    /// If there is none, or one that the space does not list.
    pub fn at_resolutions(&self, resolutions: &[usize]) -> Result<Self> {
        if resolutions.is_empty() {
            return Err(Error::invalid(
                format!("space {}", self.name()),
                "resolutions",
                "at least one",
                "none",
            ));
        }
        for &resolution in resolutions {
            self.check_resolution(resolution)?;
        }
        let mut narrowed = self.clone();
        narrowed.file.resolutions.retain(|resolution| resolutions.contains(resolution));
        Ok(narrowed)
    }

    /// The space with the input resolutions of `other` as well: the smallest in which the sub-networks of both lie, if
    /// they differ in resolutions only.
    #[must_use]
    pub fn at_resolutions_of(&self, other: &Self) -> Self {
        let mut wider = self.clone();
        wider.file.resolutions.extend(&other.file.resolutions);
        wider.file.resolutions.sort_unstable();
        wider.file.resolutions.dedup();
        wider
    }

    /// Whether the sub-network lies in this space.
    ///
    /// # Errors
    /// Says the stage, the block and the choice that do not.
    pub fn check(&self, arch: &Arch) -> Result<()> {
        self.check_resolution(arch.resolution)?;
        self.check_blocks(arch)
    }

    fn check_blocks(&self, arch: &Arch) -> Result<()> {
        let place = || format!("arch {arch}");
        if arch.stages.len() != self.stages.len() {
            let expected = format!("{} (space {})", self.stages.len(), self.name());
            return Err(Error::invalid(place(), "number of stages", expected, arch.stages.len()));
        }
        self.check_widths(arch)?;
        for (index, (stage, blocks)) in self.stages.iter().zip(&arch.stages).enumerate() {
            let choices = &stage.choices;
            one_of(&choices.depth, blocks.len(), || (place(), format!("depth of stage {}", index + 1)))?;
            for (position, block) in blocks.iter().enumerate() {
                let at =
                    |what: &str| (place(), format!("{what} of stage {}, block {}", index + 1, position + 1));
                one_of(&choices.kernel, block.kernel, || at("kernel"))?;
                one_of(&choices.expand, block.expand, || at("expand ratio"))?;
            }
        }
        Ok(())
    }

    fn check_widths(&self, arch: &Arch) -> Result<()> {
        let place = || format!("arch {arch}");
        let expected = if self.elastic_width() { self.stages.len() } else { 0 };
        if arch.widths.len() != expected {
            let expected = format!("{expected} (space {})", self.name());
            return Err(Error::invalid(place(), "number of widths", expected, arch.widths.len()));
        }
        for (index, (stage, &width)) in self.stages.iter().zip(&arch.widths).enumerate() {
            one_of(&stage.choices.width, width, || (place(), format!("width of stage {}", index + 1)))?;
        }
        Ok(())
    }

    /// Whether images of this side are among the space's.
    ///
    /// # Errors
    /// Lists the resolutions there are.
    pub fn check_resolution(&self, resolution: usize) -> Result<()> {
        one_of(self.resolutions(), resolution, || {
            (format!("space {}", self.name()), "resolution".to_string())
        })
    }

    /// The layers of a sub-network, in the order in which they run.
    ///
    /// Any resolution will do, for a network of convolutions takes images of any size; whether it is one that
    /// the space lists is [`SearchSpace::check`]'s question.
    ///
    /// # Errors
    /// If a block or a depth is not among the choices.
    pub fn lower(&self, arch: &Arch) -> Result<Vec<LayerSpec>> {
        self.check_blocks(arch)?;
        if !(1..=4096).contains(&arch.resolution) {
            return Err(Error::invalid(format!("arch {arch}"), "resolution", "1 to 4096", arch.resolution));
        }
        Ok(walk::lower(self, arch))
    }
}

fn fingerprint_of(file: &SpaceFile) -> String {
    let text = toml::to_string(file).expect("a checked space is plain data");
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

fn one_of<T: PartialEq + std::fmt::Display>(
    choices: &[T],
    choice: T,
    at: impl FnOnce() -> (String, String),
) -> Result<()> {
    if choices.contains(&choice) {
        return Ok(());
    }
    let (place, field) = at();
    let listed: Vec<_> = choices.iter().map(T::to_string).collect();
    Err(Error::invalid(place, field, format!("one of {}", listed.join(", ")), choice))
}
