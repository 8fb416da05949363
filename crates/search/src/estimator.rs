//! Who says what a sub-network's metrics are: an estimator, and one that is a predictor of features.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use space::{Encoded, SearchSpace};

use super::genes::GeneFeatures;
use super::index::CostIndex;
use super::metric::{Better, Fidelity, Metric, MetricValue, TOP1};
use super::objective::Objective;
use super::rows::GeneRows;
use crate::error::Result;

/// Says what sub-networks' metrics are.
pub trait Estimator: Sync {
    /// What it knows, in the order of its values.
    fn metrics(&self) -> &[Metric];

    /// What one row costs of a search's budget, in any unit that all estimators of a problem share.
    fn price(&self, _fidelity: Fidelity) -> f64 {
        1.0
    }

    /// The values of each row's metrics, one row behind the other; they do not depend on which other rows are asked for
    /// with it. Where `stop` is set meanwhile, those of the first rows are enough.
    ///
    /// # Errors
    /// If a row cannot be estimated.
    fn estimate(&self, rows: &GeneRows, fidelity: Fidelity, stop: &AtomicBool) -> Result<Vec<MetricValue>>;

    /// The costs behind it, where its values are sums and maxima of terms over few genes: they have exact minima, and a
    /// strategy may ask them what a change adds. What is factored costs nothing and is not kept.
    fn factored(&self) -> Option<&CostIndex> {
        None
    }

    /// The predictor behind it, where it is one of features and may have slopes.
    fn relaxed(&self) -> Option<&Predictor<'_>> {
        None
    }
}

/// An objective as an estimator of one metric.
pub struct Predictor<'a> {
    objective: &'a dyn Objective,
    features: GeneFeatures,
    metrics: [Metric; 1],
}

/// Rows that a thread predicts at least; fewer are not worth handing over.
const LEAST_ROWS: usize = 24;

impl<'a> Predictor<'a> {
    /// The accuracies that an objective expects of a space's sub-networks.
    ///
    /// # Errors
    /// If the objective is of another space; the searched one may be some of its resolutions only.
    pub fn top1(space: &SearchSpace, objective: &'a dyn Objective) -> Result<Self> {
        Self::new(space, objective, Metric::new(TOP1, "share", Better::Higher))
    }

    /// An objective's values as a metric.
    ///
    /// # Errors
    /// As [`Predictor::top1`].
    pub fn new(space: &SearchSpace, objective: &'a dyn Objective, metric: Metric) -> Result<Self> {
        let theirs = objective.space();
        if !theirs
            .at_resolutions(space.resolutions())
            .is_ok_and(|theirs: SearchSpace| theirs.fingerprint() == space.fingerprint())
        {
            let describe = |space: &SearchSpace| format!("{} ({})", space.name(), space.fingerprint());
            let error = base::Error::invalid("estimator", "space", describe(space), describe(theirs));
            return Err(error.and_then_do("fit an estimator to sub-networks of the searched space").into());
        }
        let features = GeneFeatures::new(space, objective.encoder());
        let features = features.expect("the estimator has the space's resolutions");
        Ok(Self { objective, features, metrics: [metric] })
    }

    /// What the objective sees of rows.
    pub(crate) fn features(&self) -> &GeneFeatures {
        &self.features
    }

    /// The derivatives of the objective's value by its features, one row of them for each row; `None` where there are none.
    pub(crate) fn slopes(&self, encoded: &Encoded) -> Result<Option<Vec<f32>>> {
        self.objective.slopes(encoded)
    }

    fn predict(&self, rows: &GeneRows, places: std::ops::Range<usize>) -> Result<Vec<MetricValue>> {
        let mut encoded = Encoded::default();
        places.for_each(|at| encoded.push(self.features.of(rows.get(at))));
        let values = self.objective.predict_encoded(&encoded)?;
        Ok(values.into_iter().map(|value| MetricValue::expected(f64::from(value))).collect())
    }
}

impl Estimator for Predictor<'_> {
    fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    fn estimate(&self, rows: &GeneRows, _fidelity: Fidelity, _stop: &AtomicBool) -> Result<Vec<MetricValue>> {
        let each = rows.len().div_ceil(rayon::current_num_threads()).max(LEAST_ROWS);
        if rows.len() <= each {
            return self.predict(rows, 0..rows.len());
        }
        let starts: Vec<usize> = (0..rows.len()).step_by(each).collect();
        let parts = starts
            .into_par_iter()
            .map(|start: usize| self.predict(rows, start..(start + each).min(rows.len())))
            .collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    }

    fn relaxed(&self) -> Option<&Predictor<'_>> {
        Some(self)
    }
}

/// Sums of layers' costs as an estimator, for whoever does not ask the index itself.
impl Estimator for CostIndex {
    fn metrics(&self) -> &[Metric] {
        Self::metrics(self)
    }

    fn price(&self, _fidelity: Fidelity) -> f64 {
        0.0
    }

    fn estimate(&self, rows: &GeneRows, _fidelity: Fidelity, _stop: &AtomicBool) -> Result<Vec<MetricValue>> {
        Ok(rows
            .iter()
            .flat_map(|row: &space::GeneRow| {
                let costs = self.costs_of(row);
                self.quantities().iter().map(move |quantity| costs.value(*quantity))
            })
            .collect())
    }

    fn factored(&self) -> Option<&CostIndex> {
        Some(self)
    }
}
