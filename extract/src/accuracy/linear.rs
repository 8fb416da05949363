//! Ridge regression on few features: the estimator that is hard to beat while rows are few.

use base::equations::solve_positive;
use space::Encoded;

use crate::error::Result;

/// Weights for each feature, and a constant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Linear {
    pub weights: Vec<f64>,
    pub constant: f64,
}

/// Minimizes the squared error plus `penalty` times the squared weights; the constant is free. `active` holds
/// the rows' features, `len` in all.
pub(super) fn ridge(active: &Encoded, targets: &[f64], len: usize, penalty: f64) -> Result<Linear> {
    let rows = targets.len() as f64;
    let mean_target = targets.iter().sum::<f64>() / rows;
    let mut products = vec![0.0; len * len];
    let mut sums = vec![0.0; len];
    let mut right = vec![0.0; len];
    for (features, target) in active.iter().zip(targets) {
        for row in features.iter().map(|&feature| feature as usize) {
            sums[row] += 1.0;
            right[row] += target - mean_target;
            for &column in features {
                products[row * len + column as usize] += 1.0;
            }
        }
    }
    for row in 0..len {
        for column in 0..len {
            products[row * len + column] -= sums[row] * sums[column] / rows;
        }
        products[row * len + row] += penalty;
    }
    let weights = solve_positive(products, right, len)?;
    let constant =
        mean_target - weights.iter().zip(&sums).map(|(weight, sum)| weight * sum / rows).sum::<f64>();
    Ok(Linear { weights, constant })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn predict(model: &Linear, features: &[u32]) -> f64 {
        model.constant + features.iter().map(|&feature| model.weights[feature as usize]).sum::<f64>()
    }

    #[test]
    fn an_additive_function_is_recovered() {
        // two one-hot groups of two
        let mut active = Encoded::default();
        [[0, 2], [0, 3], [1, 2], [1, 3]].into_iter().for_each(|row| active.push(row));
        let targets = [1.0, 2.0, 4.0, 5.0];
        let model = ridge(&active, &targets, 4, 1e-9).expect("positive definite");
        for (features, target) in active.iter().zip(targets) {
            assert!((predict(&model, features) - target).abs() < 1e-6);
        }
        let shrunk = ridge(&active, &targets, 4, 1e9).expect("positive definite");
        assert!((predict(&shrunk, active.get(0)) - 3.0).abs() < 1e-6, "only the mean is left");
    }
}
