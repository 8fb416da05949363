//! Batch norm and activation by themselves.

use super::{Form, Maps, Operator, Parsed, words};
use crate::activation::Activation;
use crate::weight::WeightList;

pub(super) struct Norm {
    pub activation: Activation,
}

impl Form for Norm {
    /// `norm 64 relu`.
    fn key(&self, maps: Maps) -> String {
        format!("norm {} {}", maps.input.channels, self.activation)
    }

    /// In place where the input ends here.
    fn peak(&self, maps: Maps, kept: bool) -> usize {
        maps.output.len() + if kept { maps.input.len() } else { 0 }
    }

    fn weights(&self, maps: Maps, list: &mut WeightList) {
        list.batch_norm("", maps.input.channels);
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["norm", channels, activation] = key else { return None };
    let operator = Operator::Norm { activation: words::activation(activation)? };
    Some(Parsed { name: "last_norm", operator, channels: [words::channels(channels)?; 2] })
}
