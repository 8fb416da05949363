//! The residual bottleneck (He et al. 2016), its shortcut as in variant D (He et al. 2019).

use super::{Form, FreeChannels, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::feature_map::FeatureMap;
use crate::value::Extent;
use crate::weight::WeightList;

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
    /// Whether the shortcut is a mean over `stride x stride` (cropped at the edge) and a 1x1 convolution; else it is
    /// the input.
    pub downsample: bool,
}

impl Form for Bottleneck {
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, stride, mid, activation, downsample } = self;
        let down = if *downsample { " down" } else { "" };
        let channels = format!("{}-{mid}-{}", input.channels, output.channels);
        format!("bottleneck k{kernel} s{stride} {channels} {activation}{down}")
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        let input = maps.input.channels;
        let output = maps.output.channels;
        let mid = self.mid;
        list.conv_norm("conv1", [mid, input, 1, 1]);
        list.conv_norm("conv2", [mid, mid, self.kernel, self.kernel]);
        list.conv_norm("conv3", [output, mid, 1, 1]);
        if self.downsample {
            list.conv_norm("downsample", [output, input, 1, 1]);
        }
    }

    fn macs(&self, Maps { input, output }: Maps) -> usize {
        let mid = self.mid * output.plane();
        let downsample = if self.downsample { output.len() * input.channels } else { 0 };
        self.mid * input.len()
            + mid * self.kernel * self.kernel * self.mid
            + mid * output.channels
            + downsample
    }

    /// The input lives until the shortcut has been computed.
    fn peak(&self, maps: Maps, kept: bool) -> usize {
        let input = maps.input.len();
        let output = maps.output.len();
        let reduced = self.mid * maps.input.plane();
        let mid = self.mid * maps.output.plane();
        let pooled = if self.stride > 1 { maps.input.channels * maps.output.plane() } else { 0 };
        let kept = if kept { input } else { 0 };
        let shortcut = match (self.downsample, pooled) {
            (false, _) => input + output,
            (true, 0) => input + 2 * output,
            (true, pooled) => (input + output + pooled).max(kept + pooled + 2 * output),
        };
        (input + reduced + mid).max(input + mid + output).max(shortcut)
    }

    fn widest(&self, input: FeatureMap) -> usize {
        self.mid * input.plane()
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }

    /// First the channels between the dense convolution and the expansion, then those before it.
    fn free_channels(&self) -> Vec<FreeChannels> {
        let between = |read_by, members| FreeChannels { count: self.mid, read_by, members };
        vec![
            between(
                "conv3.conv.weight",
                vec![
                    ("conv3.conv.weight", 1),
                    ("conv2.conv.weight", 0),
                    ("conv2.bn.weight", 0),
                    ("conv2.bn.bias", 0),
                ],
            ),
            between(
                "conv2.conv.weight",
                vec![
                    ("conv2.conv.weight", 1),
                    ("conv1.conv.weight", 0),
                    ("conv1.bn.weight", 0),
                    ("conv1.bn.bias", 0),
                ],
            ),
        ]
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["bottleneck", kernel, stride, channels, activation, flags @ ..] = key else { return None };
    let [input, mid, output] = words::channel_list(channels)?;
    let kernel = words::kernel(kernel)?;
    let stride = words::stride(stride)?;
    let downsample = words::flag(flags, "down")?;
    let activation = words::activation(activation)?;
    let block = Bottleneck { kernel, stride, mid, activation, downsample };
    // only shapes that lowering gives
    let adds = downsample || (stride == 1 && input == output);
    let parsed =
        Parsed { name: "blocks.0", operator: Operator::Bottleneck(block), channels: [input, output] };
    adds.then_some(parsed)
}
