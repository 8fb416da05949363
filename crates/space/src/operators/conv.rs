//! Dense convolution on maps, batch norm, activation; stride 1.

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::weight::WeightList;

pub(super) struct Conv {
    pub kernel: usize,
    pub activation: Activation,
    pub residual: bool,
}

impl Form for Conv {
    fn key(&self, Maps { input, output }: Maps) -> String {
        let Self { kernel, activation, residual } = self;
        let skip = if *residual { " skip" } else { "" };
        format!("conv k{kernel} {}-{} {activation}{skip}", input.channels, output.channels)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        let part = if self.residual { "conv" } else { "" };
        list.conv_norm(part, [maps.output.channels, maps.input.channels, self.kernel, self.kernel]);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * self.kernel * self.kernel * maps.input.channels
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["conv", kernel, channels, activation, flags @ ..] = key else { return None };
    let [input, output] = words::channel_list(channels)?;
    let (kernel, activation) = (words::kernel(kernel)?, words::activation(activation)?);
    let residual = words::flag(flags, "skip")?;
    let operator = Operator::Conv { kernel, activation, residual };
    let parsed = Parsed { name: "input_stem.0", operator, channels: [input, output] };
    (!residual || input == output).then_some(parsed)
}
