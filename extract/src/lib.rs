//! Chooses a sub-network of a once-for-all supernet for a device: latency tables, accuracy estimators, search.
//!
//! Reads files and returns values; knows nothing of how the weights were trained.

pub mod accuracy;
pub mod encode;
pub mod error;
mod file;
pub mod latency;
mod rng;
pub mod search;

pub use error::{Error, Result};
