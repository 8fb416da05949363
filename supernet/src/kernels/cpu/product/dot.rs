//! Products of rows that are contiguous along a long inner dimension: tiles of dot products, nothing packed.

use std::ops::Range;

use rayon::prelude::*;

use super::super::Isa;
use super::super::simd::{Lanes, load_up_to, vectorised};
use super::{MOST_TASKS, Matrix, Out, SERIAL_MACS, TASK_MACS, Write, part};

/// Length of the inner dimension that gets a sum of its own, added to the others in order.
const PART: usize = 4096;

/// Shortest inner dimension for which adding up the lanes of a vector at the end costs little.
const SHORTEST: usize = 1024;

/// Rows, and columns, that one part's operands may have in the level 2 cache: values.
const SLAB: usize = 1 << 16;

/// Rows of a tile; with 6 or 3 columns they fill 32 registers or 16.
const ROWS: usize = 4;

/// Rows of a task at least.
const GROUP_ROWS: usize = 16;

/// Whether this scheme can be used, and is the faster one.
pub(super) fn suits(left: &Matrix, right: &Matrix) -> bool {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    let contiguous = left.column_stride == 1 && (right.row_stride == 1 || k == 1);
    // Packing costs `m + n` loads and stores and the shuffles between them for `m * n` multiply-adds.
    contiguous && (n == 1 || k >= SHORTEST && m * n < 150 * (m + n))
}

/// `out (+)= left x right`.
pub(super) fn product(isa: Isa, left: &Matrix, right: &Matrix, out: Out, write: Write) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    let parts = k.div_ceil(PART).max(1);
    let tasks = (m * n * k / TASK_MACS).clamp(1, MOST_TASKS);
    let groups = if m * n * k < SERIAL_MACS { 1 } else { (tasks / parts).clamp(1, m.div_ceil(GROUP_ROWS)) };
    let length = k.div_ceil(parts);
    let mut sums = vec![0.0f32; parts * m * n];
    let buffer = Out { first: sums.as_mut_ptr(), stride: n };
    let task = |index: usize| {
        let (group, piece) = (index / parts, index % parts);
        let inner = (piece * length).min(k)..((piece + 1) * length).min(k);
        let rows = part(group, groups, m, ROWS);
        // SAFETY: each task has rows and a part of its own; `buffer` holds `parts` matrices of m x n.
        let sums = unsafe {
            std::slice::from_raw_parts_mut(buffer.at(piece * m + rows.start, 0), rows.len() * n)
        };
        dots(isa, left, right, rows, inner, sums);
    };
    if m * n * k < SERIAL_MACS {
        (0..parts * groups).for_each(task);
    } else {
        (0..parts * groups).into_par_iter().for_each(task);
    }
    for row in 0..m {
        // SAFETY: the row is in the destination, which nobody else uses.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(row, 0), n) };
        if write == Write::Replace {
            out.fill(0.0);
        }
        for sums in sums.chunks(m * n) {
            out.iter_mut().zip(&sums[row * n..]).for_each(|(out, sum)| *out += sum);
        }
    }
}

vectorised!(
    fn dots(left: &Matrix, right: &Matrix, rows: Range<usize>, inner: Range<usize>, sums: &mut [f32]) = dots_on
);

/// Adds to `sums`, `[rows][n]`, over part of the inner dimension.
#[inline(always)]
fn dots_on<T: Lanes>(
    left: &Matrix,
    right: &Matrix,
    rows: Range<usize>,
    inner: Range<usize>,
    sums: &mut [f32],
) {
    let n = right.columns;
    assert_eq!(sums.len(), rows.len() * n);
    assert!(left.fits() && right.fits() && inner.end <= left.columns && rows.end <= left.rows);
    assert!(left.column_stride == 1 && (right.row_stride == 1 || right.rows == 1));
    let length = (SLAB / n.min(rows.len()).max(1)).clamp(512, PART) / T::COUNT * T::COUNT;
    for start in inner.clone().step_by(length) {
        let length = length.min(inner.end - start);
        for row in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - row);
            // Rows that are missing are computed twice instead.
            let lefts: [*const f32; ROWS] = std::array::from_fn(|r| {
                // SAFETY: in the matrix, which fits.
                unsafe { left.at(row + r.min(count - 1), start) }
            });
            let mut column = 0;
            while column < n {
                // SAFETY: the columns are in the matrix; `sums` holds n values for each row.
                unsafe {
                    let rights = right.at(start, column);
                    let to = sums.as_mut_ptr().add((row - rows.start) * n + column);
                    let stride = right.column_stride;
                    column += match n - column {
                        6.. if T::WIDE => add_dots::<T, 6>(lefts, rights, stride, length, (to, n, count)),
                        4.. if T::WIDE => add_dots::<T, 4>(lefts, rights, stride, length, (to, n, count)),
                        3.. => add_dots::<T, 3>(lefts, rights, stride, length, (to, n, count)),
                        2 => add_dots::<T, 2>(lefts, rights, stride, length, (to, n, count)),
                        _ => add_dots::<T, 1>(lefts, rights, stride, length, (to, n, count)),
                    };
                }
            }
        }
    }
}

/// Adds the products of [`ROWS`] rows with `C` columns to `to[row * n + column]`, the first `count` rows;
/// returns `C`.
///
/// # Safety
/// `length` values are readable at each row and at each of the columns, `stride` apart.
#[inline(always)]
unsafe fn add_dots<T: Lanes, const C: usize>(
    lefts: [*const f32; ROWS],
    rights: *const f32,
    stride: usize,
    length: usize,
    (to, n, count): (*mut f32, usize, usize),
) -> usize {
    let mut sums = [[T::splat(0.0); C]; ROWS];
    let mut at = 0;
    while at < length {
        let lanes = T::COUNT.min(length - at);
        let mut values = [T::splat(0.0); C];
        for (c, value) in values.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *value = unsafe { load_up_to(rights.add(c * stride + at), lanes, *value) };
        }
        for (sums, left) in sums.iter_mut().zip(lefts) {
            // SAFETY: the caller's promise.
            let left = unsafe { load_up_to(left.add(at), lanes, T::splat(0.0)) };
            for (sum, value) in sums.iter_mut().zip(&values) {
                *sum = left.mul_add(*value, *sum);
            }
        }
        at += T::COUNT;
    }
    for (r, sums) in sums.iter().enumerate().take(count) {
        for (c, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { *to.add(r * n + c) += sum.sum() };
        }
    }
    C
}
