//! Matrix products on strided operands, split over threads by sizes alone.
//!
//! Two schemes. `outer` packs both operands and computes tiles of the product, each step of the inner dimension
//! adding one outer product: its bits depend on nothing but the operands. `dot` takes rows that are contiguous
//! along a long inner dimension, as the gradient of a weight has them, and transposes nothing.
//!
//! A tile of sums with its operands leaves registers to spare on every instruction set. AVX2 has 16; where a tile filled them
//! all, the compiler kept some in memory, which cost products up to half their speed.

mod dot;
mod outer;
mod pack;

use std::ops::Range;

use super::scratch::Line;
use super::{Activation, Isa};

/// A matrix in memory: `values[row * row_stride + column * column_stride]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// From the first element on.
    pub values: &'a [f32],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub columns: usize,
    /// Distance of rows.
    pub row_stride: usize,
    /// Distance of columns.
    pub column_stride: usize,
}

impl Matrix<'_> {
    /// Whether every element lies inside the slice.
    fn fits(&self) -> bool {
        let span = span(self.rows, self.columns, self.row_stride, self.column_stride);
        span.is_some_and(|span| span <= self.values.len())
    }

    /// The address of an element.
    ///
    /// # Safety
    /// The element is in the matrix, which fits its slice.
    unsafe fn at(&self, row: usize, column: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.values.as_ptr().add(row * self.row_stride + column * self.column_stride) }
    }
}

/// Number of values from the first to the last element; `None` if no address space has as many. The checks before
/// `unsafe` code depend on this number, so it must not wrap around.
fn span(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> Option<usize> {
    if rows == 0 || columns == 0 {
        return Some(0);
    }
    let down = (rows - 1).checked_mul(row_stride)?;
    let across = (columns - 1).checked_mul(column_stride)?;
    down.checked_add(across)?.checked_add(1)
}

/// The destination of a product: rows of contiguous columns.
pub struct MatrixMut<'a> {
    /// From the first element on.
    pub values: &'a mut [f32],
    /// Distance of rows.
    pub row_stride: usize,
}

impl MatrixMut<'_> {
    /// Where tasks write an `m` x `n` product, after checking that there is room for it.
    fn out(&mut self, m: usize, n: usize, write: Write) -> Out {
        let span = span(m, n, self.row_stride, 1);
        assert!(span.is_some_and(|span| span <= self.values.len()), "the product fits");
        assert!(m <= 1 || n <= self.row_stride, "rows of the destination do not overlap");
        if let Write::Activate { shift, .. } = write {
            assert_eq!(shift.len(), m, "one shift per row");
        }
        Out { first: self.values.as_mut_ptr(), stride: self.row_stride }
    }
}

/// How a product is written to its destination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Write<'a> {
    /// The product replaces values that may be garbage.
    Replace,
    /// The product is added to the values.
    Accumulate,
    /// `act(product + shift)` replaces values that may be garbage.
    Activate {
        /// One value per row.
        shift: &'a [f32],
        /// Applied last.
        activation: Activation,
    },
}

/// Multiply-accumulates below which one thread does it all: about 10 microseconds of work.
const SERIAL_MACS: usize = 1 << 19;

/// Multiply-accumulates of a task at least, about 20 microseconds.
const TASK_MACS: usize = 1 << 20;

/// Tasks that a product is cut into at most: enough for 16 threads to finish together.
const MOST_TASKS: usize = 64;

/// `destination (+)= left x right`.
pub fn product(isa: Isa, left: Matrix, right: Matrix, mut destination: MatrixMut, write: Write) {
    assert_eq!(left.columns, right.rows, "inner dimensions");
    let m = left.rows;
    let n = right.columns;
    assert!(left.fits() && right.fits(), "operands lie inside their slices");
    let out = destination.out(m, n, write);
    if m == 0 || n == 0 {
        return;
    }
    if dot::suits(&left, &right) {
        dot::product(isa, &left, &right, out, write);
    } else {
        outer::product(isa, &left, &right, out, write);
    }
}

/// `destination (+)= left x right`, where `left` was packed once for many products; the bits are those of
/// [`product`] where that packs.
pub fn product_packed(left: &Packed, right: Matrix, mut destination: MatrixMut, write: Write) {
    let m = left.rows;
    let n = right.columns;
    assert_eq!(left.inner, right.rows, "inner dimensions");
    assert!(right.fits(), "the operand lies inside its slice");
    let out = destination.out(m, n, write);
    if m > 0 && n > 0 {
        let left = outer::PackedRows { isa: left.isa, values: left.values(), count: m };
        outer::product_packed(left, &right, out, write);
    }
}

/// A left operand in the order in which tiles read it.
pub struct Packed {
    lines: Vec<Line>,
    rows: usize,
    inner: usize,
    isa: Isa,
}

impl Packed {
    /// Packs a matrix for products on `isa`.
    pub fn new(isa: Isa, left: &Matrix) -> Self {
        assert!(left.fits(), "the operand lies inside its slice");
        let isa = isa.or_portable();
        let len = outer::packed_len(isa, left.rows, left.columns);
        let mut packed = Self { lines: Line::zeros(len), rows: left.rows, inner: left.columns, isa };
        outer::pack_rows(isa, left, &mut Line::values_mut(&mut packed.lines)[..len]);
        packed
    }

    fn values(&self) -> &[f32] {
        &Line::values(&self.lines)[..outer::packed_len(self.isa, self.rows, self.inner)]
    }
}

/// Rows of the destination, of which tasks write parts that do not overlap.
#[derive(Clone, Copy)]
struct Out {
    first: *mut f32,
    stride: usize,
}

// SAFETY: tasks that share it write different elements.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// # Safety
    /// The element is in the destination.
    unsafe fn at(self, row: usize, column: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.first.add(row * self.stride + column) }
    }
}

/// The `index`-th of `parts` ranges that cover `0..len` evenly, each a whole number of `step`s but the last.
fn part(index: usize, parts: usize, len: usize, step: usize) -> Range<usize> {
    let steps = len.div_ceil(step);
    let bound = |index: usize| (index * steps / parts * step).min(len);
    bound(index)..bound(index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, on_every_isa, values};
    use super::*;
    use crate::reference::matrix as reference;

    /// Rows, columns, inner length: every scheme, cut and remainder.
    const SIZES: [[usize; 3]; 14] = [
        [1, 1, 1],
        [3, 5, 7],
        [8, 48, 16],
        [16, 700, 33],
        [200, 300, 40],
        [24, 72, 9000],
        [9, 7, 4100],
        [130, 150, 1025],
        [300, 260, 2100],
        [1, 10, 960],
        [160, 1, 240],
        [72, 4000, 24],
        [2, 3, 0],
        [0, 3, 2],
    ];

    /// Whether rows (columns) of the left (right) operand are contiguous.
    const ORDERS: [[bool; 2]; 4] = [[true, true], [true, false], [false, true], [false, false]];

    fn matrix(values: &[f32], rows: usize, columns: usize, by_rows: bool) -> Matrix<'_> {
        let (row_stride, column_stride) = if by_rows { (columns + 2, 1) } else { (1, rows + 2) };
        Matrix { values, rows, columns, row_stride, column_stride }
    }

    fn check(sizes: [usize; 3], order: [bool; 2], write: Write) {
        let [m, n, k] = sizes;
        let [left_rows, right_rows] = order;
        let left = values((m + 2) * (k + 2), 1);
        let right = values((k + 2) * (n + 2), 2);
        let left = matrix(&left, m, k, left_rows);
        let right = matrix(&right, k, n, right_rows);
        let stride = n + 3;
        let start = values(m * stride, 3);
        let mut expect = start.clone();
        reference::product(left, right, MatrixMut { values: &mut expect, row_stride: stride }, write);
        on_every_isa(
            |isa| {
                let mut out = start.clone();
                product(isa, left, right, MatrixMut { values: &mut out, row_stride: stride }, write);
                out
            },
            |isa, out| assert_close(out, &expect, &(isa, m, n, k, left_rows, right_rows)),
        );
    }

    #[test]
    fn products_agree_with_the_reference() {
        for sizes in SIZES {
            let shift = values(sizes[0], 4);
            for order in ORDERS {
                check(sizes, order, Write::Replace);
                check(sizes, order, Write::Accumulate);
                check(sizes, order, Write::Activate { shift: &shift, activation: Activation::HSwish });
            }
        }
    }

    #[test]
    fn a_packed_operand_changes_no_bit() {
        for (m, n, k) in [(38, 98, 70), (5, 3, 1500), (130, 1000, 40)] {
            let left = values((m + 2) * (k + 2), 1);
            let right = values((k + 2) * (n + 2), 2);
            let left = matrix(&left, m, k, true);
            let right = matrix(&right, k, n, true);
            let shift = values(m, 3);
            let write = Write::Activate { shift: &shift, activation: Activation::Relu };
            for isa in Isa::available() {
                let mut once = vec![0.0; m * n];
                let mut packed = vec![0.0; m * n];
                product(isa, left, right, MatrixMut { values: &mut once, row_stride: n }, write);
                let destination = MatrixMut { values: &mut packed, row_stride: n };
                product_packed(&Packed::new(isa, &left), right, destination, write);
                assert!(once == packed, "{isa:?} {m}x{n}x{k}");
            }
        }
    }

    #[test]
    fn vectors_of_any_width_give_the_same_bits() {
        let left = values(40 * 72, 1);
        let right = values(72 * 1000, 2);
        let left = matrix(&left, 38, 70, true);
        let right = matrix(&right, 70, 998, true);
        let run = |isa| {
            let mut out = vec![0.0; 38 * 998];
            product(isa, left, right, MatrixMut { values: &mut out, row_stride: 998 }, Write::Replace);
            out
        };
        let with_fused: Vec<_> = Isa::available().into_iter().filter(|isa| *isa != Isa::Portable).collect();
        for isa in &with_fused {
            assert!(run(*isa) == run(with_fused[0]), "{isa:?} rounds as {:?}", with_fused[0]);
        }
    }

    /// Sizes whose product is 2^64, which would be 0 if it wrapped around.
    const HUGE: usize = 1 << 32;

    fn repeated(rows: usize, columns: usize) -> Matrix<'static> {
        Matrix { values: &[1.0], rows, columns, row_stride: 0, column_stride: 0 }
    }

    #[test]
    fn spans_do_not_wrap_around() {
        assert_eq!(span(3, 4, 10, 2), Some(27));
        assert_eq!(span(0, usize::MAX, 1, usize::MAX), Some(0));
        for (rows, columns, row_stride, column_stride) in [
            (HUGE + 1, 1, HUGE, 1),
            (1, HUGE + 1, 1, HUGE),
            (2, 2, usize::MAX, 1),
            (HUGE + 1, HUGE + 1, HUGE - 1, HUGE - 1),
            (2, 1, usize::MAX, 1),
        ] {
            assert_eq!(span(rows, columns, row_stride, column_stride), None, "{rows} x {columns}");
            let matrix = Matrix { values: &[1.0], rows, columns, row_stride, column_stride };
            assert!(!matrix.fits(), "{rows} x {columns}");
        }
    }

    #[test]
    #[should_panic(expected = "the product fits")]
    fn a_destination_that_no_memory_holds_is_refused() {
        let destination = MatrixMut { values: &mut [], row_stride: HUGE };
        product(Isa::Portable, repeated(HUGE, 1), repeated(1, HUGE), destination, Write::Replace);
    }

    #[test]
    #[should_panic(expected = "a packed operand fits in memory")]
    fn an_operand_that_no_memory_holds_is_refused() {
        Packed::new(Isa::Portable, &repeated(HUGE, HUGE));
    }

    #[test]
    fn parts_cover_everything_once() {
        for (parts, len, step) in [(1, 5, 8), (3, 100, 8), (7, 49, 1), (2, 16, 8)] {
            let ranges: Vec<_> = (0..parts).map(|index| part(index, parts, len, step)).collect();
            assert_eq!((ranges[0].start, ranges[parts - 1].end), (0, len));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start && pair[1].start % step == 0));
        }
    }
}
