//! Predicts a sub-network's accuracy from those that were evaluated.
//!
//! Two models compete on rows that neither was fitted to: a ridge regression, which is hard to beat with few rows,
//! and the perceptron of Once-for-All. Knows nothing of how accuracies were measured.

mod coverage;
mod cross_validation;
mod estimator_file;
mod fit;
mod imported;
mod linear;
mod perceptron;
pub use base::rank;
mod report;
pub mod shrink;
mod train;
mod unit;

use kernels::Backend;
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace};

use crate::error::Result;
pub use coverage::Unseen;
pub use fit::FitConfig;
pub use imported::{ImportedPredictor, OfaPredictor};
pub(crate) use perceptron::Dense;
use perceptron::Network;
pub use rank::IntervalEstimate;
pub use report::{AccuracyCalibration, FitReport, Trust, WEAK_SPEARMAN, noise_floor};
use search::{Objective, OpenFeatures};
use shrink::NORMAL_95;
use space::{Encoded, Encoder};
pub use train::MlpConfig;
pub(crate) use unit::in_shares;

/// The kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// A weight for each feature.
    Linear,
    /// A multi-layer perceptron.
    Mlp,
}

/// Where an estimator comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EstimatorOrigin {
    /// Fitted to sub-networks that were evaluated.
    Fitted(Fitted),
    /// Taken over from another program.
    Imported(ImportedPredictor),
}

/// The origin of an estimator that was fitted by this toolkit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Errors on rows that it was not fitted to.
    pub report: FitReport,
    /// Hash of the supernet whose sub-networks were evaluated.
    pub supernet: String,
    /// Choices that no row had; `None` in files of older versions, where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Unseen>,
}

/// Predicts the accuracy of the sub-networks of one space.
#[derive(Clone, Debug)]
pub struct AccuracyEstimator {
    encoder: Encoder,
    network: Network,
    model: ModelKind,
    origin: EstimatorOrigin,
}

/// Most layers that an estimator may have.
pub(crate) const MOST_LAYERS: usize = 16;

impl AccuracyEstimator {
    /// The estimator that another program's perceptron is.
    pub(crate) fn imported(encoder: Encoder, network: Network, imported: ImportedPredictor) -> Self {
        Self { encoder, network, model: ModelKind::Mlp, origin: EstimatorOrigin::Imported(imported) }
    }

    /// This estimator on another backend; its predictions differ by rounding.
    ///
    /// # Errors
    /// If the kernels cannot pack its weights.
    pub fn with_backend(self, backend: &Backend) -> Result<Self> {
        Ok(Self { network: self.network.with_backend(backend)?, ..self })
    }

    /// The space whose sub-networks it knows.
    pub fn space(&self) -> &SearchSpace {
        self.encoder.space()
    }

    /// The encoder of sub-networks.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The kind of model.
    pub fn model(&self) -> ModelKind {
        self.model
    }

    /// Where it comes from.
    pub fn origin(&self) -> &EstimatorOrigin {
        &self.origin
    }

    /// Errors on rows that it was not fitted to; `None` if unknown.
    pub fn report(&self) -> Option<&FitReport> {
        match &self.origin {
            EstimatorOrigin::Fitted(fitted) => Some(&fitted.report),
            EstimatorOrigin::Imported(_) => None,
        }
    }

    /// Hash of the supernet whose sub-networks were evaluated; `None` where it is not known.
    pub fn supernet(&self) -> Option<&str> {
        match &self.origin {
            EstimatorOrigin::Fitted(fitted) => Some(&fitted.supernet),
            EstimatorOrigin::Imported(_) => None,
        }
    }

    /// Names of the choices that no row had, of those that `space` has: this estimator's at some of its resolutions.
    /// None where that is not known.
    pub fn unseen(&self, space: &SearchSpace) -> Vec<String> {
        match &self.origin {
            EstimatorOrigin::Fitted(Fitted { unseen: Some(unseen), .. }) => {
                unseen.names(&self.encoder, space)
            }
            _ => Vec::new(),
        }
    }

    /// Whether rows had all choices of `space`, as far as that is known.
    ///
    /// # Errors
    /// Names those that none had.
    pub fn check_covers(&self, space: &SearchSpace) -> Result<()> {
        coverage::refuse(&self.unseen(space))
    }

    /// The expected accuracy of a sub-network for which [`AccuracyEstimator::predict`] gives this much: of the highest
    /// predictions less than they say, as far as cross-validated rows show it. The order of predictions stays.
    pub fn expected(&self, predicted: f64) -> f64 {
        self.report().map_or(predicted, |report| report.expected(predicted))
    }

    /// The least prediction of a sub-network of which the lower end of the 95 % interval reaches an accuracy; `None` where the
    /// error is not known. Infinite if no prediction up to 1.5 does.
    pub fn least_prediction(&self, least: f64) -> Option<f64> {
        let report = self.report()?;
        let below = NORMAL_95 * report.variance().sqrt();
        // files round to nine decimals
        let reaches = |prediction: f64| report.expected(prediction) - below >= least + 1e-9;
        let (mut low, mut high) = (-0.5, 1.5);
        if !reaches(high) {
            return Some(f64::INFINITY);
        }
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            if reaches(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }

    /// The expected accuracy of each sub-network, as a share; not forced into 0..=1. A prediction does not
    /// depend on the others in the request, nor on the number of threads.
    ///
    /// # Errors
    /// If a sub-network is not in the space.
    pub fn predict(&self, archs: &[Arch]) -> Result<Vec<f32>> {
        let mut encoded = Encoded::default();
        archs.iter().try_for_each(|arch| self.encoder.append(arch, &mut encoded))?;
        self.predict_encoded(&encoded)
    }

    /// The expected accuracy of sub-networks that [`Encoder`] has encoded; otherwise as
    /// [`AccuracyEstimator::predict`].
    ///
    /// # Errors
    /// If a feature is not among the encoder's.
    pub fn predict_encoded(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        self.network.predict(encoded)
    }

    /// The derivatives of [`AccuracyEstimator::predict_encoded`] by the encoder's features: one row of all of them for
    /// each sub-network.
    ///
    /// # Errors
    /// If a feature is not among the encoder's.
    pub fn slopes(&self, encoded: &Encoded) -> Result<Vec<f32>> {
        self.network.slopes(encoded)
    }
}

impl Objective for AccuracyEstimator {
    fn encoder(&self) -> &Encoder {
        Self::encoder(self)
    }

    fn predict_encoded(&self, encoded: &Encoded) -> search::Result<Vec<f32>> {
        Self::predict_encoded(self, encoded).map_err(|error| search::Error::Objective(error.into()))
    }

    fn range(&self, open: &[OpenFeatures]) -> search::Result<Option<[f64; 2]>> {
        self.network.range(open).map(Some).map_err(|error| search::Error::Objective(error.into()))
    }

    fn slopes(&self, encoded: &Encoded) -> search::Result<Option<Vec<f32>>> {
        Self::slopes(self, encoded).map(Some).map_err(|error| search::Error::Objective(error.into()))
    }
}

#[cfg(test)]
pub(crate) mod tests;
