//! The base of the once-for-all toolkit: errors that say what to do, files that appear whole or not at all, JSON documents,
//! random streams, the one clock, and properties of the machine. Knows nothing of networks.

#![forbid(unsafe_code)]

pub mod document;
pub mod equations;
pub mod error;
pub mod file;
pub mod machine;
pub mod random;
pub mod rank;
pub mod statistics;
pub mod timing;

pub use error::{Error, ErrorKind, Result};
