//! Latency tables: rows of raw measurements, which of them count, sessions and their combination, corrections from
//! whole sub-networks, and predictions for the networks of a space. Knows neither engines nor networks with weights.

#![forbid(unsafe_code)]

pub mod correction;
pub mod facts;
pub mod fitted;
mod fold;
mod model;
pub mod row;
pub mod rows;
pub mod separate;
pub mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod undisturbed;

pub use facts::{Conditions, DeviceFacts, EngineFacts};
pub use fitted::{Between, LatencyValidation, NetworkRow, SearchedRow, SpaceFit, ValidationTypical};
pub use fold::{Folded, SessionFacts, SessionFold, fold};
pub use model::{Latency, LatencyKind, LatencyModel};
pub use row::{Measurement, Row};
pub use rows::{Record, Rows, RowsLog, Samples, Session, Setting, Subject, Visit};
pub use table::{Added, Coverage, LatencyTable, RowChange, Watched};
