//! Layers with everything concrete: what they compute, the names and shapes of their weights, their latency keys.
//!
//! Feature-map sizes and channel rounding are defined here and used by the families.

use std::fmt;

use crate::activation::Activation;
use crate::value::{Extent, Ratio};
use crate::weight::{Norm, WeightRole, WeightSpec};

/// Rounds `value` to a multiple of `divisor` without losing more than a tenth of it (MobileNet's rule).
pub fn make_divisible(value: f64, divisor: usize) -> usize {
    let rounded = ((value + divisor as f64 / 2.0) / divisor as f64).floor() as usize * divisor;
    let rounded = rounded.max(divisor);
    if (rounded as f64) < 0.9 * value { rounded + divisor } else { rounded }
}

/// Inner channels of a block whose expand ratio is of so many channels.
pub(crate) fn inner_channels(expand: Ratio, channels: usize) -> usize {
    make_divisible(expand.of(channels) as f64, 8)
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
    /// So many channels of such an extent.
    pub fn of(channels: usize, extent: Extent) -> Self {
        Self { channels, height: extent.height, width: extent.width }
    }

    /// Height and width.
    pub fn extent(self) -> Extent {
        Extent { height: self.height, width: self.width }
    }

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

/// Residual bottleneck: 1x1 reduction, dense convolution, 1x1 expansion, shortcut, activation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bottleneck {
    /// Side of the dense kernel.
    pub kernel: usize,
    /// Stride of the dense convolution.
    pub stride: usize,
    /// Channels between reduction and expansion.
    pub mid: usize,
    /// Activation after reduction, dense convolution and addition.
    pub activation: Activation,
    /// Whether the shortcut is a mean over `stride x stride` (of what there is, at the edge) and a 1x1 convolution;
    /// else it is the input.
    pub downsample: bool,
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
    /// Dense convolution on maps, batch norm, activation; stride 1.
    Conv {
        /// Side of the kernel.
        kernel: usize,
        /// Activation at the end.
        activation: Activation,
        /// Whether the input is added to the output.
        residual: bool,
    },
    /// Greatest of 3 x 3, stride 2, padding 1.
    MaxPool,
    /// A residual bottleneck.
    Bottleneck(Bottleneck),
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
    /// Sum of several inputs of one size.
    Sum {
        /// Number of inputs, at least 2.
        of: usize,
    },
}

impl Operator {
    /// Number of inputs.
    pub fn arity(&self) -> usize {
        match self {
            Self::Sum { of } => *of,
            _ => 1,
        }
    }
}

/// One layer with everything concrete: sizes, strides, channels, and which layers it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerSpec {
    /// Prefix of its weights' names in a static network, such as `blocks.3`; blocks are numbered as they stand.
    pub name: String,
    /// Its number in the largest network of the space, where layers are numbered (blocks, the stem's convolutions).
    pub slot: Option<usize>,
    /// What it computes.
    pub operator: Operator,
    /// What it reads.
    pub input: FeatureMap,
    /// What it makes.
    pub output: FeatureMap,
    /// Of each of its inputs, in order, the index of the layer that makes it; `None` is the network's input. Never empty.
    pub inputs: Vec<Option<usize>>,
}

impl LayerSpec {
    /// Prefix of its weights' names in the supernet.
    pub fn shared_name(&self) -> String {
        match (self.slot, self.name.rsplit_once('.')) {
            (Some(slot), Some((list, _))) => format!("{list}.{slot}"),
            _ => self.name.clone(),
        }
    }

    /// Its trainable weights, in forward order, under [`LayerSpec::name`].
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut weights = operator_weights(&self.operator, [self.input.channels, self.output.channels]);
        for weight in &mut weights {
            weight.name = format!("{}.{}", self.name, weight.name);
        }
        weights
    }

    /// The same layer by itself: each of its inputs is the network's.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { inputs: vec![None; self.inputs.len()], ..self.clone() }
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
            Operator::Conv { kernel, activation, residual } => {
                write!(f, "conv k{kernel} {input}-{output} {activation}")?;
                f.write_str(if *residual { " skip" } else { "" })?;
            }
            Operator::MaxPool => write!(f, "maxpool {input}")?,
            Operator::Bottleneck(block) => {
                let Bottleneck { kernel, stride, mid, activation, downsample } = block;
                write!(f, "bottleneck k{kernel} s{stride} {input}-{mid}-{output} {activation}")?;
                f.write_str(if *downsample { " down" } else { "" })?;
            }
            Operator::HeadConv { activation } => write!(f, "conv1x1 {input}-{output} {activation}")?,
            Operator::Pool => write!(f, "pool {input}")?,
            Operator::FeatureMix { activation } => write!(f, "mix {input}-{output} {activation}")?,
            Operator::Classifier => write!(f, "linear {input}-{output}")?,
            Operator::Sum { of } => write!(f, "sum{of} {input}")?,
        }
        write!(f, " @{}x{}", self.input.height, self.input.width)
    }
}

/// The weights of an operator between so many channels, in forward order, by the part of their names below the layer's.
pub(crate) fn operator_weights(operator: &Operator, [input, output]: [usize; 2]) -> Vec<WeightSpec> {
    let mut list = WeightList::default();
    match operator {
        Operator::Stem { kernel, .. } => list.conv_norm("", [output, input, *kernel, *kernel]),
        Operator::HeadConv { .. } => list.conv_norm("", [output, input, 1, 1]),
        Operator::MbConv(block) => list.mbconv(block, input, output),
        Operator::Conv { kernel, residual, .. } => {
            list.conv_norm(if *residual { "conv." } else { "" }, [output, input, *kernel, *kernel]);
        }
        Operator::Bottleneck(block) => list.bottleneck(block, input, output),
        Operator::Pool | Operator::MaxPool | Operator::Sum { .. } => {}
        Operator::FeatureMix { .. } => {
            list.push("conv.weight", &[output, input, 1, 1], WeightRole::Filters);
        }
        Operator::Classifier => {
            list.push("linear.weight", &[output, input], WeightRole::Matrix);
            list.push("linear.bias", &[output], WeightRole::Bias);
        }
    }
    list.0
}

#[derive(Default)]
struct WeightList(Vec<WeightSpec>);

impl WeightList {
    fn push(&mut self, name: &str, shape: &[usize], role: WeightRole) {
        self.0.push(WeightSpec::new(name, shape, role));
    }

    /// `<part>conv.weight` and the batch norm after it.
    fn conv_norm(&mut self, part: &str, shape: [usize; 4]) {
        self.filters_norm(part, shape, WeightRole::Filters);
    }

    fn filters_norm(&mut self, part: &str, shape: [usize; 4], role: WeightRole) {
        self.push(&format!("{part}conv.weight"), &shape, role);
        self.push(&format!("{part}bn.weight"), &shape[..1], WeightRole::NormScale(Norm::Batch));
        self.push(&format!("{part}bn.bias"), &shape[..1], WeightRole::NormShift(Norm::Batch));
    }

    fn bottleneck(&mut self, block: &Bottleneck, input: usize, output: usize) {
        let &Bottleneck { kernel, mid, .. } = block;
        self.conv_norm("conv1.", [mid, input, 1, 1]);
        self.conv_norm("conv2.", [mid, mid, kernel, kernel]);
        self.conv_norm("conv3.", [output, mid, 1, 1]);
        if block.downsample {
            self.conv_norm("downsample.", [output, input, 1, 1]);
        }
    }

    fn mbconv(&mut self, block: &MbConv, input: usize, output: usize) {
        let mid = block.mid;
        if block.expansion {
            self.conv_norm("conv.inverted_bottleneck.", [mid, input, 1, 1]);
        }
        let shape = [mid, 1, block.kernel, block.kernel];
        self.filters_norm("conv.depth_conv.", shape, WeightRole::DepthwiseFilters);
        if let Some(squeeze) = block.squeeze {
            for (part, to, from) in [("reduce", squeeze, mid), ("expand", mid, squeeze)] {
                let part = format!("conv.depth_conv.se.fc.{part}");
                self.push(&format!("{part}.weight"), &[to, from, 1, 1], WeightRole::Filters);
                self.push(&format!("{part}.bias"), &[to], WeightRole::Bias);
            }
        }
        self.conv_norm("conv.point_linear.", [output, mid, 1, 1]);
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
}
