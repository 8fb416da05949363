//! Chooses the model that predicts unseen rows best, by cross-validation.

use rand::seq::SliceRandom;

use super::ModelKind;
use super::fit::{FitConfig, Rows, fit_linear, fit_mlp};
use super::perceptron::Network;
use super::rank::rmse;
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// Parts that rows are cut into: of five and ten, which Hastie, Tibshirani and Friedman recommend (2009, section 7.10.1),
/// the one that takes half the time.
pub(super) const FOLDS: usize = 5;

/// A model as it is fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Recipe {
    /// Ridge regression with this penalty.
    Linear(f64),
    Mlp,
}

impl Recipe {
    pub fn model(self) -> ModelKind {
        match self {
            Self::Linear(_) => ModelKind::Linear,
            Self::Mlp => ModelKind::Mlp,
        }
    }

    pub fn fit(self, rows: &Rows, config: &FitConfig) -> Result<Network> {
        match self {
            Self::Linear(penalty) => fit_linear(rows, penalty),
            Self::Mlp => fit_mlp(rows, config),
        }
    }
}

/// The result of cross-validation.
pub(super) struct CrossValidated {
    /// The model that is to be fitted to all rows.
    pub recipe: Recipe,
    /// Of each row, by models that were neither fitted nor chosen by it.
    pub predicted: Vec<f64>,
    /// Error of the best linear model.
    pub rmse_linear: f64,
    /// Error of the perceptron.
    pub rmse_mlp: f64,
}

/// Predictions of one recipe, of each row by what was fitted to the other folds.
struct Predictions {
    recipe: Recipe,
    predicted: Vec<f64>,
}

/// Predicts each row by models fitted to the other folds, and chooses one of them.
pub(super) fn cross_validate(rows: &Rows, config: &FitConfig) -> Result<CrossValidated> {
    if config.penalties.is_empty() {
        return Err(base::Error::invalid("fit", "penalties", "at least one", "none").into());
    }
    let folds = folds(rows.targets.len(), config.seed);
    let recipes: Vec<_> = config.penalties.iter().map(|&penalty| Recipe::Linear(penalty)).collect();
    let recipes = [recipes, vec![Recipe::Mlp]].concat();
    let all = predict_folds(rows, &folds, &recipes, config)?;
    let squares = Squares::new(&all, &rows.targets);
    let everything: Vec<usize> = (0..rows.targets.len()).collect();
    let chosen = squares.choose(&everything);
    let mut predicted = vec![0.0; rows.targets.len()];
    for fold in &folds {
        // a model chosen by a fold's own rows would look better on them than it is
        let others: Vec<usize> = folds.iter().filter(|other| *other != fold).flatten().copied().collect();
        let by_others = &all[squares.choose(&others)];
        fold.iter().for_each(|&row| predicted[row] = by_others.predicted[row]);
    }
    let [.., mlp] = &all[..] else { unreachable!("the perceptron is the last recipe") };
    let rmse_mlp = rmse(&mlp.predicted, &rows.targets);
    let rmse_linear = rmse(&all[squares.best_linear(&everything)].predicted, &rows.targets);
    Ok(CrossValidated { recipe: all[chosen].recipe, predicted, rmse_linear, rmse_mlp })
}

/// The rows in random order, cut into parts that differ by one row at most.
fn folds(rows: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows).collect();
    order.shuffle(&mut rng(seed, Purpose::Split));
    (0..FOLDS.min(rows))
        .map(|first: usize| order.iter().skip(first).step_by(FOLDS).copied().collect())
        .collect()
}

fn predict_folds(
    rows: &Rows,
    folds: &[Vec<usize>],
    recipes: &[Recipe],
    config: &FitConfig,
) -> Result<Vec<Predictions>> {
    // one after the other: each product of a perceptron is work for all threads already
    let mut by_fold = Vec::with_capacity(folds.len());
    for fold in folds {
        let rest: Vec<usize> = folds.iter().filter(|other| *other != fold).flatten().copied().collect();
        let rest = rows.pick(&rest);
        let unseen = rows.pick(fold);
        let mut outputs = Vec::with_capacity(recipes.len());
        for recipe in recipes {
            outputs.push(recipe.fit(&rest, config)?.predict(&unseen.active)?);
        }
        by_fold.push(outputs);
    }
    let mut predictions = Vec::with_capacity(recipes.len());
    for (place, &recipe) in recipes.iter().enumerate() {
        let mut predicted = vec![0.0; rows.targets.len()];
        for (fold, outputs) in folds.iter().zip(&by_fold) {
            fold.iter().zip(&outputs[place]).for_each(|(&row, output)| predicted[row] = f64::from(*output));
        }
        predictions.push(Predictions { recipe, predicted });
    }
    Ok(predictions)
}

/// Squared errors by recipe and row; the last recipe is the perceptron.
struct Squares(Vec<Vec<f64>>);

impl Squares {
    fn new(all: &[Predictions], targets: &[f64]) -> Self {
        Self(
            all.iter()
                .map(|recipe: &Predictions| {
                    recipe.predicted.iter().zip(targets).map(|(p, m)| (p - m).powi(2)).collect()
                })
                .collect(),
        )
    }

    fn best_linear(&self, rows: &[usize]) -> usize {
        let sum = |recipe: usize| rows.iter().map(|&row| self.0[recipe][row]).sum::<f64>();
        let linear = 0..self.0.len() - 1;
        linear.min_by(|&a, &b| sum(a).total_cmp(&sum(b))).expect("at least one penalty")
    }

    /// The linear model of the least error, unless the perceptron's is less by more than one standard error of the
    /// difference. So the simpler model is kept where rows do not tell the two apart (Breiman et al. 1984, section
    /// 3.4.3): a search looks for what a model is wrong about, and a perceptron can be wrong in more ways. The difference
    /// is taken row by row, for both models meet the same rows; the errors' own deviations would hide it.
    fn choose(&self, rows: &[usize]) -> usize {
        let linear = self.best_linear(rows);
        let mlp = self.0.len() - 1;
        let count = rows.len() as f64;
        let difference = |row: usize| self.0[linear][row] - self.0[mlp][row];
        let mean = rows.iter().map(|&row| difference(row)).sum::<f64>() / count;
        let squares: f64 = rows.iter().map(|&row| (difference(row) - mean).powi(2)).sum();
        let standard_error = (squares / (count - 1.0).max(1.0) / count).sqrt();
        if mean > standard_error { mlp } else { linear }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_in_one_fold() {
        for rows in [25, 26, 101] {
            let folds = folds(rows, 3);
            let mut all: Vec<usize> = folds.iter().flatten().copied().collect();
            all.sort_unstable();
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
            assert!(folds.iter().all(|fold| fold.len() == rows / FOLDS || fold.len() == rows / FOLDS + 1));
        }
        assert_ne!(folds(25, 0), folds(25, 1));
    }

    #[test]
    fn the_perceptron_must_be_better_by_more_than_chance() {
        let rows: Vec<usize> = (0..100).collect();
        let noise: Vec<f64> =
            rows.iter().map(|&row| f64::from((row * 37 % 100) as u32) / 100.0 - 0.495).collect();
        for (gain, expected) in [(0.0, 1), (0.02, 1), (0.1, 2), (-0.1, 1)] {
            let linear = |base: f64| rows.iter().map(|_| base).collect::<Vec<_>>();
            let mlp = noise.iter().map(|noise| 1.0 - gain + noise).collect();
            let squares = Squares(vec![linear(1.5), linear(1.0), mlp]);
            assert_eq!(squares.choose(&rows), expected, "{gain}");
        }
    }
}
