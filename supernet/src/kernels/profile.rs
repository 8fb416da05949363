//! Where the time goes: what each kernel took, by the kind of layer that called it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// A record of kernel calls, shared by every copy of the [`super::Kernels`] that it was given to.
///
/// It lives as long as the process, so that kernels stay plain values; make one a run.
#[derive(Clone, Copy, Debug)]
pub struct Profile(&'static Mutex<BTreeMap<Key, Part>>);

/// Layer, then operation.
type Key = (&'static str, &'static str);

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    calls: u64,
    ms: f64,
    macs: u64,
    bytes: u64,
}

/// What one kind of layer spent in one operation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProfileRow {
    /// The kind of layer, such as `pointwise`.
    pub layer: &'static str,
    /// The kernel, such as `product`.
    pub operation: &'static str,
    /// Calls.
    pub calls: u64,
    /// Milliseconds in all.
    pub ms: f64,
    /// Multiply-accumulates in all, of products and convolutions.
    pub macs: u64,
    /// Bytes of inputs and outputs in all: what had to be moved at least, were nothing in a cache.
    pub bytes: u64,
}

impl Profile {
    /// An empty record.
    #[expect(
        clippy::new_without_default,
        reason = "it is never freed, so it should be seen where it is made"
    )]
    pub fn new() -> Self {
        Self(Box::leak(Box::default()))
    }

    pub(super) fn add(self, key: Key, ms: f64, macs: u64, bytes: u64) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = parts.entry(key).or_default();
        part.calls += 1;
        part.ms += ms;
        part.macs += macs;
        part.bytes += bytes;
    }

    /// Forgets everything, as after the steps that warm up.
    pub fn clear(self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What was recorded, the dearest first.
    pub fn rows(self) -> Vec<ProfileRow> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = |(&(layer, operation), part): (&Key, &Part)| {
            let Part { calls, ms, macs, bytes } = *part;
            ProfileRow { layer, operation, calls, ms, macs, bytes }
        };
        let mut rows: Vec<_> = parts.iter().map(row).collect();
        rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        rows
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.0, other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_add_up_and_the_dearest_comes_first() {
        let profile = Profile::new();
        profile.add(("pointwise", "product"), 1.0, 10, 100);
        profile.add(("linear", "product"), 5.0, 1, 1);
        profile.add(("pointwise", "product"), 2.0, 10, 100);
        let rows = profile.rows();
        assert_eq!((rows[0].layer, rows[1].calls, rows[1].ms), ("linear", 2, 3.0));
        assert_eq!((rows[1].macs, rows[1].bytes), (20, 200));
        profile.clear();
        assert!(profile.rows().is_empty());
    }
}
