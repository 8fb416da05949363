//! Mean over each map.

use super::{Form, Maps, Operator, Parsed, words};
use crate::value::Extent;

pub(super) struct Pool;

impl Form for Pool {
    fn key(&self, maps: Maps) -> String {
        format!("pool {}", maps.input.channels)
    }

    fn extent(&self, _input: Extent) -> Extent {
        Extent::ONE
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["pool", channels] = key else { return None };
    Some(Parsed { name: "pool", operator: Operator::Pool, channels: [words::channels(channels)?; 2] })
}
