//! Linear layer with bias.

use super::{Form, Maps, Operator, Parsed, words};
use crate::weight::{WeightList, WeightRole};

pub(super) struct Classifier;

impl Form for Classifier {
    fn key(&self, Maps { input, output }: Maps) -> String {
        format!("linear {}-{}", input.channels, output.channels)
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        list.push("linear", "weight", &[maps.output.channels, maps.input.channels], WeightRole::Matrix);
        list.push("linear", "bias", &[maps.output.channels], WeightRole::Bias);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.channels * maps.input.channels
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["linear", channels] = key else { return None };
    let channels = words::channel_list(channels)?;
    Some(Parsed { name: "classifier", operator: Operator::Classifier, channels })
}
