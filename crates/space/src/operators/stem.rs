//! Dense convolution on the image, batch norm, activation.

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::value::Extent;
use crate::weight::WeightList;

pub(super) struct Stem {
    pub kernel: usize,
    pub stride: usize,
    pub activation: Activation,
}

impl Form for Stem {
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, stride, activation } = self;
        format!("stem k{kernel} s{stride} {}-{} {activation}", input.channels, output.channels)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        list.conv_norm("", [maps.output.channels, maps.input.channels, self.kernel, self.kernel]);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * self.kernel * self.kernel * maps.input.channels
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["stem", kernel, stride, channels, activation] = key else { return None };
    let operator = Operator::Stem {
        kernel: words::kernel(kernel)?,
        stride: words::stride(stride)?,
        activation: words::activation(activation)?,
    };
    Some(Parsed { name: "first_conv", operator, channels: words::channel_list(channels)? })
}
