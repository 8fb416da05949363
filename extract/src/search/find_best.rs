//! A whole search with the usual settings; the best candidates are evaluated on validation images.

use std::sync::atomic::AtomicBool;

use latency::{LatencyKind, LatencyTable};
use network::data::Split;
use network::eval::Evaluator;
use search::{Limits, SearchConfig};

use super::costs::cost_index;
use super::validation::{ValidatedSearch, ValidationPlan, ValidationProblem, search_validated};
use crate::accuracy::AccuracyEstimator;
use crate::error::Result;

/// Finds the sub-network with the highest accuracy within the limits, with latencies from the table: searches
/// with the estimator, evaluates the 20 sub-networks with the highest predicted accuracy on validation
/// images, and chooses by prediction and evaluation together.
///
/// # Errors
/// If no sub-network keeps the limits, no row of the estimator has one of the choices, the table lacks a
/// layer, or the images do not fit.
pub fn find_best(
    table: &LatencyTable,
    limits: &Limits,
    estimator: &AccuracyEstimator,
    evaluator: &Evaluator<'_>,
) -> Result<ValidatedSearch> {
    estimator.check_covers(evaluator.space)?;
    let index = &cost_index(evaluator.space, table, LatencyKind::Undisturbed)?;
    let config = &SearchConfig::default();
    let never = &AtomicBool::new(false);
    let problem = ValidationProblem {
        index,
        devices: &[],
        limits,
        config,
        strategy: None,
        cheapest: None,
        least_top1: None,
        stop: never,
    };
    let plan = ValidationPlan::default();
    search_validated(&problem, estimator, &plan, &mut |arch| {
        Ok(evaluator.hits_unless(never, arch, Split::Val)?)
    })
}
