//! Finds the sub-network with the highest expected accuracy that keeps a device's limits.

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

pub use constraint::{Limits, Quantity};
pub use evolution::{SearchConfig, SearchReport, evolve};
pub use found::Found;
pub use index::{Candidate, CostIndex, Costs};
pub use objective::{Objective, StandIn};
pub use promise::{Kept, Promised, measure_promised, promised};
