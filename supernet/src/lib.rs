//! Trains a once-for-all network: one set of weights that serves every sub-network of a search space.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod bench;
pub mod error;
pub mod train;

pub use error::{Error, Result};
// what this crate's functions take and give
pub use kernels;
pub use network;
pub use space;
