//! Zeros in place of a map: the sum of no terms.

use super::{Form, Maps, Operator, Parsed, words};

pub(super) struct Zero;

impl Form for Zero {
    fn key(&self, maps: Maps) -> String {
        format!("zero {}", maps.input.channels)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["zero", channels] = key else { return None };
    Some(Parsed { name: "zero.0", operator: Operator::Zero, channels: [words::channels(channels)?; 2] })
}
