//! The inner loops of the depthwise convolution, the same for both schemes.
//!
//! A *step* is the direction in which a tile has several outputs: down the rows of a plane, or along the
//! pixels of a row when lanes are images. Inner taps are those along the steps, outer taps the others.

use super::super::simd::Lanes;
use std::ops::Range;

/// The largest kernel side.
pub(super) const MAX_KERNEL: usize = 7;

/// The taps of one channel: where each outer tap reads, and its weights along the steps.
pub(super) struct Taps {
    /// Outer taps.
    pub(super) count: usize,
    /// Distance of each outer tap from the first place of a tile, in values.
    pub(super) offsets: [usize; MAX_KERNEL],
    /// `[outer][inner]`.
    pub(super) weights: [[f32; MAX_KERNEL]; MAX_KERNEL],
}

impl Taps {
    /// `outer x inner` taps from their offsets and weights.
    pub(super) fn new(
        outer: usize,
        inner: usize,
        offset: impl Fn(usize) -> usize,
        weight: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut taps =
            Self { count: outer, offsets: [0; MAX_KERNEL], weights: [[0.0; MAX_KERNEL]; MAX_KERNEL] };
        for o in 0..outer {
            taps.offsets[o] = offset(o);
            for i in 0..inner {
                taps.weights[o][i] = weight(o, i);
            }
        }
        taps
    }
}

/// How many outputs the next tile computes when `left` of `len` remain: the tile may reach back over outputs
/// that are there already, which costs less than small tiles with few independent sums. At stride `S` 2 the
/// largest tile would keep its sums in memory.
pub(super) fn tile_len<T: Lanes, const S: usize>(len: usize, left: usize) -> usize {
    match left {
        5.. if S == 1 && T::WIDE && len >= 8 => 8,
        3.. if len >= 4 => 4,
        _ if len >= 2 => 2,
        _ => 1,
    }
}

/// `R` outputs of `K` inner taps at stride `S`; steps of the input are `pitch` values apart.
///
/// # Safety
/// Vectors are readable at `source + taps.offsets[outer] + step * pitch` for every outer tap in `outer` and
/// every step below `S * (R - 1) + K`.
#[inline(always)]
pub(super) unsafe fn tile<T: Lanes, const K: usize, const R: usize, const S: usize>(
    source: *const f32,
    pitch: usize,
    taps: &Taps,
    outer: Range<usize>,
) -> [T; R] {
    let mut sums = [T::splat(0.0); R];
    for outer in outer {
        let mut weights = [T::splat(0.0); K];
        for (weight, value) in weights.iter_mut().zip(&taps.weights[outer]) {
            *weight = T::splat(*value);
        }
        for step in 0..S * (R - 1) + K {
            // SAFETY: the caller's promise.
            let value = unsafe { T::load(source.add(taps.offsets[outer] + step * pitch)) };
            for (r, sum) in sums.iter_mut().enumerate() {
                if step >= S * r && step - S * r < K {
                    *sum = value.mul_add(weights[step - S * r], *sum);
                }
            }
        }
    }
    sums
}

/// Adds to `sums[b][tap]` the products of the gradient with what tap `(b, tap)` read, over `steps` groups of
/// `S` input steps: inner tap `S * i + q` pairs step `q` of group `m` with the gradient of output `m - i`.
///
/// # Safety
/// Vectors are readable at `inputs[b] + step * pitches.0` for every step below `S * steps`, and at
/// `gradient + (m - i) * pitches.1` for every `m < steps` and `i <= (K - 1) / S`.
#[inline(always)]
pub(super) unsafe fn correlate<T: Lanes, const K: usize, const B: usize, const S: usize>(
    inputs: [*const f32; B],
    gradient: *const f32,
    pitches: (usize, usize),
    steps: usize,
    sums: &mut [[T; K]; B],
) {
    for m in 0..steps {
        let mut window = [T::splat(0.0); K];
        for (i, gradients) in window.iter_mut().enumerate().take((K - 1) / S + 1) {
            // SAFETY: the caller's promise; `i` rows before `m` lie in the same allocation.
            *gradients = unsafe { T::load(gradient.add(m * pitches.1).sub(i * pitches.1)) };
        }
        for (input, sums) in inputs.iter().zip(sums.iter_mut()) {
            for q in 0..S {
                // SAFETY: the caller's promise.
                let value = unsafe { T::load(input.add((S * m + q) * pitches.0)) };
                for (i, gradients) in window.iter().enumerate() {
                    if S * i + q < K {
                        sums[S * i + q] = value.mul_add(*gradients, sums[S * i + q]);
                    }
                }
            }
        }
    }
}

/// Along one axis at stride 2: the inputs of one parity read only every other tap. Input `2 * m + parity` is
/// reached by output `m + start + i` through tap `tap(i)`, for `i` below `count`.
#[derive(Clone, Copy)]
pub(super) struct Phase {
    /// The first output, relative to `m`; -1 or 0.
    pub(super) start: isize,
    /// Taps of this parity, at most 4.
    pub(super) count: usize,
    last: usize,
}

impl Phase {
    /// The phase of inputs of `parity` (0 or 1) under a kernel of side `kernel`.
    pub(super) fn new(kernel: usize, parity: usize) -> Self {
        let reach = parity + kernel / 2;
        let first = reach % 2;
        let count = (kernel - first).div_ceil(2);
        let start = ((reach - first) / 2) as isize - (count as isize - 1);
        Self { start, count, last: first + 2 * (count - 1) }
    }

    /// The tap of the `i`-th output.
    pub(super) fn tap(self, i: usize) -> usize {
        self.last - 2 * i
    }
}

/// Outputs that a [`Phase`] may reach outside of the map, on either side.
pub(super) const PHASE_MARGIN: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_invert_the_stride() {
        for kernel in [3, 5, 7] {
            let mut seen = 0;
            for parity in [0, 1] {
                let phase = Phase::new(kernel, parity);
                assert!(phase.start >= -1 && phase.start + phase.count as isize <= 1 + PHASE_MARGIN as isize);
                for i in 0..phase.count {
                    let input =
                        2 * (phase.start + i as isize) + phase.tap(i) as isize - (kernel / 2) as isize;
                    assert_eq!(input, parity as isize);
                    seen += 1;
                }
            }
            assert_eq!(seen, kernel);
        }
    }
}
