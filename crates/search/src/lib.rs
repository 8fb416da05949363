//! How to look for the sub-network with the highest value that keeps limits: genes, costs as sums over them, limits and proofs
//! that they cannot be kept, strategies, fronts. Knows genes and numbers only: no weights, no files, no clock.

#![forbid(unsafe_code)]

mod anneal;
mod archive;
mod bound;
mod climb;
pub mod constraint;
pub mod error;
mod evolution;
mod genes;
pub mod index;
mod known;
pub mod objective;
pub mod pareto;
mod start;
#[cfg(test)]
mod testing;

pub use archive::TOP;
pub use constraint::{Limits, Quantity};
pub use error::{Error, Nearest, Result};
pub use evolution::{SearchConfig, SearchReport, evolve};
pub use index::{AccuracyFrom, Candidate, CostIndex, Costs, Latencies, Microseconds};
pub use objective::{Objective, StandIn};
