//! How long a network takes on a device: measured layer by layer, kept in a table, summed, and corrected by what whole
//! sub-networks take.
//!
//! [`Plan`] says what is to be measured, [`carry_out`] measures it into rows, [`LatencyTable::from_rows`] folds rows
//! into a table; a [`LatencyModel`] is what the table says of one space.

mod campaign;
mod candidates;
mod clock;
mod compare;
pub mod correction;
pub mod device;
pub mod engine;
pub mod fitted;
mod fold;
pub mod measure;
mod model;
mod native;
pub mod ofa_exchange;
mod ofa_key;
pub mod ofa_table;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
pub mod plan;
mod plan_file;
pub mod row;
pub mod rows;
mod sentinel;
pub use base::statistics as stats;
pub mod table;
mod timer;
pub mod undisturbed;
mod weights;

pub use campaign::{Bench, Campaign, carry_out};
pub use candidates::stratified;
pub use clock::{EventStopwatch, MonotonicStopwatch, stopwatch_of};
pub use compare::{Compared, compare};
pub use device::{Conditions, DeviceFacts};
pub use engine::{Engine, EngineFacts, Stopwatch};
pub use fitted::{Between, NetworkRow, SearchedRow, SpaceFit, Validation, ValidationTypical};
pub use fold::{Folded, SessionFacts, SessionFold, fold};
pub use measure::{Instruments, MeasureConfig, Measured, Progress, Subjects, measure};
pub use model::{Latency, LatencyKind, LatencyModel};
pub use native::NativeEngine;
#[cfg(feature = "onnxruntime")]
pub use onnxruntime::OnnxRuntimeEngine;
pub use plan::space_layers;
pub use plan_file::{Plan, PlannedLayer};
pub use row::{Measurement, Row};
pub use rows::{Record, Rows, RowsLog, Samples, Session, Setting, Subject, Visit};
pub use sentinel::{GPU_SENTINEL, SENTINEL, Sentinel};
pub use table::{Added, Coverage, LatencyTable, RowChange, Watched};
