//! Dense convolution on maps, batch norm, activation.

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::value::Extent;
use crate::weight::WeightList;

pub(super) struct Conv {
    pub kernel: usize,
    pub stride: usize,
    pub activation: Activation,
    pub residual: bool,
}

impl Form for Conv {
    /// `conv k3 s2 8-16 relu`; a stride of 1 is not written.
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, stride, activation, residual } = self;
        let skip = if *residual { " skip" } else { "" };
        let stride = words::written_stride(*stride);
        format!("conv k{kernel}{stride} {}-{} {activation}{skip}", input.channels, output.channels)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        let part = if self.residual { "conv" } else { "" };
        list.conv_norm(part, [maps.output.channels, maps.input.channels, self.kernel, self.kernel]);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * self.kernel * self.kernel * maps.input.channels
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["conv", kernel, rest @ ..] = key else { return None };
    let (stride, rest) = words::optional_stride(rest)?;
    let [channels, activation, flags @ ..] = rest else { return None };
    let [input, output] = words::channel_list(channels)?;
    let kernel = words::kernel(kernel)?;
    let activation = words::activation(activation)?;
    let residual = words::flag(flags, "skip")?;
    let operator = Operator::Conv { kernel, stride, activation, residual };
    let parsed = Parsed { name: "input_stem.0", operator, channels: [input, output] };
    (!residual || (stride == 1 && input == output)).then_some(parsed)
}
