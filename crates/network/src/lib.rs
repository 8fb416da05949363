//! A network with weights: its layers forward and backward, the shared weights that sub-networks are views of, its data
//! sets, its files, and its evaluation. Knows nothing of training and search.

#![forbid(unsafe_code)]

pub mod accuracy_file;
pub mod arena;
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

pub use error::{Error, Result};
