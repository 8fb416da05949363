//! The reduction of ENAS and DARTS (Pham et al. 2018): a 1x1 convolution of every second place and one of the places
//! between, whose outputs are channels side by side, and a batch norm.

use super::{Form, Maps, Operator, Parsed, words};
use crate::value::Extent;
use crate::weight::{WeightList, WeightRole};

pub(super) struct FactorizedReduction;

/// Channels that each of the two convolutions makes of a reduction's output.
pub fn reduced_parts(output: usize) -> [usize; 2] {
    [output.div_ceil(2), output / 2]
}

impl Form for FactorizedReduction {
    /// `fredux 16-32`.
    fn key(&self, Maps { input, output }: Maps) -> String {
        format!("fredux {}-{}", input.channels, output.channels)
    }

    fn weights(&self, Maps { input, output }: Maps, list: &mut WeightList) {
        for (part, channels) in ["even", "odd"].into_iter().zip(reduced_parts(output.channels)) {
            list.push(part, "weight", &[channels, input.channels, 1, 1], WeightRole::Filters);
        }
        list.batch_norm("", output.channels);
    }

    fn macs(&self, maps: Maps) -> usize {
        maps.output.len() * maps.input.channels
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(2)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["fredux", channels] = key else { return None };
    let [input, output] = words::channel_list(channels)?;
    let operator = Operator::FactorizedReduction;
    (output >= 2).then_some(Parsed { name: "reduction.0", operator, channels: [input, output] })
}
