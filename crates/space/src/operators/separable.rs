//! The depthwise-separable block (Howard et al. 2017), as in DS-CNN (Zhang et al. 2017).

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::feature_map::FeatureMap;
use crate::value::Extent;
use crate::weight::WeightList;

/// Depthwise convolution, batch norm, activation, 1x1 convolution, batch norm, activation.
///
/// No channel's order is free in it: the channels between the two convolutions are those of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Separable {
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Stride of the depthwise convolution.
    pub stride: usize,
    /// Activation after each of the two convolutions.
    pub activation: Activation,
}

/// The output of the depthwise convolution.
fn between(Maps { input, output }: Maps) -> FeatureMap {
    FeatureMap { channels: input.channels, ..output }
}

impl Form for Separable {
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, stride, activation } = self;
        format!("sepconv k{kernel} s{stride} {}-{} {activation}", input.channels, output.channels)
    }

    fn weights(&self, Maps { input, output }: Maps, list: &mut WeightList) {
        list.depthwise_norm("depthwise", input.channels, self.kernel);
        list.conv_norm("pointwise", [output.channels, input.channels, 1, 1]);
    }

    fn macs(&self, maps: Maps) -> usize {
        self.kernel * self.kernel * between(maps).len() + maps.output.len() * maps.input.channels
    }

    /// The input is dropped after the depthwise convolution.
    fn peak(&self, maps: Maps, kept: bool) -> usize {
        let input = maps.input.len();
        let between = between(maps).len();
        let output = maps.output.len();
        let kept = if kept { input } else { 0 };
        (input + between).max(kept + between + output)
    }

    fn widest(&self, input: FeatureMap) -> usize {
        input.len()
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["sepconv", kernel, stride, channels, activation] = key else { return None };
    let operator = Operator::Separable(Separable {
        kernel: words::kernel(kernel)?,
        stride: words::stride(stride)?,
        activation: words::activation(activation)?,
    });
    Some(Parsed { name: "blocks.0", operator, channels: words::channel_list(channels)? })
}

#[cfg(test)]
mod tests {
    use crate::layer::LayerSpec;

    #[test]
    fn costs_are_those_of_both_convolutions() {
        let layer: LayerSpec = "sepconv k5 s2 16-24 relu @20x51".parse().expect("a key");
        assert_eq!((layer.output.channels, layer.output.height, layer.output.width), (24, 10, 26));
        let cost = crate::cost(std::slice::from_ref(&layer));
        assert_eq!(cost.macs, (16 * 25 + 24 * 16) * 10 * 26);
        assert_eq!(cost.params, 16 * 25 + 2 * 16 + 24 * 16 + 2 * 24);
        let input = 16 * 20 * 51;
        let between = 16 * 10 * 26;
        let output = 24 * 10 * 26;
        assert_eq!(cost.peak_activation_bytes, 4 * (input + between).max(between + output));
        let names: Vec<String> = layer.weights().into_iter().map(|weight| weight.name).collect();
        assert_eq!(names[0], "blocks.0.depthwise.conv.weight");
        assert_eq!(names[3], "blocks.0.pointwise.conv.weight");
    }

    #[test]
    fn other_words_are_refused() {
        for key in [
            "sepconv k4 s1 16-24 relu @8x8",
            "sepconv k3 s3 16-24 relu @8x8",
            "sepconv k3 s1 16 relu @8x8",
            "sepconv k3 s1 16-24-24 relu @8x8",
            "sepconv k3 s1 16-24 relu skip @8x8",
        ] {
            assert!(key.parse::<LayerSpec>().is_err(), "{key}");
        }
    }
}
