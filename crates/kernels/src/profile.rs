//! The time that each kernel took, by the kind of layer that called it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::staging::Event;

/// A record of kernel calls, shared by every copy of the [`super::Backend`] that it was given to.
#[derive(Clone, Debug, Default)]
pub struct Profile(Arc<Mutex<BTreeMap<Key, Part>>>);

/// Most calls whose time has not been read yet: a GPU retains two events for each.
const MOST_PENDING: usize = 4096;

/// Layer, then operation.
type Key = (&'static str, &'static str);

#[derive(Debug, Default)]
struct Part {
    calls: u64,
    ms: f64,
    /// Start and end of calls that a GPU may not have finished.
    pending: Vec<[Event; 2]>,
    macs: u64,
    bytes: u64,
}

impl Part {
    /// Milliseconds of all calls; waits for the pending ones. A failed call counts 0.
    fn ms(&mut self) -> f64 {
        for [before, after] in self.pending.drain(..) {
            self.ms += after.ms_since(&before).unwrap_or(0.0);
        }
        self.ms
    }
}

/// One kind of layer's calls of one operation.
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
    /// Bytes of inputs and outputs in all: the least that is moved if nothing is in a cache.
    pub bytes: u64,
}

impl Profile {
    /// An empty record.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn add(&self, key: Key, from_to: [Event; 2], macs: u64, bytes: u64) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = parts.entry(key).or_default();
        part.calls += 1;
        part.pending.push(from_to);
        if part.pending.len() >= MOST_PENDING || part.pending.iter().all(|[_, after]| after.has_come()) {
            part.ms();
        }
        part.macs += macs;
        part.bytes += bytes;
    }

    /// Removes all records, as after warm-up steps.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The records, the slowest first.
    pub fn rows(&self) -> Vec<ProfileRow> {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::with_capacity(parts.len());
        for (&(layer, operation), part) in parts.iter_mut() {
            let ms = part.ms();
            let Part { calls, macs, bytes, .. } = *part;
            rows.push(ProfileRow { layer, operation, calls, ms, macs, bytes });
        }
        rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        rows
    }
}

impl PartialEq for Profile {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backend;
    use base::timing::Stopwatch;

    #[test]
    fn calls_add_up_and_the_slowest_comes_first() {
        let profile = Profile::new();
        let backend = Backend::detect();
        let moment = || backend.moment().expect("a CPU's");
        let first = moment();
        let began = Stopwatch::start();
        while began.elapsed_ms() < 2.0 {}
        let second = moment();
        profile.add(("pointwise", "product"), [second, moment()], 10, 100);
        profile.add(("linear", "product"), [first, moment()], 1, 1);
        profile.add(("pointwise", "product"), [moment(), moment()], 10, 100);
        let rows = profile.rows();
        assert_eq!((rows[0].layer, rows[0].calls, rows[1].calls), ("linear", 1, 2));
        assert!(rows[0].ms >= 2.0 && rows[0].ms > rows[1].ms, "{rows:?}");
        assert_eq!((rows[1].macs, rows[1].bytes), (20, 200));
        profile.clear();
        assert!(profile.rows().is_empty());
    }
}
