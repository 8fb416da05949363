//! Finds the sub-network with the highest expected accuracy that keeps a device's limits: costs from a latency table, the
//! crate `search`, checks on whole sub-networks and validation images, and the file of the result.

mod costs;
pub mod explain;
mod find_best;
pub mod found;
mod limit_trials;
pub mod log_file;
pub mod process;
mod validation;
mod value_form;

pub use search::{
    AccuracyFrom, AccuracySearch, Archive, Better, Candidate, CostIndex, Costs, Ended, EvaluatedSearch,
    LATENCY, Limits, Log, Metric, MetricValue, Objective, Proof, Quantity, STRATEGIES, SearchConfig,
    SearchReport, StrategyChoice, StrategyKind, SyntheticObjective, TOP, TOP1, climb, device_of,
};
pub use search::{index, objective, pareto, quantity};

pub use costs::{cost_index, cost_index_without_latency};
pub use find_best::find_best;
pub use found::{DeviceFound, Found, LatencyFrom};
pub use limit_trials::{LimitPlan, LimitTrial, promised, searched, subjects};
pub use log_file::{LogFile, LogSetting, SearchLog};
pub use process::{CandidateResult, Failure, ProcessConfig, ProcessEstimator, Program};
pub use validation::{
    Evaluated, ValidatedSearch, ValidationPlan, ValidationProblem, judge_by_predictor, search_validated,
};

#[cfg(test)]
mod tests;
