//! The target of climbs: one metric under limits on costs.

use crate::estimator::Predictor;
use crate::metric::Better;
use crate::prices::{Column, Prices};
use crate::problem::{Problem, Source};
use crate::solve::Scored;

/// A metric to optimize.
#[derive(Clone, Copy)]
pub(super) struct Aim<'a> {
    source: Source,
    /// 1 if the greater value is the better one, else -1.
    pub sign: f32,
    /// Its predictor, if it may have slopes.
    pub predictor: Option<&'a Predictor<'a>>,
}

impl<'a> Aim<'a> {
    /// The aim at a metric of a source.
    pub fn new(problem: &Problem<'a>, source: Source, better: Better) -> Self {
        let predictor = match source {
            Source::Estimated(at) => problem.predictor(at),
            Source::Priced(_) => None,
        };
        Self { source, sign: if better == Better::Higher { 1.0 } else { -1.0 }, predictor }
    }

    /// A row's merit, the greater the better.
    pub fn merit(&self, prices: &Prices<'_>, scored: &Scored<'_>, row: usize) -> f32 {
        let value = match self.source {
            Source::Estimated(at) => scored.estimated(row)[at].mean,
            Source::Priced(Column { index, quantity }) => {
                let priced = prices.iter().nth(index).expect("a column of these");
                priced.index.costs_of(scored.rows.get(row)).value(quantity).mean
            }
        };
        self.sign * value as f32
    }
}
