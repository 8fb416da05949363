//! Finds the sub-network with the highest expected accuracy that keeps a device's limits.

mod anneal;
mod archive;
mod bound;
mod climb;
pub mod constraint;
mod evolution;
pub mod found;
mod genes;
pub mod index;
mod known;
pub mod objective;
pub mod pareto;
mod promise;
mod start;
mod validation;

pub use archive::TOP;
pub use constraint::{Limits, Quantity};
pub use evolution::{SearchConfig, SearchReport, evolve};
pub use found::{Found, LatencyFrom};
pub use index::{AccuracyFrom, Candidate, CostIndex, Costs};
pub use objective::{Objective, StandIn};
pub use promise::{Promised, Wanted, promised, searched, subjects};
pub use validation::{Evaluated, Problem, Validated, ValidationPlan, judge_by_predictor, search_validated};
