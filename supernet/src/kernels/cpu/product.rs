//! Matrix products on strided operands, split over threads by sizes alone.

use rayon::prelude::*;

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
        span(self.rows, self.columns, self.row_stride, self.column_stride) <= self.values.len()
    }
}

/// Number of values from the first to the last element.
fn span(rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> usize {
    if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 }
}

/// Where a product goes: rows of contiguous columns.
pub struct MatrixMut<'a> {
    /// From the first element on.
    pub values: &'a mut [f32],
    /// Distance of rows.
    pub row_stride: usize,
}

/// What happens to the values already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// They are garbage.
    Replace,
    /// The product is added to them.
    Accumulate,
}

/// Multiply-accumulates below which one thread does it all: about 10 microseconds of work.
const SERIAL_MACS: usize = 1 << 19;

/// Columns of a tile at least: below, packing the left operand anew for each tile costs too much.
const TILE_COLUMNS: usize = 256;

/// Rows of a tile at least, for the same reason.
const TILE_ROWS: usize = 64;

/// Length of the inner dimension that is worth a partial sum of its own.
const PART_LENGTH: usize = 2048;

/// Tiles that a product is cut into at most: enough for 16 threads to finish together.
const MOST_TILES: usize = 32;

/// `destination (+)= left x right`.
pub fn product(left: Matrix, right: Matrix, destination: MatrixMut, write: Write) {
    assert_eq!(left.columns, right.rows, "inner dimensions");
    let (m, n, k) = (left.rows, right.columns, left.columns);
    assert!(left.fits() && right.fits(), "operands lie inside their slices");
    assert!(span(m, n, destination.row_stride, 1) <= destination.values.len(), "the product fits");
    assert!(m <= 1 || n <= destination.row_stride, "rows of the destination do not overlap");
    if m == 0 || n == 0 {
        return;
    }
    let cut = Cut::of(m, n, k);
    if cut.parts > 1 {
        return in_parts(left, right, destination, write, &cut);
    }
    let out = Pointer(destination.values.as_mut_ptr());
    let stride = destination.row_stride;
    cut.for_each_tile(m, n, |rows, columns| {
        // SAFETY: tiles do not overlap, and each lies inside the destination, whose span was checked.
        unsafe {
            tile(left, right, [rows, columns], 0..k, out.at(rows.0 * stride + columns.0), stride, write)
        }
    });
}

/// Sums over pieces of a long inner dimension, each into a buffer of its own, added in order.
fn in_parts(left: Matrix, right: Matrix, destination: MatrixMut, write: Write, cut: &Cut) {
    let (m, n, k) = (left.rows, right.columns, left.columns);
    let length = k.div_ceil(cut.parts);
    let mut sums = vec![0.0f32; cut.parts * m * n];
    sums.par_chunks_mut(m * n).enumerate().for_each(|(part, sum)| {
        let range = (part * length).min(k)..((part + 1) * length).min(k);
        // SAFETY: the buffer holds m rows of n values.
        unsafe { tile(left, right, [(0, m), (0, n)], range, sum.as_mut_ptr(), n, Write::Replace) }
    });
    for row in 0..m {
        let out = &mut destination.values[row * destination.row_stride..][..n];
        if write == Write::Replace {
            out.fill(0.0);
        }
        for part in 0..cut.parts {
            let sum = &sums[part * m * n + row * n..][..n];
            out.iter_mut().zip(sum).for_each(|(out, sum)| *out += sum);
        }
    }
}

/// How a product is cut: a function of its sizes alone, so that results do not depend on the threads.
struct Cut {
    tile_rows: usize,
    tile_columns: usize,
    parts: usize,
}

impl Cut {
    fn of(m: usize, n: usize, k: usize) -> Self {
        let whole = Self { tile_rows: m, tile_columns: n, parts: 1 };
        if m * n * k < SERIAL_MACS {
            return whole;
        }
        let most_rows = m.div_ceil(TILE_ROWS);
        let most_columns = n.div_ceil(TILE_COLUMNS);
        let columns = most_columns.min(MOST_TILES);
        let rows = most_rows.min(MOST_TILES / columns).max(1);
        let parts = (k / PART_LENGTH).min(MOST_TILES / (rows * columns)).min(8);
        if rows * columns < 8 && parts > 1 {
            return Self { parts, ..whole };
        }
        Self { tile_rows: m.div_ceil(rows), tile_columns: n.div_ceil(columns).next_multiple_of(16), parts: 1 }
    }

    fn for_each_tile(&self, m: usize, n: usize, run: impl Fn((usize, usize), (usize, usize)) + Sync) {
        let (rows, columns) = (m.div_ceil(self.tile_rows), n.div_ceil(self.tile_columns));
        let tile = |index: usize| {
            let (row, column) = (index / columns * self.tile_rows, index % columns * self.tile_columns);
            run((row, self.tile_rows.min(m - row)), (column, self.tile_columns.min(n - column)));
        };
        if rows * columns == 1 { tile(0) } else { (0..rows * columns).into_par_iter().for_each(tile) }
    }
}

#[derive(Clone, Copy)]
struct Pointer(*mut f32);

// SAFETY: only used to write tiles that do not overlap.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Pointer {
    /// # Safety
    /// `offset` lies inside the allocation.
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

/// One tile (first, length of rows and of columns) of the product over a range of the inner dimension.
///
/// # Safety
/// `out` points to that many rows of that many writable values, `stride` apart, that nobody else uses; the
/// operands fit their slices.
unsafe fn tile(
    left: Matrix,
    right: Matrix,
    [(row, rows), (column, columns)]: [(usize, usize); 2],
    inner: std::ops::Range<usize>,
    out: *mut f32,
    stride: usize,
    write: Write,
) {
    let left_start = row * left.row_stride + inner.start * left.column_stride;
    let right_start = inner.start * right.row_stride + column * right.column_stride;
    // SAFETY: starts and strides stay inside the operands, which fit their slices; `out` is the caller's promise.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner.len(),
            out,
            1,
            stride as isize,
            write == Write::Accumulate,
            left.values.as_ptr().wrapping_add(left_start),
            left.column_stride as isize,
            left.row_stride as isize,
            right.values.as_ptr().wrapping_add(right_start),
            right.column_stride as isize,
            right.row_stride as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: usize) -> Vec<f32> {
        (0..length).map(|index| ((index * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn check([m, n, k]: [usize; 3], transposed: bool, write: Write) {
        let (left, right) = (values(m * k, 1), values(k * n, 2));
        let stride = n + 3;
        let start = values(m * stride, 3);
        let left = Matrix { values: &left, rows: m, columns: k, row_stride: k, column_stride: 1 };
        let (row_stride, column_stride) = if transposed { (1, k) } else { (n, 1) };
        let right = Matrix { values: &right, rows: k, columns: n, row_stride, column_stride };
        let run = |threads| {
            let mut out = start.clone();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| product(left, right, MatrixMut { values: &mut out, row_stride: stride }, write));
            out
        };
        let out = run(1);
        assert_eq!(out, run(2), "bits must not depend on the threads");
        for row in 0..m {
            for column in 0..stride {
                let old = start[row * stride + column];
                let mut expected =
                    if write == Write::Accumulate || column >= n { f64::from(old) } else { 0.0 };
                if column < n {
                    expected += (0..k)
                        .map(|i| {
                            let at = i * right.row_stride + column * right.column_stride;
                            f64::from(left.values[row * k + i]) * f64::from(right.values[at])
                        })
                        .sum::<f64>();
                }
                let got = f64::from(out[row * stride + column]);
                assert!((got - expected).abs() < 1e-3, "{m}x{n}x{k} at {row},{column}: {got} not {expected}");
            }
        }
    }

    #[test]
    fn products_of_every_cut_are_right() {
        for sizes in [
            [1, 1, 1],
            [3, 5, 7],
            [16, 700, 33],
            [200, 300, 40],
            [24, 72, 9000],
            [300, 260, 2100],
            [1, 10, 960],
        ] {
            for transposed in [false, true] {
                check(sizes, transposed, Write::Replace);
                check(sizes, transposed, Write::Accumulate);
            }
        }
    }

    #[test]
    fn an_empty_inner_dimension_gives_zeros() {
        check([2, 3, 0], false, Write::Replace);
        check([2, 3, 0], false, Write::Accumulate);
    }
}
