//! A network's latency on a device: measured layer by layer, stored in a table, summed, and corrected by measurements of
//! whole sub-networks.
//!
//! [`MeasurePlan`] says what is to be measured, [`run_plan`] measures it into rows; what becomes of rows is the business of the
//! crate `latency`, all of which is here too: [`LatencyTable::from_rows`] folds them into a table, and a [`LatencyModel`] is
//! what the table says of one space. [`measure_space`] is all of that at once.

mod campaign;
mod candidates;
mod clock;
mod compare;
pub mod engine;
pub mod measure;
mod native;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod plan_file;
mod sentinel;
mod timer;
mod weights;
mod whole_space;

pub use latency::{
    Added, Between, Conditions, Coverage, DeviceFacts, EngineFacts, Folded, Latency, LatencyKind,
    LatencyModel, LatencyTable, LatencyValidation, Measurement, NetworkRow, Record, Row, RowChange, Rows,
    RowsLog, Samples, SearchedRow, Session, SessionFacts, SessionFold, Setting, SpaceFit, Subject,
    ValidationTypical, Visit, Watched,
};
pub use latency::{correction, facts, fitted, fold, row, rows, table, undisturbed};

pub use campaign::{Campaign, MeasureContext, run_plan};
pub use candidates::stratified;
pub use clock::{EventStopwatch, MonotonicStopwatch, stopwatch_of};
pub use compare::{Compared, Comparison, compare, measure_network};
pub use engine::{Engine, RunTimer};
pub use measure::{Instruments, MeasureConfig, MeasureTask, Measured, Progress, Subjects, measure};
pub use native::NativeEngine;
#[cfg(feature = "onnxruntime")]
pub use onnxruntime::OnnxRuntimeEngine;
pub use plan_file::{MeasurePlan, NetworkLayer, PlannedLayer};
pub use sentinel::{GPU_SENTINEL, SENTINEL, Sentinel};
pub use whole_space::{NETWORKS, measure_space};
