//! A fitted estimator's errors on unseen rows, and the trust that its predictions deserve.

use base::Error;
use base::document::rounded;
use network::data::Split;
use network::model_folder::SelectedOn;
use serde::{Deserialize, Serialize};

use super::ModelKind;
use super::rank::{IntervalEstimate, bootstrap, kendall, rmse, spearman};
use crate::error::Result;
use crate::rng::{Purpose, rng};

/// An estimator's errors on rows that it was not fitted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitReport {
    /// The model that cross-validation chose.
    pub model: ModelKind,
    /// Number of rows.
    pub n: usize,
    /// Parts that the rows were cut into, each predicted by what was fitted to the others; 0 in files of older versions,
    /// whose figures are of one fifth of the rows that was held out.
    pub folds: usize,
    /// The split of the images that the accuracies are counted on.
    pub split: Split,
    /// Number of images of each row, the fewest where they differ; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<u64>,
    /// Root mean squared error of the accuracy, as a share.
    pub rmse: IntervalEstimate,
    /// Spearman's rank correlation.
    pub spearman: IntervalEstimate,
    /// Kendall's tau-b.
    pub kendall: IntervalEstimate,
    /// Binomial standard deviation of the rows, as [`noise_floor`] says; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_floor: Option<f64>,
    /// Cross-validated error of the linear model.
    pub rmse_linear: f64,
    /// Cross-validated error of the perceptron.
    pub rmse_mlp: f64,
    /// The regression of measured accuracies on predicted ones; `None` in files of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<AccuracyCalibration>,
}

/// The form of [`FitReport`] in estimators of versions 1 and 2.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeldOutReport {
    model: ModelKind,
    n: usize,
    #[serde(rename = "held_out")]
    _held_out: usize,
    split: Split,
    rmse: IntervalEstimate,
    spearman: IntervalEstimate,
    kendall: IntervalEstimate,
    inner_rmse_linear: f64,
    inner_rmse_mlp: f64,
}

impl From<HeldOutReport> for FitReport {
    fn from(old: HeldOutReport) -> Self {
        let HeldOutReport { model, n, split, rmse, spearman, kendall, .. } = old;
        let rmse_linear = old.inner_rmse_linear;
        let rmse_mlp = old.inner_rmse_mlp;
        let folds = 0;
        let images = None;
        let noise_floor = None;
        let calibration = None;
        Self {
            model,
            n,
            folds,
            split,
            images,
            rmse,
            spearman,
            kendall,
            noise_floor,
            rmse_linear,
            rmse_mlp,
            calibration,
        }
    }
}

/// The trust that an estimator's order of sub-networks deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The rank correlation is not above 0 at 95 %.
    None,
    /// The rank correlation is above 0, but below [`WEAK_SPEARMAN`].
    Weak,
    /// Neither of these.
    Sound,
}

/// Spearman's correlation below which an estimator says little about which of two sub-networks is better: at .3 the
/// higher of two predictions belongs to the better one in about 60 % of pairs (Kendall's tau is near .2).
pub const WEAK_SPEARMAN: f64 = 0.3;

impl FitReport {
    /// The trust that the estimator's order deserves.
    pub fn trust(&self) -> Trust {
        // a NaN is no correlation either
        if self.spearman.low.is_nan() || self.spearman.low <= 0.0 {
            Trust::None
        } else if self.spearman.value < WEAK_SPEARMAN {
            Trust::Weak
        } else {
            Trust::Sound
        }
    }

    /// Refuses an estimator of [`Trust::None`]; `place` names its rows. The level is 5 %: of rows that say nothing about
    /// sub-networks, such as shuffled ones, up to one in twenty passes by chance.
    ///
    /// # Errors
    /// Says what the correlation is, and what would help.
    pub fn check_ranks(&self, place: &str) -> Result<()> {
        if self.trust() != Trust::None {
            return Ok(());
        }
        let IntervalEstimate { value, low, high } = self.spearman;
        let got = format!("{value:.3} ({low:.3} to {high:.3}) from {} rows", self.n);
        let error =
            Error::invalid(place, "rank correlation of cross-validated predictions", "above 0 at 95 %", got);
        let next = "such an estimator says nothing about which sub-network is better: sample more sub-networks, or on more images; --force goes on";
        Err(error.and_then_do(next).into())
    }

    /// The words of a warning, where the estimator's order says little or nothing.
    pub fn warning(&self) -> Option<String> {
        let IntervalEstimate { value, low, high } = self.spearman;
        let range = format!("{value:.2} ({low:.2} to {high:.2})");
        match self.trust() {
            Trust::Sound => None,
            Trust::Weak => Some(format!(
                "the estimator ranks sub-networks weakly: Spearman {range}, below {WEAK_SPEARMAN}; sample more of them, or on more images"
            )),
            Trust::None => Some(format!(
                "the estimator ranks sub-networks no better than chance: Spearman {range}; what it expects says nothing"
            )),
        }
    }

    /// The images behind a selection by the predictor alone; `None` for files that do not name them.
    pub fn selected_on(&self) -> Option<SelectedOn> {
        let how = format!("highest of a predictor that was fitted to {} sub-networks", self.n);
        Some(SelectedOn { split: self.split.to_string(), n: self.images?, how })
    }

    /// The expected accuracy of a sub-network for which the model predicts this much.
    pub fn expected(&self, predicted: f64) -> f64 {
        self.calibration.map_or(predicted, |calibration| calibration.apply(predicted))
    }

    /// Variance of a sub-network's accuracy on new images about what is expected: the error's square, and that of the
    /// images that rows are counted on, which the error does not show where all rows share them.
    pub fn variance(&self) -> f64 {
        self.rmse.value.powi(2) + self.noise_floor.unwrap_or(0.0).powi(2)
    }
}

/// A line from predictions to measured accuracies, fitted by least squares to cross-validated predictions. A slope below
/// 1 says that high predictions are too high and low ones too low, as they are where a model has learned noise; those of a
/// search are the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracyCalibration {
    /// Mean of the predictions.
    pub mean_predicted: f64,
    /// Mean of the measured accuracies.
    pub mean_measured: f64,
    /// Slope; in use at least [`AccuracyCalibration::LEAST_SLOPE`] and at most 1.
    pub slope: f64,
}

impl AccuracyCalibration {
    /// Keeps the order of predictions where the slope is 0 or less.
    pub const LEAST_SLOPE: f64 = 0.1;

    fn of(predicted: &[f64], measured: &[f64]) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let mean_predicted = mean(predicted);
        let mean_measured = mean(measured);
        let mut products = 0.0;
        let mut squares = 0.0;
        for (p, m) in predicted.iter().zip(measured) {
            products += (p - mean_predicted) * (m - mean_measured);
            squares += (p - mean_predicted).powi(2);
        }
        let slope = if squares > 0.0 { products / squares } else { 0.0 };
        let [mean_predicted, mean_measured, slope] =
            [mean_predicted, mean_measured, slope].map(|value| rounded(value, DECIMALS));
        Self { mean_predicted, mean_measured, slope }
    }

    /// The accuracy to expect after a prediction. Predictions stay in order; their distances stay or shrink.
    pub fn apply(&self, predicted: f64) -> f64 {
        let slope = self.slope.clamp(Self::LEAST_SLOPE, 1.0);
        self.mean_measured + slope * (predicted - self.mean_predicted)
    }
}

/// Decimals of the numbers in a report.
const DECIMALS: i32 = 9;

fn rounded_estimate(IntervalEstimate { value, low, high }: IntervalEstimate) -> IntervalEstimate {
    let [value, low, high] = [value, low, high].map(|value| rounded(value, DECIMALS));
    IntervalEstimate { value, low, high }
}

/// Standard deviation of accuracies that were counted on so many images each, for the images' sake alone: the root of the
/// mean of p (1 - p) / n. No predictor of such rows is nearer to the accuracy on other images than this. Its error on the
/// rows can be smaller, for all of them share their images.
pub fn noise_floor(rows: impl ExactSizeIterator<Item = (f64, u64)>) -> f64 {
    let count = rows.len() as f64;
    let variances: f64 = rows.map(|(top1, n)| top1 * (1.0 - top1) / n as f64).sum();
    (variances / count).sqrt()
}

/// The inputs of a report next to cross-validated predictions.
pub(super) struct Judged<'a> {
    pub predicted: &'a [f64],
    pub measured: &'a [f64],
    pub images: &'a [u64],
    pub split: Split,
    pub folds: usize,
    /// The chosen model, and the errors of both.
    pub model: ModelKind,
    pub rmse_linear: f64,
    pub rmse_mlp: f64,
}

/// Errors and correlations with their intervals.
pub(super) fn evaluate(judged: &Judged<'_>, seed: u64) -> FitReport {
    let Judged { predicted, measured, images, split, folds, model, .. } = *judged;
    let mut rng = rng(seed, Purpose::Bootstrap);
    let mut with_interval = |statistic| rounded_estimate(bootstrap(predicted, measured, statistic, &mut rng));
    let rows = measured.iter().copied().zip(images.iter().copied());
    FitReport {
        model,
        n: measured.len(),
        folds,
        split,
        images: images.iter().copied().min(),
        rmse: with_interval(rmse),
        spearman: with_interval(spearman),
        kendall: with_interval(kendall),
        noise_floor: Some(rounded(noise_floor(rows), DECIMALS)),
        rmse_linear: rounded(judged.rmse_linear, DECIMALS),
        rmse_mlp: rounded(judged.rmse_mlp, DECIMALS),
        calibration: Some(AccuracyCalibration::of(predicted, measured)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_floor_is_the_pooled_binomial_deviation() {
        let rows = [(0.5, 100), (0.9, 100)];
        // (0.25 + 0.09) / 2 / 100
        assert!((noise_floor(rows.into_iter()) - 0.0017f64.sqrt()).abs() < 1e-15);
        assert_eq!(noise_floor([(1.0, 10)].into_iter()), 0.0);
    }

    #[test]
    fn a_calibration_shrinks_and_keeps_the_order() {
        let predicted = [0.1, 0.2, 0.3, 0.4];
        for (slope, used) in [(0.5, 0.5), (2.0, 1.0), (-1.0, AccuracyCalibration::LEAST_SLOPE), (1.0, 1.0)] {
            let measured = predicted.map(|p| 0.7 + slope * (p - 0.25));
            let calibration = AccuracyCalibration::of(&predicted, &measured);
            assert!((calibration.slope - slope).abs() < 1e-8, "{calibration:?}");
            assert!((calibration.apply(1.25) - (0.7 + used)).abs() < 1e-8, "{calibration:?}");
        }
        assert_eq!(AccuracyCalibration::of(&[0.5; 3], &[0.1, 0.2, 0.3]).slope, 0.0);
    }
}
