//! ReLU, dense convolution on maps, batch norm: a convolution of a cell, which another one may follow.

use super::{Form, Maps, Operator, Parsed, words};
use crate::value::Extent;
use crate::weight::WeightList;

pub(super) struct ReluConv {
    pub kernel: usize,
    pub stride: usize,
}

impl Form for ReluConv {
    /// `reluconv k3 s2 8-16`; a stride of 1 is not written.
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, stride } = self;
        format!("reluconv k{kernel}{} {}-{}", words::written_stride(*stride), input.channels, output.channels)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        list.conv_norm("", [maps.output.channels, maps.input.channels, self.kernel, self.kernel]);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * self.kernel * self.kernel * maps.input.channels
    }

    /// The rectified input lives until the convolution has read it.
    fn peak(&self, maps: Maps, kept: bool) -> usize {
        let kept = if kept { maps.input.len() } else { 0 };
        kept + maps.input.len() + maps.output.len()
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["reluconv", kernel, rest @ ..] = key else { return None };
    let (stride, rest) = words::optional_stride(rest)?;
    let [channels] = rest else { return None };
    let operator = Operator::ReluConv { kernel: words::kernel(kernel)?, stride };
    Some(Parsed { name: "relu_conv.0", operator, channels: words::channel_list(channels)? })
}
