//! Mean over windows; places outside of the map are not counted.

use super::{Form, Maps, Operator, Parsed, words};
use crate::value::Extent;

pub(super) struct AveragePool {
    pub kernel: usize,
    pub stride: usize,
}

impl Form for AveragePool {
    /// `avgpool k3 s2 16`; a stride of 1 is not written.
    fn key(&self, maps: Maps) -> String {
        format!("avgpool k{}{} {}", self.kernel, words::written_stride(self.stride), maps.input.channels)
    }

    fn extent(&self, input: Extent) -> Extent {
        input.through(self.stride)
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let ["avgpool", kernel, rest @ ..] = key else { return None };
    let (stride, rest) = words::optional_stride(rest)?;
    let [channels] = rest else { return None };
    // around a place, or adjacent
    let kernel = words::window(kernel).filter(|kernel| kernel % 2 == 1 || *kernel == stride)?;
    if kernel < stride {
        return None;
    }
    let operator = Operator::AveragePool { kernel, stride };
    Some(Parsed { name: "avg_pool.0", operator, channels: [words::channels(channels)?; 2] })
}
