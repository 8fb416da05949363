//! Operands copied into the order in which tiles read them.

use std::ops::Range;

use super::super::simd::{Lanes, load_up_to, prefetch, transpose};
use super::Matrix;

/// Vectors that a panel of the right operand is wide, at most.
pub(super) const MOST_VECTORS: usize = 3;

/// Columns of the right operand cut into panels of 1 to [`MOST_VECTORS`] vectors, all about as wide.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    /// Vectors in all; the last may be full in part.
    vectors: usize,
    /// Number of panels.
    pub(super) count: usize,
}

impl Panels {
    /// The panels of `columns` columns, for vectors of `lanes` and at most `most` of them per panel.
    pub(super) fn new(columns: usize, lanes: usize, most: usize) -> Self {
        let vectors = columns.div_ceil(lanes);
        Self { vectors, count: vectors.div_ceil(most) }
    }

    /// The vectors of a panel.
    pub(super) fn vectors(&self, panel: usize) -> Range<usize> {
        panel * self.vectors / self.count..(panel + 1) * self.vectors / self.count
    }

    /// Values of all panels of `inner` rows.
    pub(super) fn len(&self, inner: usize, lanes: usize) -> usize {
        self.vectors * lanes * inner
    }
}

/// Copies rows `inner` and columns `columns` to `[panel][row][vectors of the panel]`; columns that are missing in
/// the last vector are zero.
#[inline(always)]
pub(super) fn pack_right<T: Lanes>(
    right: &Matrix,
    inner: Range<usize>,
    columns: Range<usize>,
    panels: Panels,
    packed: &mut [f32],
) {
    assert!(inner.end <= right.rows && columns.end <= right.columns && right.fits());
    assert!(packed.len() >= panels.len(inner.len(), T::COUNT) && panels.vectors * T::COUNT >= columns.len());
    if right.column_stride == 1 {
        pack_rows::<T>(right, inner, columns, panels, packed);
    } else {
        pack_columns::<T>(right, inner, columns, panels, packed);
    }
}

/// [`pack_right`] where rows are contiguous.
#[inline(always)]
fn pack_rows<T: Lanes>(
    right: &Matrix,
    inner: Range<usize>,
    columns: Range<usize>,
    panels: Panels,
    packed: &mut [f32],
) {
    /// Rows ahead that are prefetched: they are too far apart for the CPU to predict.
    const AHEAD: usize = 4;
    for (i, row) in inner.clone().enumerate() {
        // SAFETY: row and columns are in the matrix, which fits; the panels' vectors lie inside `packed`, whose
        // length was checked. A prefetch may name any address.
        unsafe {
            let from = right.at(row, columns.start);
            prefetch::<T>(from.wrapping_add(AHEAD * right.row_stride), columns.len());
            for panel in 0..panels.count {
                let vectors = panels.vectors(panel);
                let to =
                    packed.as_mut_ptr().add((vectors.start * inner.len() + i * vectors.len()) * T::COUNT);
                for (v, vector) in vectors.enumerate() {
                    let left = columns.len() - vector * T::COUNT;
                    let value = load_up_to(from.add(vector * T::COUNT), left.min(T::COUNT), T::splat(0.0));
                    value.store(to.add(v * T::COUNT));
                }
            }
        }
    }
}

/// [`pack_right`] where columns are contiguous, or nothing is.
#[inline(always)]
fn pack_columns<T: Lanes>(
    right: &Matrix,
    inner: Range<usize>,
    columns: Range<usize>,
    panels: Panels,
    packed: &mut [f32],
) {
    for panel in 0..panels.count {
        let vectors = panels.vectors(panel);
        let pitch = vectors.len() * T::COUNT;
        for (v, vector) in vectors.clone().enumerate() {
            let first = columns.start + vector * T::COUNT;
            let count = T::COUNT.min(columns.end - first);
            let to = vectors.start * inner.len() * T::COUNT + v * T::COUNT;
            let group = Matrix {
                values: &right.values[first * right.column_stride..],
                rows: count,
                columns: right.rows,
                row_stride: right.column_stride,
                column_stride: right.row_stride,
            };
            turn::<T>(&group, inner.clone(), &mut packed[to..], pitch);
        }
    }
}

/// Copies the columns `inner` of up to a vector's lanes of rows to `to[column * pitch + row]`; missing rows are zero.
#[inline(always)]
fn turn<T: Lanes>(rows: &Matrix, inner: Range<usize>, to: &mut [f32], pitch: usize) {
    let lanes = T::COUNT;
    assert!(rows.rows <= lanes && inner.end <= rows.columns && rows.fits());
    assert!(inner.is_empty() || to.len() >= (inner.len() - 1) * pitch + lanes);
    if rows.column_stride != 1 {
        for (i, column) in inner.enumerate() {
            for lane in 0..lanes {
                let place = lane * rows.row_stride + column * rows.column_stride;
                to[i * pitch + lane] = if lane < rows.rows { rows.values[place] } else { 0.0 };
            }
        }
        return;
    }
    let mut from = [0; 16];
    let mut places = [0; 16];
    for lane in 0..T::COUNT {
        (from[lane], places[lane]) = (lane * rows.row_stride, lane * pitch);
    }
    for start in (0..inner.len()).step_by(T::COUNT) {
        let count = T::COUNT.min(inner.len() - start);
        // SAFETY: `count` columns of each of the rows are in the matrix, which fits; the places written lie
        // inside `to`, whose length was checked.
        unsafe {
            let source = rows.at(0, inner.start + start);
            let target = to.as_mut_ptr().add(start * pitch);
            transpose::<T>(source, &from[..rows.rows], target, &places[..count], lanes);
        }
    }
}

/// Copies a vector's lanes of rows of the left operand, from `row` on, to `[column][lanes]`; missing rows are zero.
#[inline(always)]
pub(super) fn pack_left<T: Lanes>(left: &Matrix, row: usize, packed: &mut [f32]) {
    let rows = T::COUNT.min(left.rows - row);
    let inner = left.columns;
    assert!(left.fits() && packed.len() == T::COUNT * inner);
    if left.row_stride == 1 && left.column_stride != 1 {
        for column in 0..inner {
            // SAFETY: the rows are in the matrix, which fits; a vector for each column is in `packed`.
            unsafe {
                let values = load_up_to(left.at(row, column), rows, T::splat(0.0));
                values.store(packed.as_mut_ptr().add(column * T::COUNT));
            }
        }
        return;
    }
    let rows = Matrix { values: &left.values[row * left.row_stride..], rows, ..*left };
    turn::<T>(&rows, 0..inner, packed, T::COUNT);
}
