//! Trains a once-for-all network: one set of weights that serves every sub-network of a search space.

pub mod accuracy_file;
#[cfg(feature = "train")]
pub mod agreement;
#[cfg(feature = "train")]
pub mod bench;
pub mod checkpoint;
pub mod data;
pub mod document;
pub mod elastic;
pub mod error;
pub mod eval;
pub mod file;
mod foreign;
pub mod kernels;
pub mod machine;
pub mod model_folder;
pub mod nn;
pub mod pytorch;
pub mod random;
pub mod space;
pub mod tensor_file;
pub mod timing;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
