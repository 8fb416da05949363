//! The one shape walk: a space and a sub-network become a plain list of layers.
//!
//! Feature-map sizes, strides and channel rounding are computed here and nowhere else.

use std::fmt;

use super::activation::Activation;
use super::{Arch, Block, Expand, SearchSpace, Stage};

/// Rounds `value` to a multiple of `divisor` without losing more than a tenth of it (MobileNet's rule).
pub fn make_divisible(value: f64, divisor: usize) -> usize {
    let rounded = ((value + divisor as f64 / 2.0) / divisor as f64).floor() as usize * divisor;
    let rounded = rounded.max(divisor);
    if (rounded as f64) < 0.9 * value { rounded + divisor } else { rounded }
}

/// Channels, height and width of what flows between layers, for one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeatureMap {
    /// Number of channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl FeatureMap {
    /// Values in the map of one image.
    pub fn len(self) -> usize {
        self.channels * self.plane()
    }

    /// Whether the map holds nothing.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Values in one channel of one image.
    pub fn plane(self) -> usize {
        self.height * self.width
    }

    /// What a convolution with padding `kernel / 2` makes of it: sizes divided by the stride, rounded up.
    pub(super) fn through(self, channels: usize, stride: usize) -> Self {
        Self { channels, height: self.height.div_ceil(stride), width: self.width.div_ceil(stride) }
    }
}

/// Inverted residual: 1x1 expansion, depthwise convolution, squeeze-and-excite, 1x1 projection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MbConv {
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Channels between expansion and projection.
    pub mid: usize,
    /// Whether the 1x1 expansion exists (not in the first block, whose ratio is 1).
    pub expansion: bool,
    /// Activation after the expansion and after the depthwise convolution.
    pub activation: Activation,
    /// Channels inside squeeze-and-excite, where the block has one.
    pub squeeze: Option<usize>,
    /// Whether the input is added to the output.
    pub residual: bool,
}

/// What a layer computes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// Dense convolution on the image, batch norm, activation.
    Stem {
        /// Side of the kernel.
        kernel: usize,
        /// Stride.
        stride: usize,
        /// Activation at the end.
        activation: Activation,
    },
    /// An inverted residual block.
    MbConv(MbConv),
    /// 1x1 convolution, batch norm, activation.
    HeadConv {
        /// Activation at the end.
        activation: Activation,
    },
    /// Mean over each map.
    Pool,
    /// 1x1 convolution on pooled features without batch norm or bias, activation.
    FeatureMix {
        /// Activation at the end.
        activation: Activation,
    },
    /// Linear layer with bias.
    Classifier,
}

/// What a weight is for: decides its initial value and whether it decays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightRole {
    /// A convolution or linear weight.
    Kernel,
    /// A bias of a convolution or linear layer.
    Bias,
    /// The scale of a batch norm.
    NormScale,
    /// The shift of a batch norm.
    NormShift,
}

/// Name and shape of one weight, in PyTorch's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightSpec {
    /// Full name, such as `blocks.3.conv.depth_conv.conv.weight`.
    pub name: String,
    /// Shape, such as `[out, in, 1, 1]`.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: WeightRole,
}

/// One layer with everything concrete: sizes, strides, channels, and which layers it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerSpec {
    /// Prefix of its weights' names in a static network, such as `blocks.3`; blocks are numbered as they stand.
    pub name: String,
    /// The block's number in the largest network of the space; `None` for layers that are not blocks.
    pub slot: Option<usize>,
    /// What it computes.
    pub operator: Operator,
    /// What it reads.
    pub input: FeatureMap,
    /// What it makes.
    pub output: FeatureMap,
    /// Indices of the layers it reads; empty means the image.
    pub inputs: Vec<usize>,
}

impl LayerSpec {
    /// Prefix of its weights' names in the supernet.
    pub fn shared_name(&self) -> String {
        self.slot.map_or_else(|| self.name.clone(), |slot| format!("blocks.{slot}"))
    }

    /// Its trainable weights, in forward order, under [`LayerSpec::name`].
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut list = WeightList { prefix: self.name.clone(), weights: Vec::new() };
        let (input, output) = (self.input.channels, self.output.channels);
        match &self.operator {
            Operator::Stem { kernel, .. } => list.conv_norm("", [output, input, *kernel, *kernel]),
            Operator::HeadConv { .. } => list.conv_norm("", [output, input, 1, 1]),
            Operator::MbConv(block) => list.mbconv(block, input, output),
            Operator::Pool => {}
            Operator::FeatureMix { .. } => {
                list.push(".conv.weight", &[output, input, 1, 1], WeightRole::Kernel)
            }
            Operator::Classifier => {
                list.push(".linear.weight", &[output, input], WeightRole::Kernel);
                list.push(".linear.bias", &[output], WeightRole::Bias);
            }
        }
        list.weights
    }

    /// Inner channels that a block with this input would have at an expand ratio.
    pub fn mid_of(&self, expand: Expand) -> usize {
        make_divisible(expand.of(self.input.channels) as f64, 8)
    }

    /// Channels inside the squeeze-and-excite of a block with `mid` inner channels.
    pub fn squeeze_of(mid: usize) -> usize {
        make_divisible((mid / 4) as f64, 8)
    }

    /// Key of its latency: all that decides how long it takes, and nothing else.
    pub fn key(&self) -> String {
        self.to_string()
    }
}

/// The key: `mbconv k5 s2 24-96-40 relu se24 skip @56x56`.
impl fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, output) = (self.input.channels, self.output.channels);
        match &self.operator {
            Operator::Stem { kernel, stride, activation } => {
                write!(f, "stem k{kernel} s{stride} {input}-{output} {activation}")?;
            }
            Operator::MbConv(block) => {
                write!(f, "mbconv k{} s{} {input}-{}-{output}", block.kernel, block.stride, block.mid)?;
                write!(f, " {}", block.activation)?;
                if !block.expansion {
                    f.write_str(" e1")?;
                }
                if let Some(squeeze) = block.squeeze {
                    write!(f, " se{squeeze}")?;
                }
                if block.residual {
                    f.write_str(" skip")?;
                }
            }
            Operator::HeadConv { activation } => write!(f, "conv1x1 {input}-{output} {activation}")?,
            Operator::Pool => write!(f, "pool {input}")?,
            Operator::FeatureMix { activation } => write!(f, "mix {input}-{output} {activation}")?,
            Operator::Classifier => write!(f, "linear {input}-{output}")?,
        }
        write!(f, " @{}x{}", self.input.height, self.input.width)
    }
}

struct WeightList {
    prefix: String,
    weights: Vec<WeightSpec>,
}

impl WeightList {
    fn push(&mut self, suffix: &str, shape: &[usize], role: WeightRole) {
        let name = format!("{}{suffix}", self.prefix);
        self.weights.push(WeightSpec { name, shape: shape.to_vec(), role });
    }

    /// `<part>.conv.weight` and the batch norm after it.
    fn conv_norm(&mut self, part: &str, shape: [usize; 4]) {
        self.push(&format!("{part}.conv.weight"), &shape, WeightRole::Kernel);
        self.push(&format!("{part}.bn.weight"), &shape[..1], WeightRole::NormScale);
        self.push(&format!("{part}.bn.bias"), &shape[..1], WeightRole::NormShift);
    }

    fn mbconv(&mut self, block: &MbConv, input: usize, output: usize) {
        let mid = block.mid;
        if block.expansion {
            self.conv_norm(".conv.inverted_bottleneck", [mid, input, 1, 1]);
        }
        self.conv_norm(".conv.depth_conv", [mid, 1, block.kernel, block.kernel]);
        if let Some(squeeze) = block.squeeze {
            for (part, to, from) in [("reduce", squeeze, mid), ("expand", mid, squeeze)] {
                let part = format!(".conv.depth_conv.se.fc.{part}");
                self.push(&format!("{part}.weight"), &[to, from, 1, 1], WeightRole::Kernel);
                self.push(&format!("{part}.bias"), &[to], WeightRole::Bias);
            }
        }
        self.conv_norm(".conv.point_linear", [output, mid, 1, 1]);
    }
}

/// Lowers a sub-network of `space`, already checked, to its layers in the order in which they run.
pub(super) fn lower(space: &SearchSpace, arch: &Arch) -> Vec<LayerSpec> {
    let side = arch.resolution;
    let mut walk = Walk::new(FeatureMap { channels: space.input_channels(), height: side, width: side });
    let stem = space.stem();
    let operator = Operator::Stem { kernel: 3, stride: stem.stride, activation: stem.activation };
    walk.push("first_conv", operator, walk.map.through(stem.channels, stem.stride));
    walk.first_block(space);
    let mut slot = 1;
    for (stage, blocks) in space.stages().iter().zip(&arch.stages) {
        for (position, block) in blocks.iter().enumerate() {
            walk.block(stage, *block, position == 0, slot + position);
        }
        slot += stage.choices.max_depth();
    }
    walk.head(space);
    walk.layers
}

struct Walk {
    map: FeatureMap,
    layers: Vec<LayerSpec>,
    blocks: usize,
}

impl Walk {
    fn new(image: FeatureMap) -> Self {
        Self { map: image, layers: Vec::new(), blocks: 0 }
    }

    fn push(&mut self, name: &str, operator: Operator, output: FeatureMap) {
        let inputs = self.layers.len().checked_sub(1).into_iter().collect();
        let name = name.to_string();
        self.layers.push(LayerSpec { name, slot: None, operator, input: self.map, output, inputs });
        self.map = output;
    }

    fn push_block(&mut self, block: MbConv, channels: usize, slot: usize) {
        let output = self.map.through(channels, block.stride);
        self.push(&format!("blocks.{}", self.blocks), Operator::MbConv(block), output);
        if let Some(layer) = self.layers.last_mut() {
            layer.slot = Some(slot);
        }
        self.blocks += 1;
    }

    /// The one block that is not elastic: kernel 3, no expansion.
    fn first_block(&mut self, space: &SearchSpace) {
        let (first, mid) = (space.first_block(), self.map.channels);
        let block = MbConv {
            kernel: 3,
            stride: 1,
            mid,
            expansion: false,
            activation: first.activation,
            squeeze: None,
            residual: mid == first.channels,
        };
        self.push_block(block, first.channels, 0);
    }

    fn block(&mut self, stage: &Stage, choice: Block, first: bool, slot: usize) {
        let stride = if first { stage.stride } else { 1 };
        let mid = make_divisible(choice.expand.of(self.map.channels) as f64, 8);
        let squeeze = stage.squeeze_excite.then(|| LayerSpec::squeeze_of(mid));
        let residual = stride == 1 && self.map.channels == stage.channels;
        let (kernel, activation) = (choice.kernel, stage.activation);
        let block = MbConv { kernel, stride, mid, expansion: true, activation, squeeze, residual };
        self.push_block(block, stage.channels, slot);
    }

    fn head(&mut self, space: &SearchSpace) {
        let head = space.head();
        let activation = head.activation;
        let expanded = self.map.through(head.expand_channels, 1);
        self.push("final_expand_layer", Operator::HeadConv { activation }, expanded);
        let pooled = FeatureMap { channels: head.expand_channels, height: 1, width: 1 };
        self.push("pool", Operator::Pool, pooled);
        let mixed = FeatureMap { channels: head.feature_channels, ..pooled };
        self.push("feature_mix_layer", Operator::FeatureMix { activation }, mixed);
        let logits = FeatureMap { channels: space.classes(), ..pooled };
        self.push("classifier", Operator::Classifier, logits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_divisible_as_mobilenet() {
        let table = [
            (19.2, 24),
            (28.8, 32),
            (134.4, 136),
            (1152.0, 1152),
            (3.0, 8),
            (4.0, 8),
            (12.0, 16),
            (36.0, 40),
        ];
        for (value, expected) in table {
            assert_eq!(make_divisible(value, 8), expected, "{value}");
        }
    }

    #[test]
    fn layers_chain_and_blocks_are_numbered_as_they_stand() {
        let space = crate::space::preset("ofa-mbv3-w1.0").expect("a preset");
        let arch = crate::space::sampler::smallest(&space).at(160);
        let layers = space.lower(&arch).expect("legal");
        for (index, pair) in layers.windows(2).enumerate() {
            assert_eq!(pair[0].output, pair[1].input, "layer {index}");
            assert_eq!(pair[1].inputs, [index]);
        }
        let slots: Vec<_> = layers.iter().filter_map(|layer| layer.slot).collect();
        assert_eq!(slots, [0, 1, 2, 5, 6, 9, 10, 13, 14, 17, 18]);
        assert_eq!(layers[4].key(), "mbconv k3 s2 24-72-40 relu se24 @40x40");
        assert_eq!(layers[4].name, "blocks.3");
        assert_eq!(layers[4].shared_name(), "blocks.5");
    }
}
