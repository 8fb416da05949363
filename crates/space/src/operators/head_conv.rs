//! 1x1 convolution, batch norm, activation.

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::weight::WeightList;

pub(super) struct HeadConv {
    pub activation: Activation,
}

impl Form for HeadConv {
    fn key(&self, Maps { input, output }: Maps) -> String {
        format!("conv1x1 {}-{} {}", input.channels, output.channels, self.activation)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        list.conv_norm("", [maps.output.channels, maps.input.channels, 1, 1]);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * maps.input.channels
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["conv1x1", channels, activation] = key else { return None };
    let operator = Operator::HeadConv { activation: words::activation(activation)? };
    Some(Parsed { name: "final_expand_layer", operator, channels: words::channel_list(channels)? })
}
