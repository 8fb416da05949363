//! Maximum over 3 x 3, padding 1.

use super::{Form, Maps, Operator, Parsed, words};
use crate::value::Extent;

pub(super) struct MaxPool {
    pub stride: usize,
}

impl Form for MaxPool {
    /// `maxpool 16`, or `maxpool s1 16`: a stride of 2, as a ResNet's has, is not written.
    fn key(&self, maps: Maps) -> String {
        let stride = if self.stride == 2 { String::new() } else { format!("s{} ", self.stride) };
        format!("maxpool {stride}{}", maps.input.channels)
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let (name, stride, channels) = match key {
        ["maxpool", channels] => ("max_pooling", 2, channels),
        ["maxpool", stride, channels] => ("max_pool.0", words::stride(stride)?, channels),
        _ => return None,
    };
    let operator = Operator::MaxPool { stride };
    Some(Parsed { name, operator, channels: [words::channels(channels)?; 2] })
}
