//! The search for the best sub-network within limits: metrics and their estimators, costs as sums over genes, limits
//! and proofs that they cannot be kept, the loop that runs strategies, fronts. Knows genes and numbers only: no
//! weights, no files, no clock.

#![forbid(unsafe_code)]

mod accuracy_search;
mod archive;
mod bound;
pub mod candidate;
pub mod error;
pub mod estimator;
mod genes;
pub mod index;
pub mod log;
pub mod metric;
pub mod objective;
pub mod pareto;
pub mod policy;
mod prices;
pub mod problem;
pub mod quantity;
mod rows;
pub mod solve;
mod start;
pub mod strategies;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use accuracy_search::{
    AccuracySearch, EvaluatedSearch, Improvement, SearchReport, StrategyChoice, climb,
};
pub use archive::{ArchivedPoint, Solution, TOP};
pub use candidate::{AccuracyFrom, Candidate};
pub use error::{Error, Nearest, Result};
pub use estimator::{Estimator, Predictor};
pub use index::{CostIndex, Costs, Latencies, Microseconds};
pub use log::{Archive, Log};
pub use metric::{Better, Fidelity, LATENCY, Limits, Metric, MetricValue, TOP1, device_of};
pub use objective::{Objective, OpenFeatures, SyntheticObjective};
pub use problem::{MOST_GOALS, Merits, Problem};
pub use quantity::Quantity;
pub use rows::GeneRows;
pub use solve::{Ended, Outcome, Proof, Rise, Scored, Strategy, View, solve};
pub use strategies::climbers::{Climbers, SearchConfig};
pub use strategies::random::Random;
pub use strategies::{STRATEGIES, StrategyKind};
