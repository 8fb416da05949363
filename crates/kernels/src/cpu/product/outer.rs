//! Products by outer products: a tile of sums in registers, one step of the inner dimension after the other.
//!
//! Each element is one chain of multiply-adds in the order of the inner dimension, so neither the cut nor the
//! width of vectors changes a bit of it.

use std::ops::Range;

use rayon::prelude::*;

use super::super::activation::{Apply, with_activation};
use super::super::scratch::with_scratch;
use super::super::simd::{Lanes, load_up_to, store_up_to, vectorised};
use super::super::{Activation, Isa};
use super::pack::{MOST_VECTORS, Panels, pack_left, pack_right};
use super::{MOST_TASKS, Matrix, Out, SERIAL_MACS, TASK_MACS, Write, part};

/// Length of the inner dimension that is packed at once: three vectors of it stay in the level 2 cache.
const INNER: usize = 1024;

/// Values of the right operand that a task packs at once: a quarter of a level 2 cache of 1 MiB.
const SLAB: usize = 1 << 16;

/// Fewest rows that share one packed right operand: with fewer, packing costs more than a few percent.
const GROUP_ROWS: usize = 64;

/// Vectors of a tile at most: with half a vector's lanes of rows they and the operands fill 32 registers, or 11 of 16. In
/// plain Rust a vector is two registers. (Three vectors would fill the 16 exactly, and the compiler spills some.)
const fn tile_vectors(isa: Isa) -> usize {
    match isa {
        Isa::Portable => 1,
        Isa::Avx2 => 2,
        Isa::Avx512 => MOST_VECTORS,
    }
}

/// How a product is cut into tasks: groups of rows times groups of columns.
struct Cut {
    rows: usize,
    columns: usize,
}

impl Cut {
    fn of(m: usize, n: usize, k: usize, isa: Isa) -> Self {
        if m * n * k < SERIAL_MACS {
            return Self { rows: 1, columns: 1 };
        }
        let tasks = (m * n * k / TASK_MACS).clamp(2, MOST_TASKS);
        let columns = n.div_ceil(tile_vectors(isa) * isa.lanes()).min(tasks);
        let rows = (m / GROUP_ROWS).min(tasks / columns).max(1);
        Self { rows, columns }
    }
}

/// `out (+)= left x right`.
pub(super) fn product(isa: Isa, left: &Matrix, right: &Matrix, out: Out, write: Write) {
    let isa = isa.or_portable();
    with_scratch(packed_len(isa, left.rows, left.columns), |packed| {
        pack_rows(isa, left, packed);
        product_packed(PackedRows { isa, values: packed, count: left.rows }, right, out, write);
    });
}

/// A left operand that [`pack_rows`] has packed.
#[derive(Clone, Copy)]
pub(super) struct PackedRows<'a> {
    /// The instruction set that it was packed for.
    pub isa: Isa,
    pub values: &'a [f32],
    /// Number of rows.
    pub count: usize,
}

/// `out (+)= left x right`.
pub(super) fn product_packed(left: PackedRows, right: &Matrix, out: Out, write: Write) {
    let PackedRows { isa, values, count: m } = left;
    let n = right.columns;
    let k = right.rows;
    let lanes = tile_vectors(isa) * isa.lanes();
    let cut = Cut::of(m, n, k, isa);
    let task = |index: usize| {
        let rows = part(index / cut.columns, cut.rows, m, isa.lanes());
        let columns = part(index % cut.columns, cut.columns, n, lanes);
        let wide = (SLAB / k.clamp(1, INNER)).max(lanes) / lanes * lanes;
        for first in columns.clone().step_by(wide) {
            let columns = first..columns.end.min(first + wide);
            let panels = Panels::new(columns.len(), isa.lanes(), tile_vectors(isa));
            let slab = Slab { left: values, right, rows: rows.clone(), columns, panels, out, write };
            with_scratch(panels.len(k.min(INNER), isa.lanes()), |scratch| compute_slab(isa, &slab, scratch));
        }
    };
    let tasks = cut.rows * cut.columns;
    if tasks == 1 { task(0) } else { (0..tasks).into_par_iter().for_each(task) }
}

/// Values of a packed left operand.
pub(super) fn packed_len(isa: Isa, rows: usize, inner: usize) -> usize {
    let rows = rows.checked_next_multiple_of(isa.lanes());
    rows.and_then(|rows| rows.checked_mul(inner)).expect("a packed operand fits in memory")
}

/// The left operand as `[block of a vector's lanes of rows][inner][lanes]`.
pub(super) fn pack_rows(isa: Isa, left: &Matrix, packed: &mut [f32]) {
    if left.columns == 0 {
        return;
    }
    let lanes = isa.lanes();
    let block = |(i, packed): (usize, &mut [f32])| pack_block(isa, left, lanes * i, packed);
    if left.rows * left.columns < super::super::SERIAL_WORK {
        return packed.chunks_mut(lanes * left.columns).enumerate().for_each(block);
    }
    packed.par_chunks_mut(lanes * left.columns).with_min_len(4).enumerate().for_each(block);
}

vectorised!(fn pack_block(left: &Matrix, row: usize, packed: &mut [f32]) = pack_left);

/// Some rows and columns of the product; the rows begin with a block of the packed left operand.
struct Slab<'a> {
    /// Packed by [`pack_rows`].
    left: &'a [f32],
    right: &'a Matrix<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    /// How `columns` are packed.
    panels: Panels,
    out: Out,
    write: Write<'a>,
}

vectorised!(fn compute_slab(slab: &Slab, scratch: &mut [f32]) = compute_slab_on);

#[inline(always)]
fn compute_slab_on<T: Lanes>(slab: &Slab, scratch: &mut [f32]) {
    if T::WIDE {
        compute_blocks::<T, 8>(slab, scratch);
    } else {
        compute_blocks::<T, 4>(slab, scratch);
    }
}

/// [`compute_slab`] by blocks of `R` rows, half a vector's lanes.
#[inline(always)]
fn compute_blocks<T: Lanes, const R: usize>(slab: &Slab, scratch: &mut [f32]) {
    let &Slab { left, right, ref rows, ref columns, panels, out, write } = slab;
    let k = right.rows;
    assert!(
        2 * R == T::COUNT
            && rows.start.is_multiple_of(R)
            && rows.end.next_multiple_of(T::COUNT) * k <= left.len()
    );
    let mut first = 0;
    loop {
        let inner = first..k.min(first + INNER);
        let ends = Ends { is_first: first == 0, is_last: inner.end == k };
        pack_right::<T>(right, inner.clone(), columns.clone(), panels, scratch);
        for row in rows.clone().step_by(R) {
            let shift = shifts::<R>(row, write);
            let rows = R.min(rows.end - row);
            for panel in 0..panels.count {
                let vectors = panels.vectors(panel);
                let column = vectors.start * T::COUNT;
                let width = (vectors.len() * T::COUNT).min(columns.len() - column);
                // SAFETY: the block is the first or second half of a packed vector of rows for each step; the panel
                // begins after the vectors before it; rows and columns are in the destination.
                unsafe {
                    let half = row % T::COUNT;
                    let left = left.as_ptr().add((row - half) * k + T::COUNT * inner.start + half);
                    let right = scratch.as_ptr().add(column * inner.len());
                    let tile = Tile {
                        to: out.at(row, columns.start + column),
                        stride: out.stride,
                        rows,
                        columns: width,
                        write,
                        ends,
                    };
                    match vectors.len() {
                        3 => tile.compute::<T, R, 3>(left, right, inner.len(), &shift),
                        2 => tile.compute::<T, R, 2>(left, right, inner.len(), &shift),
                        _ => tile.compute::<T, R, 1>(left, right, inner.len(), &shift),
                    }
                }
            }
        }
        first = inner.end;
        if first >= k {
            return;
        }
    }
}

/// The shift of each of `R` rows.
fn shifts<const R: usize>(row: usize, write: Write) -> [f32; R] {
    let mut shifts = [0.0; R];
    if let Write::Activate { shift, .. } = write {
        shifts.iter_mut().zip(&shift[row..]).for_each(|(to, from)| *to = *from);
    }
    shifts
}

/// Whether a part of the inner dimension is the first or the last one.
#[derive(Clone, Copy)]
struct Ends {
    is_first: bool,
    is_last: bool,
}

/// The destination of a tile, and how it is written.
#[derive(Clone, Copy)]
struct Tile<'a> {
    to: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    write: Write<'a>,
    ends: Ends,
}

impl Tile<'_> {
    /// `R` rows of `V` vectors over `inner` steps.
    ///
    /// # Safety
    /// `R` values are readable for each step at `left`, a vector apart, and `V` vectors at `right`; `rows` rows of
    /// `columns` values, at most `R` and `V` vectors, are writable at `to`.
    #[inline(always)]
    unsafe fn compute<T: Lanes, const R: usize, const V: usize>(
        self,
        left: *const f32,
        right: *const f32,
        inner: usize,
        shift: &[f32; R],
    ) {
        let mut sums = [[T::splat(0.0); V]; R];
        if !self.ends.is_first || self.write == Write::Accumulate {
            for (r, sums) in sums.iter_mut().enumerate().take(self.rows) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let count = self.columns.saturating_sub(v * T::COUNT).min(T::COUNT);
                    // SAFETY: the row and the columns are those of the tile.
                    unsafe { *sum = load_up_to(self.to.add(r * self.stride + v * T::COUNT), count, *sum) };
                }
            }
        }
        for i in 0..inner {
            let mut values = [T::splat(0.0); V];
            for (v, value) in values.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *value = unsafe { T::load(right.add((i * V + v) * T::COUNT)) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let factor = T::splat(unsafe { *left.add(i * T::COUNT + r) });
                for (sum, value) in sums.iter_mut().zip(&values) {
                    *sum = value.mul_add(factor, *sum);
                }
            }
        }
        match self.write {
            Write::Activate { activation, .. } if self.ends.is_last => {
                let sums = finish(sums, shift, activation);
                // SAFETY: the caller's promise.
                unsafe { self.store(&sums) }
            }
            // SAFETY: the caller's promise.
            _ => unsafe { self.store(&sums) },
        }
    }

    /// # Safety
    /// As for [`Tile::compute`].
    #[inline(always)]
    unsafe fn store<T: Lanes, const R: usize, const V: usize>(self, sums: &[[T; V]; R]) {
        for (r, sums) in sums.iter().enumerate() {
            if r >= self.rows {
                return;
            }
            for (v, sum) in sums.iter().enumerate() {
                let count = self.columns.saturating_sub(v * T::COUNT).min(T::COUNT);
                // SAFETY: the row and the columns are those of the tile.
                unsafe { store_up_to(*sum, self.to.add(r * self.stride + v * T::COUNT), count) };
            }
        }
    }
}

/// The activation of sums shifted row by row.
#[inline(always)]
fn finish<T: Lanes, const R: usize, const V: usize>(
    mut sums: [[T; V]; R],
    shift: &[f32; R],
    activation: Activation,
) -> [[T; V]; R] {
    with_activation!(activation, A => {
        for (sums, shift) in sums.iter_mut().zip(shift) {
            for sum in sums.iter_mut() {
                *sum = A::apply(sum.add(T::splat(*shift)));
            }
        }
    });
    sums
}
