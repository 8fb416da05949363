//! A sum of rows of a matrix, each times a factor: a product with a sparse vector. Behind a ReLU that is half of a dense
//! product's work, for any number of columns.

use super::Isa;
use super::simd::{Lanes, load_up_to, store_up_to, vectorised};

/// Vectors of sums that stay in registers.
const GROUP: usize = 8;

/// `sums += factor * row` for each term `(row, factor)`, in the order of the terms, on the calling thread.
///
/// # Shapes
/// `matrix` `[rows, sums.len()]`.
///
/// # Panics
/// If a row is not in the matrix.
pub fn add(isa: Isa, matrix: &[f32], terms: &[(u32, f32)], sums: &mut [f32]) {
    let rows = matrix.len().checked_div(sums.len()).unwrap_or(0);
    assert!(terms.iter().all(|(row, _)| (*row as usize) < rows) || sums.is_empty());
    add_terms(isa, matrix, terms, sums);
}

vectorised!(fn add_terms(matrix: &[f32], terms: &[(u32, f32)], sums: &mut [f32]) = add_terms_on);

#[inline(always)]
fn add_terms_on<T: Lanes>(matrix: &[f32], terms: &[(u32, f32)], sums: &mut [f32]) {
    let width = sums.len();
    let mut at = 0;
    while at + GROUP * T::COUNT <= width {
        // SAFETY: `GROUP` vectors from `at` on are in `sums`, and in each row, whose number the caller has checked.
        unsafe {
            let mut group = [T::splat(0.0); GROUP];
            for (place, sum) in group.iter_mut().enumerate() {
                *sum = T::load(sums.as_ptr().add(at + place * T::COUNT));
            }
            for (row, factor) in terms {
                let values = matrix.as_ptr().add(*row as usize * width + at);
                let factor = T::splat(*factor);
                for (place, sum) in group.iter_mut().enumerate() {
                    *sum = T::load(values.add(place * T::COUNT)).mul_add(factor, *sum);
                }
            }
            for (place, sum) in group.iter().enumerate() {
                sum.store(sums.as_mut_ptr().add(at + place * T::COUNT));
            }
        }
        at += GROUP * T::COUNT;
    }
    while at < width {
        let count = T::COUNT.min(width - at);
        let zero = T::splat(0.0);
        // SAFETY: `count` values from `at` on are in `sums` and in each row, as above.
        unsafe {
            let mut sum = load_up_to(sums.as_ptr().add(at), count, zero);
            for (row, factor) in terms {
                let values = load_up_to(matrix.as_ptr().add(*row as usize * width + at), count, zero);
                sum = values.mul_add(T::splat(*factor), sum);
            }
            store_up_to(sum, sums.as_mut_ptr().add(at), count);
        }
        at += count;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_close, on_every_isa, values};
    use super::*;
    use crate::reference;

    #[test]
    fn sums_are_those_of_the_reference() {
        for (rows, width) in [(1, 1), (3, 7), (5, 16), (9, 31), (20, 128), (40, 131), (400, 400)] {
            let matrix = values(rows * width, 1);
            let start = values(width, 2);
            for step in [1, 2, 7] {
                let factors = values(rows, 3);
                let terms: Vec<(u32, f32)> =
                    (0..rows).step_by(step).map(|row| (row as u32, factors[row])).collect();
                let mut expected = start.clone();
                reference::matrix::add_rows(&matrix, &terms, &mut expected);
                on_every_isa(
                    |isa| {
                        let mut sums = start.clone();
                        add(isa, &matrix, &terms, &mut sums);
                        sums
                    },
                    |isa, sums| assert_close(sums, &expected, &(isa, rows, width, step)),
                );
            }
        }
        for isa in Isa::available() {
            add(isa, &[], &[], &mut []);
        }
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_row_that_is_not_there_is_refused() {
        add(Isa::detect(), &[0.0; 12], &[(2, 1.0), (3, 1.0)], &mut [0.0; 4]);
    }
}
