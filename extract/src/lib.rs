//! Chooses a sub-network of a once-for-all supernet for a device, and exports it: latency tables, accuracy
//! estimators, search, verified export.
//!
//! Reads files and returns values; knows nothing of how the weights were trained.

#![forbid(unsafe_code)]

pub mod accuracy;
pub mod error;
pub mod export;
pub mod latency;
pub mod ofa;
pub mod onnx;
pub mod plot;
pub mod predict;
pub mod report;
mod rng;
pub mod search;

pub use error::{Error, Result};
