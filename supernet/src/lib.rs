//! Trains a once-for-all network: one set of weights that serves every sub-network of a search space.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use supernet::{Backend, Dataset, Evaluator, Recipe, SampleConfig, Split, preset, sample, sampler, train};
//!
//! # fn main() -> supernet::Result<()> {
//! let dataset = Arc::new(Dataset::open("digits")?);
//! let supernet = train(&preset("tiny")?, &dataset, &Recipe::progressive(), Path::new("run"), &mut ())?;
//! let evaluator = Evaluator::new(&supernet, &dataset, &Backend::detect());
//! let largest = evaluator.accuracy(&sampler::largest(&supernet.space), Split::Val)?;
//! let smallest = evaluator.accuracy(&sampler::smallest(&supernet.space), Split::Val)?;
//! assert!(largest.top1() > 0.9 && smallest.top1() > 0.9); // one set of weights
//! let rows = sample(&supernet, &dataset, &SampleConfig::default())?; // the input of an accuracy estimator
//! # Ok(()) }
//! ```
//!
//! A [`Trainer`] is a run that can be stopped, resumed and observed; [`train::FineTuner`] trains one exported network further.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod bench;
pub mod error;
mod sample;
pub mod train;
pub mod trial;

pub use error::{Error, Result};
// types in the signatures of this crate
pub use kernels;
pub use network;
pub use space;

// the most used types
pub use base::ErrorKind;
pub use kernels::Backend;
pub use network::checkpoint::Supernet;
pub use network::data::{Dataset, Split};
pub use network::eval::{Accuracy, Evaluator};
pub use sample::{SampleConfig, accuracy_row, drawn, sample};
pub use space::{Arch, SearchSpace, preset, sampler};
pub use train::{
    Observer, OnPhase, PlannedPhase, Recipe, RunFolder, RunOutcome, TrainConfig, Trainer, train,
};
