//! Products of rows that are contiguous along a long inner dimension: tiles of dot products, nothing transposed.

use std::ops::Range;

use rayon::prelude::*;

use super::super::Isa;
use super::super::scratch::with_scratch;
use super::super::simd::{Lanes, load_up_to, vectorised};
use super::{MOST_TASKS, Matrix, Out, SERIAL_MACS, TASK_MACS, Write, part, span};

/// Length of the inner dimension that gets a sum of its own, added to the others in order.
const PART: usize = 2048;

/// Shortest inner dimension for which adding up the lanes of a vector at the end costs little.
const SHORTEST: usize = 1024;

/// Values of the smaller operand that are copied into the level 2 cache at once, or nearly into the level 1 cache where a
/// tile is so small that it reads a value for every two multiply-adds. In the operand, rows are often a power of two apart,
/// and would evict each other.
const fn slab(isa: Isa) -> usize {
    if matches!(isa, Isa::Avx2) { 1 << 14 } else { 3 << 15 }
}

/// Rows of a tile; with 6 or 2 columns and the operands they fill 29 of 32 registers or 13 of 16.
const ROWS: usize = 4;

/// Rows of a task at least.
const GROUP_ROWS: usize = 24;

/// Whether this scheme can be used, and is the faster one.
pub(super) fn suits(left: &Matrix, right: &Matrix) -> bool {
    let m = left.rows;
    let n = right.columns;
    let k = left.columns;
    let contiguous = left.column_stride == 1 && (right.row_stride == 1 || k == 1);
    // Packing costs `m + n` loads and stores and the shuffles between them for `m * n` multiply-adds.
    contiguous && (n == 1 || k >= SHORTEST && m * n < 150 * (m + n))
}

/// Rows that are contiguous along the inner dimension.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    count: usize,
    stride: usize,
    length: usize,
}

impl Rows<'_> {
    /// The address of a value.
    ///
    /// # Safety
    /// The value is there, and `values` holds all rows.
    unsafe fn at(&self, row: usize, place: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.values.as_ptr().add(row * self.stride + place) }
    }

    /// Whether every row lies inside the slice.
    fn fits(&self) -> bool {
        span(self.count, self.length, self.stride, 1).is_some_and(|span| span <= self.values.len())
    }
}

/// `out (+)= left x right`.
pub(super) fn product(isa: Isa, left: &Matrix, right: &Matrix, out: Out, write: Write) {
    let m = left.rows;
    let n = right.columns;
    let k = left.columns;
    let left = Rows { values: left.values, count: m, stride: left.row_stride, length: k };
    let right = Rows { values: right.values, count: n, stride: right.column_stride, length: k };
    // The smaller operand is copied and read again and again; sums are `[part][larger][smaller]`.
    let (large, small) = if m >= n { (left, right) } else { (right, left) };
    let mut sums = vec![0.0f32; k.div_ceil(PART).max(1) * m * n];
    in_parts(isa, large, small, &mut sums);
    let (row_step, column_step) = if m >= n { (n, 1) } else { (1, m) };
    for row in 0..m {
        // SAFETY: the row is in the destination, which nobody else uses.
        let out = unsafe { std::slice::from_raw_parts_mut(out.at(row, 0), n) };
        if write != Write::Accumulate {
            out.fill(0.0);
        }
        for sums in sums.chunks(m * n) {
            for (column, out) in out.iter_mut().enumerate() {
                *out += sums[row * row_step + column * column_step];
            }
        }
        if let Write::Activate { shift, activation } = write {
            out.iter_mut().for_each(|out| *out = activation.apply(*out + shift[row]));
        }
    }
}

/// The sums of each part of the inner dimension, `[part][large][small]`.
fn in_parts(isa: Isa, large: Rows, small: Rows, sums: &mut [f32]) {
    let m = large.count;
    let n = small.count;
    let k = large.length;
    let parts = sums.len() / (m * n);
    let length = k.div_ceil(parts);
    let tasks = (m * n * k / TASK_MACS).clamp(1, MOST_TASKS);
    let groups = if m * n * k < SERIAL_MACS { 1 } else { (tasks / parts).clamp(1, m.div_ceil(GROUP_ROWS)) };
    let mut pieces = Vec::with_capacity(parts * groups);
    for (index, mut sums) in sums.chunks_mut(m * n).enumerate() {
        let inner = (index * length).min(k)..((index + 1) * length).min(k);
        for group in 0..groups {
            let rows = part(group, groups, m, ROWS);
            let (first, rest) = sums.split_at_mut(rows.len() * n);
            pieces.push((rows, inner.clone(), first));
            sums = rest;
        }
    }
    // Steps that a vector of any width divides, so that copies begin on lines of their own.
    let step = (slab(isa) / n.max(1)).clamp(256, PART).next_multiple_of(16);
    let run = |(rows, inner, sums): (Range<usize>, Range<usize>, &mut [f32])| {
        let task = DotTask { large, small, rows, inner, step };
        with_scratch((n + ROWS) * step, |scratch| dots(isa, &task, scratch, sums));
    };
    if m * n * k < SERIAL_MACS {
        pieces.into_iter().for_each(run);
    } else {
        pieces.into_par_iter().for_each(run);
    }
}

/// The products of some rows of the larger operand with the smaller one, over part of the inner dimension.
struct DotTask<'a> {
    large: Rows<'a>,
    small: Rows<'a>,
    /// Of `large`.
    rows: Range<usize>,
    /// Places of either operand.
    inner: Range<usize>,
    /// Places that are copied at once.
    step: usize,
}

vectorised!(fn dots(task: &DotTask, scratch: &mut [f32], sums: &mut [f32]) = dots_on);

/// Adds the products of a task to `sums`, `[rows][small]`.
#[inline(always)]
fn dots_on<T: Lanes>(task: &DotTask, scratch: &mut [f32], sums: &mut [f32]) {
    let &DotTask { large, small, ref rows, ref inner, step } = task;
    let n = small.count;
    if n == 1 {
        return with_vector::<T>(task, sums);
    }
    assert!(large.fits() && small.fits() && rows.end <= large.count);
    assert!(inner.end <= large.length && inner.end <= small.length);
    assert!(
        sums.len() == rows.len() * n && scratch.len() >= (n + ROWS) * step && step.is_multiple_of(T::COUNT)
    );
    let (smalls, larges) = scratch.split_at_mut(n * step);
    for start in inner.clone().step_by(step) {
        let inner = start..inner.end.min(start + step);
        let length = inner.len().next_multiple_of(T::COUNT);
        let mut column = 0;
        while column < n {
            let count = tile_columns::<T>(n - column);
            copy_rows::<T>(
                small,
                column..column + count,
                inner.clone(),
                &mut smalls[column * length..],
                count,
            );
            column += count;
        }
        for row in rows.clone().step_by(ROWS) {
            let count = ROWS.min(rows.end - row);
            copy_rows::<T>(large, row..row + count, inner.clone(), larges, ROWS);
            let mut column = 0;
            for tile in 0.. {
                if column >= n {
                    break;
                }
                let ahead = [0, 1].map(|i| ahead(large, row + ROWS + (2 * tile + i) % ROWS, start));
                // SAFETY: both operands were copied, `length` values per row; those of `larges` from `count` on are
                // older ones. `sums` holds n values for each row.
                unsafe {
                    let left = larges.as_ptr();
                    let right = smalls.as_ptr().add(column * length);
                    let to = sums.as_mut_ptr().add((row - rows.start) * n + column);
                    let tile = DotTile { to, stride: n, rows: count };
                    let columns = tile_columns::<T>(n - column);
                    match columns {
                        6 => add_dots::<T, 6>(left, right, length, ahead, tile),
                        4 => add_dots::<T, 4>(left, right, length, ahead, tile),
                        3 => add_dots::<T, 3>(left, right, length, ahead, tile),
                        2 => add_dots::<T, 2>(left, right, length, ahead, tile),
                        _ => add_dots::<T, 1>(left, right, length, ahead, tile),
                    }
                    column += columns;
                }
            }
        }
    }
}

/// [`dots_on`] for a single column: every row is read once, where it lies.
#[inline(always)]
fn with_vector<T: Lanes>(task: &DotTask, sums: &mut [f32]) {
    let &DotTask { large, small, ref rows, ref inner, .. } = task;
    assert!(large.fits() && small.fits() && rows.end <= large.count && sums.len() == rows.len());
    assert!(inner.end <= large.length && inner.end <= small.length && small.count == 1);
    for (first, sums) in rows.clone().step_by(ROWS).zip(sums.chunks_mut(ROWS)) {
        let mut totals = [T::splat(0.0); ROWS];
        for at in inner.clone().step_by(T::COUNT) {
            let lanes = T::COUNT.min(inner.end - at);
            // SAFETY: the places are in the vector and in the rows, as checked; rows that are missing are the last
            // one again.
            unsafe {
                let value = load_up_to(small.at(0, at), lanes, T::splat(0.0));
                for (r, total) in totals.iter_mut().enumerate() {
                    let row = first + r.min(sums.len() - 1);
                    *total = load_up_to(large.at(row, at), lanes, T::splat(0.0)).mul_add(value, *total);
                }
            }
        }
        for (sum, total) in sums.iter_mut().zip(totals) {
            *sum += total.sum();
        }
    }
}

/// The address of a row that will be copied next, to prefetch it.
fn ahead(large: Rows, row: usize, start: usize) -> *const f32 {
    let row = row.min(large.count - 1);
    large.values.as_ptr().wrapping_add(row * large.stride + start)
}

/// Columns of the next tile where `left` are left.
#[inline(always)]
fn tile_columns<T: Lanes>(left: usize) -> usize {
    match left {
        6.. if T::WIDE => 6,
        4.. if T::WIDE => 4,
        3 if T::WIDE => 3,
        2.. => 2,
        _ => left,
    }
}

/// Copies places `inner` of up to `count` rows to `[vector][count]`, zeros up to a whole vector: one stream for all
/// rows of a tile.
#[inline(always)]
fn copy_rows<T: Lanes>(from: Rows, rows: Range<usize>, inner: Range<usize>, to: &mut [f32], count: usize) {
    let length = inner.len();
    assert!(from.fits() && rows.end <= from.count && inner.end <= from.length && rows.len() <= count);
    assert!(length.next_multiple_of(T::COUNT) * count <= to.len());
    for (index, row) in rows.enumerate() {
        for at in (0..length).step_by(T::COUNT) {
            // SAFETY: the places are in the row, and in the copy, as checked.
            unsafe {
                let value =
                    load_up_to(from.at(row, inner.start + at), T::COUNT.min(length - at), T::splat(0.0));
                value.store(to.as_mut_ptr().add(at * count + index * T::COUNT));
            }
        }
    }
}

/// Where a tile of dot products is added.
#[derive(Clone, Copy)]
struct DotTile {
    to: *mut f32,
    /// Distance of rows.
    stride: usize,
    /// Number of rows, at most [`ROWS`].
    rows: usize,
}

/// Adds the products of [`ROWS`] rows with `C` columns, both as [`copy_rows`] leaves them, to the rows of `tile`;
/// prefetches the memory at `ahead`.
///
/// # Safety
/// `length` values, a whole number of vectors, are readable for each row and each column.
#[inline(always)]
unsafe fn add_dots<T: Lanes, const C: usize>(
    rows: *const f32,
    columns: *const f32,
    length: usize,
    ahead: [*const f32; 2],
    tile: DotTile,
) {
    let DotTile { to, stride, rows: count } = tile;
    // The four rows stay in registers and the columns come one by one: that leaves room for all sums.
    let mut sums = [[T::splat(0.0); ROWS]; C];
    for at in (0..length).step_by(T::COUNT) {
        T::prefetch(ahead[0].wrapping_add(at));
        T::prefetch(ahead[1].wrapping_add(at));
        let mut values = [T::splat(0.0); ROWS];
        for (r, value) in values.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *value = unsafe { T::load(rows.add(at * ROWS + r * T::COUNT)) };
        }
        for (c, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            let column = unsafe { T::load(columns.add(at * C + c * T::COUNT)) };
            for (sum, value) in sums.iter_mut().zip(&values) {
                *sum = value.mul_add(column, *sum);
            }
        }
    }
    for (c, sums) in sums.iter().enumerate() {
        for (r, sum) in sums.iter().enumerate().take(count) {
            // SAFETY: the caller's promise.
            unsafe { *to.add(r * stride + c) += sum.sum() };
        }
    }
}
