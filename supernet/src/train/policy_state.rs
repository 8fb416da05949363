//! The state of what draws the sub-networks of a run and learns, as a checkpoint holds it: lists of f32 by name.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use network::checkpoint::{OptimizerState, POLICY};

use crate::error::{Error, Result};

/// Values of a part of a count; whole numbers of f32 have 24 bits.
const PART: u64 = 1 << 20;

/// Puts lists into a checkpoint's state.
///
/// # Errors
/// If a tensor cannot be made.
pub(super) fn put<const N: usize>(state: &mut OptimizerState, lists: [(&str, Vec<f32>); N]) -> Result<()> {
    let mut tensors = BTreeMap::new();
    for (name, list) in lists {
        let len = list.len();
        tensors.insert(name.to_string(), Tensor::from_vec(list, len, &Device::Cpu)?);
    }
    state.tensors.insert(POLICY.to_string(), tensors);
    Ok(())
}

/// The lists of a checkpoint's state.
pub(super) struct Lists(BTreeMap<String, Tensor>);

impl Lists {
    /// Those of a state, taken out of it, if it has any.
    pub(super) fn take(state: &mut OptimizerState) -> Option<Self> {
        state.tensors.remove(POLICY).map(Self)
    }

    /// The list of this name, if there is one.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<f32>>> {
        let list = |tensor: Tensor| Ok(tensor.flatten_all()?.to_vec1()?);
        self.0.remove(name).map(list).transpose()
    }
}

/// A count as two f32 hold it.
pub(super) fn parts_of(count: u64) -> [f32; 2] {
    [(count / PART) as f32, (count % PART) as f32]
}

/// The count that two f32 of a checkpoint hold.
///
/// # Errors
/// If they hold none.
pub(super) fn count_of(parts: [f32; 2], name: &str) -> Result<u64> {
    if parts.iter().any(|part| part.fract() != 0.0 || !(0.0..PART as f32).contains(part)) {
        let field = format!("{POLICY}.counts ({name})");
        let expected = format!("whole numbers below {PART}");
        return Err(Error::invalid("checkpoint", field, expected, format!("{parts:?}")));
    }
    let [high, low] = parts.map(|part| part as u64);
    Ok(high * PART + low)
}
