//! How long a network takes on a device: measured layer by layer, kept in a table, summed.

mod clock;
pub mod device;
pub mod engine;
mod journal;
pub mod measure;
mod native;
mod ofa_key;
pub mod ofa_table;
pub mod plan;
pub mod stats;
pub mod table;
mod validate;

pub use clock::MonotonicStopwatch;
pub use device::DeviceFacts;
pub use engine::{Engine, EngineFacts, Stopwatch};
pub use journal::Journal;
pub use measure::{MeasureConfig, Progress, Sampled, measure, single};
pub use native::NativeEngine;
pub use plan::space_layers;
pub use stats::Row;
pub use table::{Coverage, LatencyTable, NetworkLatency};
pub use validate::{Compared, Validation, validate};
