//! Trains a once-for-all network: one set of weights that serves every sub-network of a search space.

#![forbid(unsafe_code)]

pub mod accuracy_file;
#[cfg(feature = "train")]
pub mod agreement;
#[cfg(feature = "train")]
pub mod bench;
pub mod checkpoint;
pub mod data;
pub mod elastic;
pub mod error;
pub mod eval;
mod foreign;
pub mod model_folder;
pub mod nn;
pub mod pytorch;
pub mod tensor_file;
#[cfg(feature = "train")]
pub mod train;

pub use base::{document, file, machine, random, timing};
pub use error::{Error, Result};
pub use kernels;
pub use space;
