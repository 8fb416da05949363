//! What accuracy a sub-network is expected to have, learnt from those that were evaluated.
//!
//! Two models compete on rows that neither has seen: a ridge regression, which is hard to beat with few rows,
//! and the perceptron of Once-for-All. Knows nothing of how accuracies were measured.

mod estimator_file;
mod import;
mod linear;
mod network;
mod predictor_file;
pub mod rank;
mod train;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use supernet::accuracy_file::AccuracyFile;
use supernet::data::Split;
use supernet::kernels::Kernels;
use supernet::space::{Arch, SearchSpace};

use crate::encode::{Encoded, Encoder};
use crate::error::Result;
use crate::file::rounded;
use crate::rng::{Purpose, rng};
pub use import::{Imported, OfaPredictor, PredictorFile};
use linear::ridge;
use network::{Dense, Network};
pub use rank::Estimate;
use rank::{bootstrap, kendall, rmse, spearman};
pub use train::MlpConfig;

/// Which model an estimator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// A weight for each feature.
    Linear,
    /// A multi-layer perceptron.
    Mlp,
}

/// How well an estimator predicts rows that had no part in making it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitReport {
    /// The model that was better on the inner validation rows.
    pub model: Model,
    /// Number of rows in all.
    pub n: usize,
    /// Number of rows held out for this report.
    pub held_out: usize,
    /// Which images the accuracies are of.
    pub split: Split,
    /// Root mean squared error of the accuracy, as a share.
    pub rmse: Estimate,
    /// Spearman's rank correlation.
    pub spearman: Estimate,
    /// Kendall's tau-b.
    pub kendall: Estimate,
    /// Error of the linear model on the inner validation rows.
    pub inner_rmse_linear: f64,
    /// Error of the perceptron on the inner validation rows.
    pub inner_rmse_mlp: f64,
}

/// Where an estimator comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Fitted to sub-networks that were evaluated.
    Fitted(Fitted),
    /// Taken over from another program.
    Imported(Imported),
}

/// What is known of an estimator that was fitted here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// How good it is on rows that it was not fitted to.
    pub report: FitReport,
    /// Hash of the supernet whose sub-networks were evaluated.
    pub supernet: String,
}

/// How an estimator is fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct FitConfig {
    /// Decides which rows are held out, first weights and the order of rows.
    pub seed: u64,
    /// Share of rows held out for the report, and of the rest for choosing the model: a fifth.
    pub held_out: f64,
    /// Penalties among which the ridge regression chooses.
    pub penalties: Vec<f64>,
    /// The perceptron.
    pub mlp: MlpConfig,
    /// What predictions are computed with.
    pub kernels: Kernels,
}

impl Default for FitConfig {
    fn default() -> Self {
        let penalties = vec![0.01, 0.1, 1.0, 10.0, 100.0];
        Self { seed: 0, held_out: 0.2, penalties, mlp: MlpConfig::default(), kernels: Kernels::detect() }
    }
}

/// Decimals of the numbers in a report.
const DECIMALS: i32 = 9;

/// Least number of rows: with fewer, a fifth of a fifth is no sample.
const LEAST_ROWS: usize = 25;

/// Predicts the accuracy of the sub-networks of one space.
#[derive(Clone, Debug)]
pub struct AccuracyEstimator {
    encoder: Encoder,
    network: Network,
    model: Model,
    origin: Origin,
}

/// Most layers that an estimator may have.
const MOST_LAYERS: usize = 16;

/// Rows as the models see them.
struct Rows {
    active: Encoded,
    targets: Vec<f64>,
    len: usize,
}

impl Rows {
    fn pick(&self, rows: &[usize]) -> Self {
        let mut active = Encoded::default();
        rows.iter().for_each(|&row| active.push(self.active.get(row).iter().copied()));
        Self { active, targets: rows.iter().map(|&row| self.targets[row]).collect(), len: self.len }
    }
}

/// What was decided on the inner validation rows.
struct Choice {
    model: Model,
    penalty: f64,
    rmse_linear: f64,
    rmse_mlp: f64,
}

impl AccuracyEstimator {
    /// Fits an estimator to the rows of a file: those of `val`, or of `train` where there are none; never
    /// those of `test`. The report is of held-out rows; the estimator itself is refitted to all.
    ///
    /// # Errors
    /// If there are fewer than 25 rows.
    pub fn fit(file: &AccuracyFile, config: &FitConfig) -> Result<Self> {
        let encoder = Encoder::new(&file.space);
        let (split, rows) = usable_rows(file, &encoder)?;
        let n = rows.targets.len();
        let mut order: Vec<usize> = (0..n).collect();
        order.shuffle(&mut rng(config.seed, Purpose::Split));
        let (held_out, rest) = order.split_at(share(n, config.held_out));
        let (inner_held_out, inner) = rest.split_at(share(rest.len(), config.held_out));
        let choice = choose(&rows.pick(inner), &rows.pick(inner_held_out), config)?;
        let judged = fit_model(&rows.pick(rest), &choice, config)?;
        let report = judge(&judged, &rows.pick(held_out), split, n, &choice, config.seed)?;
        let network = fit_model(&rows, &choice, config)?;
        let origin = Origin::Fitted(Fitted { report, supernet: file.supernet.clone() });
        Ok(Self { encoder, network, model: choice.model, origin })
    }

    /// The same estimator, its predictions computed with other kernels; they differ by rounding.
    ///
    /// # Errors
    /// If the kernels cannot pack its weights.
    pub fn with_kernels(self, kernels: Kernels) -> Result<Self> {
        Ok(Self { network: self.network.with_kernels(kernels)?, ..self })
    }

    /// The space whose sub-networks it knows.
    pub fn space(&self) -> &SearchSpace {
        self.encoder.space()
    }

    /// How sub-networks are put to it.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Which model it is.
    pub fn model(&self) -> Model {
        self.model
    }

    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How good it is on rows that it was not fitted to; `None` where that is not known.
    pub fn report(&self) -> Option<&FitReport> {
        match &self.origin {
            Origin::Fitted(fitted) => Some(&fitted.report),
            Origin::Imported(_) => None,
        }
    }

    /// Hash of the supernet whose sub-networks were evaluated; `None` where it is not known.
    pub fn supernet(&self) -> Option<&str> {
        match &self.origin {
            Origin::Fitted(fitted) => Some(&fitted.supernet),
            Origin::Imported(_) => None,
        }
    }

    /// The expected accuracy of each sub-network, as a share; not forced into 0..=1. A prediction does not
    /// depend on which others are asked for with it, nor on the number of threads.
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
}

fn share(n: usize, share: f64) -> usize {
    ((n as f64 * share).round() as usize).clamp(1, n - 1)
}

fn usable_rows(file: &AccuracyFile, encoder: &Encoder) -> Result<(Split, Rows)> {
    let has = |split| file.rows.iter().any(|row| row.split == split);
    let split = if has(Split::Val) { Split::Val } else { Split::Train };
    let (mut active, mut targets) = (Encoded::default(), Vec::new());
    for row in file.rows.iter().filter(|row| row.split == split) {
        encoder.append(&row.arch, &mut active)?;
        targets.push(row.top1);
    }
    if targets.len() < LEAST_ROWS {
        let expected = format!("at least {LEAST_ROWS} on one of val and train");
        let error = supernet::Error::invalid("accuracy rows", "number", expected, targets.len());
        return Err(error.and_then_do("run supernet sample with a larger --count").into());
    }
    Ok((split, Rows { active, targets, len: encoder.len() }))
}

/// Fits both models to `rows` and compares them on `unseen`.
fn choose(rows: &Rows, unseen: &Rows, config: &FitConfig) -> Result<Choice> {
    if config.penalties.is_empty() {
        return Err(supernet::Error::invalid("fit", "penalties", "at least one", "none").into());
    }
    let (mut penalty, mut rmse_linear) = (1.0, f64::INFINITY);
    for &candidate in &config.penalties {
        let error = error_of(&fit_linear(rows, candidate)?, unseen)?;
        if error < rmse_linear {
            (penalty, rmse_linear) = (candidate, error);
        }
    }
    let mlp = fit_mlp(rows, config)?;
    let rmse_mlp = error_of(&mlp, unseen)?;
    let model = if rmse_mlp < rmse_linear { Model::Mlp } else { Model::Linear };
    Ok(Choice { model, penalty, rmse_linear, rmse_mlp })
}

fn fit_model(rows: &Rows, choice: &Choice, config: &FitConfig) -> Result<Network> {
    match choice.model {
        Model::Linear => fit_linear(rows, choice.penalty),
        Model::Mlp => fit_mlp(rows, config),
    }
}

fn fit_mlp(rows: &Rows, config: &FitConfig) -> Result<Network> {
    train::fit_mlp(&rows.active, &rows.targets, rows.len, &config.mlp, config.seed)?
        .with_kernels(config.kernels)
}

fn fit_linear(rows: &Rows, penalty: f64) -> Result<Network> {
    let model = ridge(&rows.active, &rows.targets, rows.len, penalty)?;
    let weight = model.weights.iter().map(|&weight| weight as f32).collect();
    Network::new(vec![Dense { weight, bias: vec![0.0] }], model.constant as f32)
}

fn predicted(network: &Network, rows: &Rows) -> Result<Vec<f64>> {
    Ok(network.predict(&rows.active)?.into_iter().map(f64::from).collect())
}

fn error_of(network: &Network, rows: &Rows) -> Result<f64> {
    Ok(rmse(&predicted(network, rows)?, &rows.targets))
}

impl Estimate {
    fn rounded(self) -> Self {
        let Self { value, low, high } = self;
        Self { value: rounded(value, DECIMALS), low: rounded(low, DECIMALS), high: rounded(high, DECIMALS) }
    }
}

fn judge(
    network: &Network,
    unseen: &Rows,
    split: Split,
    n: usize,
    choice: &Choice,
    seed: u64,
) -> Result<FitReport> {
    let predicted = predicted(network, unseen)?;
    let mut rng = rng(seed, Purpose::Bootstrap);
    let mut with_interval = |statistic| bootstrap(&predicted, &unseen.targets, statistic, &mut rng).rounded();
    Ok(FitReport {
        model: choice.model,
        n,
        held_out: unseen.targets.len(),
        split,
        rmse: with_interval(rmse),
        spearman: with_interval(spearman),
        kendall: with_interval(kendall),
        inner_rmse_linear: rounded(choice.rmse_linear, DECIMALS),
        inner_rmse_mlp: rounded(choice.rmse_mlp, DECIMALS),
    })
}

#[cfg(test)]
pub(crate) mod tests;
