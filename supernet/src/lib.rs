//! Trains a once-for-all network: one set of weights that serves every sub-network of a search space.

pub mod accuracy_file;
pub mod error;
pub mod space;

pub use error::{Error, Result};
