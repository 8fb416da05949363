//! Scratch memory that each thread keeps from one kernel to the next.

use std::cell::RefCell;

/// Sixteen values on a cache line of their own. Scratch memory consists of these, so that vectors in it do not
/// straddle lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(#[expect(dead_code, reason = "read and written through pointers")] [f32; Line::LEN]);

impl Line {
    /// Values of a line.
    pub(super) const LEN: usize = 16;

    /// Zeros, for at least `len` values.
    pub(super) fn zeros(len: usize) -> Vec<Self> {
        vec![Self([0.0; Self::LEN]); len.div_ceil(Self::LEN)]
    }

    /// All values of some lines.
    pub(super) fn values(lines: &[Self]) -> &[f32] {
        // SAFETY: a line is 16 f32 and nothing else.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast::<f32>(), lines.len() * Self::LEN) }
    }

    /// [`Line::values`] to write.
    pub(super) fn values_mut(lines: &mut [Self]) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), lines.len() * Self::LEN) }
    }
}

thread_local! {
    static KEPT: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with at least `len` values of this thread's scratch memory, on lines of their own. They hold
/// whatever was last written there.
pub(super) fn with_scratch<T>(len: usize, body: impl FnOnce(&mut [f32]) -> T) -> T {
    // Taken out while in use: `body` may come here again, itself or by work that its thread steals meanwhile.
    let mut lines = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    if lines.len() * Line::LEN < len {
        lines = Line::zeros(len);
    }
    let result = body(&mut Line::values_mut(&mut lines)[..len]);
    KEPT.with_borrow_mut(|kept| kept.push(lines));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_uses_do_not_share_memory() {
        with_scratch(100, |outer| {
            outer.fill(1.0);
            with_scratch(200, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|value| *value == 1.0));
            assert_eq!(outer.as_ptr().align_offset(64), 0);
        });
    }
}
