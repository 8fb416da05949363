//! Small systems of linear equations.

use crate::error::{Error, Result};

/// The lower Cholesky factor of a positive definite matrix, row by row.
struct Factor {
    values: Vec<f64>,
    len: usize,
}

impl Factor {
    /// Factors a matrix of `len` rows, of which the lower half is read.
    fn of(mut matrix: Vec<f64>, len: usize) -> Result<Self> {
        for column in 0..len {
            for row in column..len {
                let mut sum = matrix[row * len + column];
                for k in 0..column {
                    sum -= matrix[row * len + k] * matrix[column * len + k];
                }
                if row == column {
                    if !(sum.is_finite() && sum > 0.0) {
                        return Err(Error::invalid("equations", "matrix", "a positive definite one", sum));
                    }
                    matrix[row * len + row] = sum.sqrt();
                } else {
                    matrix[row * len + column] = sum / matrix[column * len + column];
                }
            }
        }
        Ok(Self { values: matrix, len })
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.len + column]
    }

    /// Solves `L y = right` in place.
    fn forward(&self, right: &mut [f64]) {
        for row in 0..self.len {
            for k in 0..row {
                right[row] -= self.at(row, k) * right[k];
            }
            right[row] /= self.at(row, row);
        }
    }

    /// Solves `L^T x = right` in place.
    fn backward(&self, right: &mut [f64]) {
        for row in (0..self.len).rev() {
            for k in row + 1..self.len {
                right[row] -= self.at(k, row) * right[k];
            }
            right[row] /= self.at(row, row);
        }
    }
}

/// Solves `matrix x = right` for a positive definite matrix of `len` rows, row by row, by Cholesky's factors.
///
/// # Errors
/// If the matrix is not positive definite.
pub fn solve_positive(matrix: Vec<f64>, mut right: Vec<f64>, len: usize) -> Result<Vec<f64>> {
    let factor = Factor::of(matrix, len)?;
    factor.forward(&mut right);
    factor.backward(&mut right);
    Ok(right)
}

/// Sums over the eigenvalues of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EigenvalueSums {
    /// Sum of their natural logarithms: that of the determinant.
    pub logarithms: f64,
    /// Sum of their reciprocals: the trace of the inverse.
    pub reciprocals: f64,
}

/// Sums over the eigenvalues of a positive definite matrix of `len` rows, row by row, without computing any of them.
///
/// # Errors
/// If the matrix is not positive definite.
pub fn eigenvalue_sums(matrix: Vec<f64>, len: usize) -> Result<EigenvalueSums> {
    let factor = Factor::of(matrix, len)?;
    let logarithms = (0..len).map(|row| 2.0 * factor.at(row, row).ln()).sum();
    // the trace of (L L^T)^-1 is the sum of the squares of L^-1
    let column = |at: usize| {
        let mut unit = vec![0.0; len];
        unit[at] = 1.0;
        factor.forward(&mut unit);
        unit.iter().map(|value| value * value).sum::<f64>()
    };
    Ok(EigenvalueSums { logarithms, reciprocals: (0..len).map(column).sum() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations_are_solved() {
        let matrix = vec![4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let x = solve_positive(matrix.clone(), vec![1.0, 2.0, 3.0], 3).expect("positive definite");
        for (row, expected) in [1.0, 2.0, 3.0].iter().enumerate() {
            let got: f64 = (0..3).map(|k| matrix[row * 3 + k] * x[k]).sum();
            assert!((got - expected).abs() < 1e-12);
        }
        assert!(solve_positive(vec![-1.0], vec![1.0], 1).is_err());
    }

    #[test]
    fn sums_over_eigenvalues_are_theirs() {
        // eigenvalues 1 and 3
        let sums = eigenvalue_sums(vec![2.0, 1.0, 1.0, 2.0], 2).expect("positive definite");
        assert!((sums.logarithms - 3.0f64.ln()).abs() < 1e-12);
        assert!((sums.reciprocals - (1.0 + 1.0 / 3.0)).abs() < 1e-12);
        assert!(eigenvalue_sums(vec![1.0, 1.0, 1.0, 1.0], 2).is_err());
    }
}
