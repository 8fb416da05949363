//! Search problems that are tables of all their rows, such as tabular benchmarks, and studies that run strategies on them
//! side by side at equal price. Knows no weights and no clock: prices come from the table.

#![forbid(unsafe_code)]

pub mod hypervolume;
pub mod problem_file;
pub mod runs;
pub mod study;
pub mod table;

pub use problem_file::{Competitor, Files, ProblemFile};
pub use runs::{Run, RunPoint};
pub use study::{Curve, Study, StudyConfig, Summary};
pub use table::{MetricTable, TableEstimator};

/// Result of every fallible function of this crate.
pub type Result<T, E = search::Error> = std::result::Result<T, E>;
