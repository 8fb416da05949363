//! Maximum over 3 x 3, stride 2, padding 1.

use super::{Form, Maps, Operator, Parsed, words};
use crate::value::Extent;

pub(super) struct MaxPool;

impl Form for MaxPool {
    fn key(&self, maps: Maps) -> String {
        format!("maxpool {}", maps.input.channels)
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(2)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["maxpool", channels] = key else { return None };
    Some(Parsed {
        name: "max_pooling",
        operator: Operator::MaxPool,
        channels: [words::channels(channels)?; 2],
    })
}
