//! The inverted residual block (Sandler et al. 2018), with squeeze-and-excite as in MobileNetV3 (Howard et al. 2019).

use super::{Form, FreeChannels, MOST_CHANNELS, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::feature_map::FeatureMap;
use crate::value::Extent;
use crate::weight::{WeightList, WeightRole};

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

impl Form for MbConv {
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, stride, mid, activation, .. } = self;
        let first = if self.expansion { "" } else { " e1" };
        let squeeze = self.squeeze.map_or_else(String::new, |squeeze| format!(" se{squeeze}"));
        let skip = if self.residual { " skip" } else { "" };
        let channels = format!("{}-{mid}-{}", input.channels, output.channels);
        format!("mbconv k{kernel} s{stride} {channels} {activation}{first}{squeeze}{skip}")
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        let mid = self.mid;
        if self.expansion {
            list.conv_norm("conv.inverted_bottleneck", [mid, maps.input.channels, 1, 1]);
        }
        list.depthwise_norm("conv.depth_conv", mid, self.kernel);
        if let Some(squeeze) = self.squeeze {
            for (part, to, from) in [("reduce", squeeze, mid), ("expand", mid, squeeze)] {
                let part = format!("conv.depth_conv.se.fc.{part}");
                list.push(&part, "weight", &[to, from, 1, 1], WeightRole::Filters);
                list.push(&part, "bias", &[to], WeightRole::Bias);
            }
        }
        list.conv_norm("conv.point_linear", [maps.output.channels, mid, 1, 1]);
    }

    fn macs(&self, Maps { input, output }: Maps) -> usize {
        let expansion = if self.expansion { self.mid * input.len() } else { 0 };
        let depthwise = self.mid * self.kernel * self.kernel * output.plane();
        let squeeze = self.squeeze.map_or(0, |squeeze| 2 * squeeze * self.mid);
        expansion + depthwise + squeeze + self.mid * output.len()
    }

    /// The input is dropped after the expansion unless it is added in the end.
    fn peak(&self, maps: Maps, kept: bool) -> usize {
        let input = maps.input.len();
        let output = maps.output.len();
        let kept = if self.residual || kept { input } else { 0 };
        let before = self.mid * maps.input.plane();
        let after = self.mid * maps.output.plane();
        let expansion = if self.expansion { input + before } else { 0 };
        let depthwise = if self.expansion { kept + before + after } else { input + after };
        expansion.max(depthwise).max(kept + after + output)
    }

    fn widest(&self, input: FeatureMap) -> usize {
        self.mid * input.plane()
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }

    /// The channels between expansion and projection, then those inside squeeze-and-excite.
    fn free_channels(&self) -> Vec<FreeChannels> {
        if !self.expansion {
            return Vec::new();
        }
        let mut members = vec![
            ("conv.point_linear.conv.weight", 1),
            ("conv.inverted_bottleneck.conv.weight", 0),
            ("conv.inverted_bottleneck.bn.weight", 0),
            ("conv.inverted_bottleneck.bn.bias", 0),
            ("conv.depth_conv.conv.weight", 0),
            ("conv.depth_conv.bn.weight", 0),
            ("conv.depth_conv.bn.bias", 0),
        ];
        let [reduce, reduce_bias, expand, expand_bias] = [
            "conv.depth_conv.se.fc.reduce.weight",
            "conv.depth_conv.se.fc.reduce.bias",
            "conv.depth_conv.se.fc.expand.weight",
            "conv.depth_conv.se.fc.expand.bias",
        ];
        if self.squeeze.is_some() {
            members.extend([(reduce, 1), (expand, 0), (expand_bias, 0)]);
        }
        let mid = FreeChannels { count: self.mid, read_by: "conv.point_linear.conv.weight", members };
        let squeezed = self.squeeze.map(|squeeze| FreeChannels {
            count: squeeze,
            read_by: expand,
            members: vec![(expand, 1), (reduce, 0), (reduce_bias, 0)],
        });
        std::iter::once(mid).chain(squeezed).collect()
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["mbconv", kernel, stride, channels, activation, flags @ ..] = key else { return None };
    let [input, mid, output] = words::channel_list(channels)?;
    let mut block = MbConv {
        kernel: words::kernel(kernel)?,
        stride: words::stride(stride)?,
        mid,
        expansion: true,
        activation: words::activation(activation)?,
        squeeze: None,
        residual: false,
    };
    for flag in flags {
        match *flag {
            "e1" => block.expansion = false,
            "skip" => block.residual = true,
            other => block.squeeze = Some(words::number(other.strip_prefix("se")?, MOST_CHANNELS)?),
        }
    }
    // only shapes that lowering gives
    let expands = block.expansion || mid == input;
    let adds = !block.residual || (block.stride == 1 && input == output);
    let parsed = Parsed { name: "blocks.0", operator: Operator::MbConv(block), channels: [input, output] };
    (expands && adds).then_some(parsed)
}
