//! 1x1 convolution without batch norm or bias, activation: on pooled features, or on maps.

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::weight::{WeightList, WeightRole};

pub(super) struct FeatureMix {
    pub activation: Activation,
}

impl Form for FeatureMix {
    fn key(&self, Maps { input, output }: Maps) -> String {
        format!("mix {}-{} {}", input.channels, output.channels, self.activation)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        let shape = [maps.output.channels, maps.input.channels, 1, 1];
        list.push("conv", "weight", &shape, WeightRole::Filters);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * maps.input.channels
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["mix", channels, activation] = key else { return None };
    let operator = Operator::FeatureMix { activation: words::activation(activation)? };
    Some(Parsed { name: "feature_mix_layer", operator, channels: words::channel_list(channels)? })
}
