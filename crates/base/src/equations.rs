//! Small systems of linear equations.

use crate::error::{Error, Result};

/// Solves `matrix x = right` for a positive definite matrix of `len` rows, row by row, by Cholesky's factors.
///
/// # Errors
/// If the matrix is not positive definite.
pub fn solve_positive(mut matrix: Vec<f64>, mut right: Vec<f64>, len: usize) -> Result<Vec<f64>> {
    for column in 0..len {
        for row in column..len {
            let mut sum = matrix[row * len + column];
            for k in 0..column {
                sum -= matrix[row * len + k] * matrix[column * len + k];
            }
            if row == column {
                if !(sum.is_finite() && sum > 0.0) {
                    return Err(Error::invalid("least squares", "matrix", "a positive definite one", sum));
                }
                matrix[row * len + row] = sum.sqrt();
            } else {
                matrix[row * len + column] = sum / matrix[column * len + column];
            }
        }
    }
    for row in 0..len {
        for k in 0..row {
            right[row] -= matrix[row * len + k] * right[k];
        }
        right[row] /= matrix[row * len + row];
    }
    for row in (0..len).rev() {
        for k in row + 1..len {
            right[row] -= matrix[k * len + row] * right[k];
        }
        right[row] /= matrix[row * len + row];
    }
    Ok(right)
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
}
