//! Fits an estimator to evaluated sub-networks.

use kernels::Backend;
use network::accuracy_file::AccuracyFile;
use network::data::Split;
use space::{Arch, Encoded, Encoder};

use super::coverage::Unseen;
use super::cross_validation::{CrossValidated, FOLDS, cross_validate};
use super::linear::ridge;
use super::perceptron::{Dense, Network};
use super::report::{Judged, evaluate};
use super::train::{self, MlpConfig};
use super::{AccuracyEstimator, EstimatorOrigin, Fitted};
use crate::error::Result;

/// The settings of a fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitConfig {
    /// Decides how rows are cut into folds, first weights and the order of rows.
    pub seed: u64,
    /// Penalties among which the ridge regression chooses.
    pub penalties: Vec<f64>,
    /// The perceptron.
    pub mlp: MlpConfig,
    /// The backend of predictions.
    pub backend: Backend,
}

impl Default for FitConfig {
    fn default() -> Self {
        let penalties = vec![0.01, 0.1, 1.0, 10.0, 100.0];
        Self { seed: 0, penalties, mlp: MlpConfig::default(), backend: Backend::detect() }
    }
}

/// Least number of rows: five folds of five.
const LEAST_ROWS: usize = 25;

/// Rows as the models see them.
pub(super) struct Rows {
    pub active: Encoded,
    pub targets: Vec<f64>,
    pub len: usize,
}

impl Rows {
    pub fn pick(&self, rows: &[usize]) -> Self {
        let mut active = Encoded::default();
        rows.iter().for_each(|&row| active.push(self.active.get(row).iter().copied()));
        Self { active, targets: rows.iter().map(|&row| self.targets[row]).collect(), len: self.len }
    }
}

/// The rows of a file that are fitted to.
struct Usable<'a> {
    split: Split,
    rows: Rows,
    archs: Vec<&'a Arch>,
    images: Vec<u64>,
}

impl AccuracyEstimator {
    /// Fits an estimator to the rows of a file: those of `val`, or of `train` where there are none; never
    /// those of `test`. The model is chosen and judged by cross-validation; the estimator itself is fitted to all rows.
    ///
    /// Whether it ranks sub-networks at all, its report says ([`super::FitReport::check_ranks`]).
    ///
    /// # Errors
    /// If there are fewer than 25 rows.
    pub fn fit(file: &AccuracyFile, config: &FitConfig) -> Result<Self> {
        let encoder = Encoder::new(&file.space);
        let Usable { split, rows, archs, images } = usable_rows(file, &encoder)?;
        let CrossValidated { recipe, predicted, rmse_linear, rmse_mlp } = cross_validate(&rows, config)?;
        let model = recipe.model();
        let judged = Judged {
            predicted: &predicted,
            measured: &rows.targets,
            images: &images,
            split,
            folds: FOLDS,
            model,
            rmse_linear,
            rmse_mlp,
        };
        let report = evaluate(&judged, config.seed);
        let network = recipe.fit(&rows, config)?;
        let unseen = Some(Unseen::of(&encoder, archs.into_iter(), &rows.active));
        let origin = EstimatorOrigin::Fitted(Fitted { report, supernet: file.supernet.clone(), unseen });
        Ok(Self { encoder, network, model, origin })
    }
}

fn usable_rows<'a>(file: &'a AccuracyFile, encoder: &Encoder) -> Result<Usable<'a>> {
    let has_val = file.rows.iter().any(|row| row.split == Split::Val);
    let split = if has_val { Split::Val } else { Split::Train };
    let mut active = Encoded::default();
    let mut targets = Vec::new();
    let mut archs = Vec::new();
    let mut images = Vec::new();
    for row in file.rows.iter().filter(|row| row.split == split) {
        encoder.append(&row.arch, &mut active)?;
        targets.push(row.top1);
        archs.push(&row.arch);
        images.push(row.n);
    }
    if targets.len() < LEAST_ROWS {
        let expected = format!("at least {LEAST_ROWS} on one of val and train");
        let error = base::Error::invalid("accuracy rows", "number", expected, targets.len());
        return Err(error.and_then_do("run supernet sample with a larger --count").into());
    }
    Ok(Usable { split, rows: Rows { active, targets, len: encoder.len() }, archs, images })
}

pub(super) fn fit_linear(rows: &Rows, penalty: f64) -> Result<Network> {
    let model = ridge(&rows.active, &rows.targets, rows.len, penalty)?;
    let weight = model.weights.iter().map(|&weight| weight as f32).collect();
    Network::new(vec![Dense { weight, bias: vec![0.0] }], model.constant as f32)
}

pub(super) fn fit_mlp(rows: &Rows, config: &FitConfig) -> Result<Network> {
    train::fit_mlp(&rows.active, &rows.targets, rows.len, &config.mlp, config.seed)?
        .with_backend(&config.backend)
}
