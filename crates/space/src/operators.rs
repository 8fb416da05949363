//! The operators of layers. Each has its own file: its key, read and written, its weights, its costs.
//!
//! Only [`Operator`], [`Operator::ask`] and [`READERS`] list all operators.

mod average_pool;
mod bottleneck;
mod classifier;
mod conv;
mod factorized_reduction;
mod feature_mix;
mod free_channels;
mod head_conv;
mod max_pool;
mod mbconv;
mod norm;
mod pool;
mod relu_conv;
mod separable;
mod stem;
mod sum;
mod weighted_sum;
mod words;
mod zero;

use crate::activation::Activation;
use crate::feature_map::FeatureMap;
use crate::value::Extent;
use crate::weight::{WeightList, WeightSpec};

pub use bottleneck::Bottleneck;
pub use factorized_reduction::reduced_parts;
pub use free_channels::FreeChannels;
pub use mbconv::MbConv;
pub use separable::Separable;
pub(crate) use words::number;

/// Most channels, inner ones included.
const MOST_CHANNELS: usize = 65_536;

/// The operator of a layer.
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
    /// A depthwise-separable block.
    Separable(Separable),
    /// Dense convolution on maps, batch norm, activation.
    Conv {
        /// Side of the kernel.
        kernel: usize,
        /// Stride; 1 where it is residual.
        stride: usize,
        /// Activation at the end.
        activation: Activation,
        /// Whether the input is added to the output.
        residual: bool,
    },
    /// ReLU, dense convolution on maps, batch norm.
    ReluConv {
        /// Side of the kernel.
        kernel: usize,
        /// Stride.
        stride: usize,
    },
    /// Maximum over 3 x 3, padding 1.
    MaxPool {
        /// Stride.
        stride: usize,
    },
    /// Mean over windows, padding `(kernel - 1) / 2`, which is not counted.
    AveragePool {
        /// Side of the window: odd, or the stride.
        kernel: usize,
        /// Stride.
        stride: usize,
    },
    /// A residual bottleneck.
    Bottleneck(Bottleneck),
    /// 1x1 convolution, batch norm, activation.
    HeadConv {
        /// Activation at the end.
        activation: Activation,
    },
    /// Mean over each map.
    Pool,
    /// 1x1 convolution without batch norm or bias, activation.
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
    /// Weighted sum of several inputs of one size, in a mixture of sub-networks.
    WeightedSum {
        /// Number of inputs, at least 1.
        of: usize,
    },
    /// Zeros of the input's size.
    Zero,
    /// Two 1x1 convolutions of stride 2, the second of them one place further, side by side, and a batch norm.
    FactorizedReduction,
    /// Batch norm, activation.
    Norm {
        /// Activation at the end.
        activation: Activation,
    },
}

/// Sizes of an operator's inputs, which are all equal, and of its output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maps {
    pub input: FeatureMap,
    pub output: FeatureMap,
}

/// The questions that each operator's file answers. The defaults are those of an operator with one input, no weights
/// and no multiply-accumulates that keeps the extent and needs no memory besides its input and output.
trait Form {
    /// The key up to the input's extent, such as `conv k3 8-16 relu`.
    fn key(&self, maps: Maps) -> String;

    /// Adds the trainable weights, in forward order.
    fn weights(&self, _maps: Maps, _list: &mut WeightList) {}

    /// Multiply-accumulates for one image.
    fn macs(&self, _maps: Maps) -> usize {
        0
    }

    /// Most values that live at once while it runs, its first input and its output included. If `kept`, the input lives
    /// to the end, else until its last use inside the operator.
    fn peak(&self, maps: Maps, _kept: bool) -> usize {
        maps.input.len() + maps.output.len()
    }

    /// Values of the largest map inside, without its input and its output.
    fn widest(&self, _input: FeatureMap) -> usize {
        0
    }

    /// The output's extent.
    fn extent(&self, input: Extent) -> Extent {
        input
    }

    /// Number of inputs.
    fn arity(&self) -> usize {
        1
    }

    /// The channels inside whose order is free, in the order in which they are sorted.
    fn free_channels(&self) -> Vec<FreeChannels> {
        Vec::new()
    }
}

/// Reads an operator from a key's words up to the input's extent; `None` if they are another operator's.
type Reader = fn(&[&str]) -> Option<Parsed>;

/// The readers of keys.
const READERS: [Reader; 17] = [
    stem::read,
    mbconv::read,
    separable::read,
    conv::read,
    max_pool::read,
    bottleneck::read,
    head_conv::read,
    pool::read,
    feature_mix::read,
    classifier::read,
    sum::read,
    relu_conv::read,
    average_pool::read,
    zero::read,
    norm::read,
    factorized_reduction::read,
    weighted_sum::read,
];

/// The contents of a key.
pub(crate) struct Parsed {
    /// The name of such a layer alone; in a list, with the number 0.
    pub name: &'static str,
    /// The operator.
    pub operator: Operator,
    /// Channels of input and output.
    pub channels: [usize; 2],
}

impl Operator {
    /// Calls `question` with the operator's own file.
    fn ask<T>(&self, question: impl FnOnce(&dyn Form) -> T) -> T {
        match *self {
            Self::Stem { kernel, stride, activation } => question(&stem::Stem { kernel, stride, activation }),
            Self::MbConv(ref block) => question(block),
            Self::Separable(ref block) => question(block),
            Self::Conv { kernel, stride, activation, residual } => {
                question(&conv::Conv { kernel, stride, activation, residual })
            }
            Self::ReluConv { kernel, stride } => question(&relu_conv::ReluConv { kernel, stride }),
            Self::MaxPool { stride } => question(&max_pool::MaxPool { stride }),
            Self::AveragePool { kernel, stride } => question(&average_pool::AveragePool { kernel, stride }),
            Self::Bottleneck(ref block) => question(block),
            Self::HeadConv { activation } => question(&head_conv::HeadConv { activation }),
            Self::Pool => question(&pool::Pool),
            Self::FeatureMix { activation } => question(&feature_mix::FeatureMix { activation }),
            Self::Classifier => question(&classifier::Classifier),
            Self::Sum { of } => question(&sum::Sum { of }),
            Self::WeightedSum { of } => question(&weighted_sum::WeightedSum { of }),
            Self::Zero => question(&zero::Zero),
            Self::FactorizedReduction => question(&factorized_reduction::FactorizedReduction),
            Self::Norm { activation } => question(&norm::Norm { activation }),
        }
    }

    /// The operator that the words of a key name, up to the input's extent.
    pub(crate) fn read(words: &[&str]) -> Option<Parsed> {
        READERS.iter().find_map(|read| read(words))
    }

    /// Number of inputs.
    pub fn arity(&self) -> usize {
        self.ask(|form| form.arity())
    }

    /// The channels inside whose order is free, in the order in which they are sorted.
    pub fn free_channels(&self) -> Vec<FreeChannels> {
        self.ask(|form| form.free_channels())
    }

    /// The key up to the input's extent.
    pub(crate) fn key(&self, maps: Maps) -> String {
        self.ask(|form| form.key(maps))
    }

    /// The trainable weights, in forward order, by the part of their names below the layer's.
    pub(crate) fn weights(&self, maps: Maps) -> Vec<WeightSpec> {
        let mut list = WeightList::default();
        self.ask(|form| form.weights(maps, &mut list));
        list.into_specs()
    }

    /// Multiply-accumulates for one image.
    pub(crate) fn macs(&self, maps: Maps) -> usize {
        self.ask(|form| form.macs(maps))
    }

    /// Most values that live at once while it runs, its first input and its output included; `kept` if the input
    /// outlives the operator.
    pub(crate) fn peak(&self, maps: Maps, kept: bool) -> usize {
        self.ask(|form| form.peak(maps, kept))
    }

    /// Values of the largest map inside it.
    pub(crate) fn widest(&self, input: FeatureMap) -> usize {
        self.ask(|form| form.widest(input))
    }

    /// The output's extent.
    pub(crate) fn extent(&self, input: Extent) -> Extent {
        self.ask(|form| form.extent(input))
    }
}
