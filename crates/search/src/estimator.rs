//! Estimators of sub-networks' metrics, and predictors that read features.

use std::sync::atomic::AtomicBool;

use rayon::prelude::*;
use space::{Encoded, GeneRow, SearchSpace};

use super::genes::GeneFeatures;
use super::index::CostIndex;
use super::metric::{Better, Fidelity, Metric, MetricValue, TOP1};
use super::objective::Objective;
use super::rows::GeneRows;
use crate::error::Result;

/// Estimates metrics of sub-networks.
pub trait Estimator: Sync {
    /// The metrics, in the order of the values.
    fn metrics(&self) -> &[Metric];

    /// The cost of a row in a search's budget, in a unit that all estimators of a problem share.
    fn price(&self, _row: &GeneRow, _fidelity: Fidelity) -> f64 {
        1.0
    }

    /// Whether it evaluates less thoroughly, at a lower price, at lower fidelities.
    fn has_fidelities(&self) -> bool {
        false
    }

    /// The values of each row's metrics, one row after the other; they do not depend on the other rows of the call. If
    /// `stop` is set meanwhile, the values of the first rows suffice.
    ///
    /// # Errors
    /// If a row cannot be estimated.
    fn estimate(&self, rows: &GeneRows, fidelity: Fidelity, stop: &AtomicBool) -> Result<Vec<MetricValue>>;

    /// [`Estimator::estimate`] for values that take long: `done` receives those of a row as soon as they are there, with its
    /// place, in any order. If `stop` is set meanwhile, rows may be left out.
    ///
    /// # Errors
    /// As [`Estimator::estimate`], and those of `done`.
    fn estimate_each(
        &self,
        rows: &GeneRows,
        fidelity: Fidelity,
        stop: &AtomicBool,
        done: &mut dyn FnMut(usize, &[MetricValue]) -> Result<()>,
    ) -> Result<()> {
        let values = self.estimate(rows, fidelity, stop)?;
        let mut rows = values.chunks_exact(self.metrics().len()).enumerate();
        rows.try_for_each(|(place, values)| done(place, values))
    }

    /// The cost index, if the values are sums and maxima of terms over few genes: these have exact minima, and a
    /// strategy can query the cost of a change. Factored costs use no budget and are not stored.
    fn factored(&self) -> Option<&CostIndex> {
        None
    }

    /// The predictor, if there is one that reads features and may have slopes.
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

/// Least number of rows per thread; fewer are not worth another thread.
const LEAST_ROWS: usize = 24;

impl<'a> Predictor<'a> {
    /// Estimates accuracy with an objective of the space.
    ///
    /// # Errors
    /// If the objective is of another space; the searched one may have only some of its resolutions.
    pub fn top1(space: &SearchSpace, objective: &'a dyn Objective) -> Result<Self> {
        Self::new(space, objective, Metric::new(TOP1, "share", Better::Higher))
    }

    /// Estimates a metric with an objective.
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

    /// The features of rows.
    pub(crate) fn features(&self) -> &GeneFeatures {
        &self.features
    }

    /// The derivatives of the objective's value by its features, one row of them per row; `None` if there are none.
    pub(crate) fn slopes(&self, encoded: &Encoded) -> Result<Option<Vec<f32>>> {
        self.objective.slopes(encoded)
    }

    /// Bounds on the values of the rows that begin with the first `set` genes of a row; `None` if the objective knows none.
    pub(crate) fn range(&self, row: &GeneRow, set: usize) -> Result<Option<[f64; 2]>> {
        self.objective.range(&self.features.open(row, set))
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

/// Sums of layers' costs as an estimator, for callers that do not use the index itself.
impl Estimator for CostIndex {
    fn metrics(&self) -> &[Metric] {
        Self::metrics(self)
    }

    fn price(&self, _row: &GeneRow, _fidelity: Fidelity) -> f64 {
        0.0
    }

    fn estimate(&self, rows: &GeneRows, _fidelity: Fidelity, _stop: &AtomicBool) -> Result<Vec<MetricValue>> {
        Ok(rows
            .iter()
            .flat_map(|row: &GeneRow| {
                let costs = self.costs_of(row);
                self.quantities().iter().map(move |quantity| costs.value(*quantity))
            })
            .collect())
    }

    fn factored(&self) -> Option<&CostIndex> {
        Some(self)
    }
}
