//! Chooses a sub-network of a once-for-all supernet for a device, and exports it: latency tables, accuracy
//! estimators, search, verified export.
//!
//! Reads files and returns values; knows nothing of how the weights were trained.
//!
//! ```no_run
//! use std::path::Path;
//! use extract::{AccuracyEstimator, Backend, Classifier, Dataset, Evaluator, FitConfig, LATENCY, Limits, MeasureConfig};
//! use extract::{NativeEngine, NormStatistics, Request, Supernet, accuracy_file, export, find_best, measure_space};
//!
//! # fn main() -> extract::Result<()> {
//! let dataset = Dataset::open("digits")?;
//! let backend = Backend::detect();
//! let supernet = Supernet::read(Path::new("run/supernet.safetensors"))?;
//! let rows = accuracy_file::read(Path::new("accuracy.jsonl"))?;
//! let estimator = AccuracyEstimator::fit(&rows, &FitConfig::default())?;
//! let table = measure_space(&supernet.space, &NativeEngine::new(&backend, 1, 1), &MeasureConfig::default())?;
//! let evaluator = Evaluator::new(&supernet, &dataset, &backend);
//! let best = find_best(&table, &Limits::on(LATENCY, 150.0), &estimator, &evaluator)?.report.best; // microseconds
//! let request = Request::new(&supernet, &best.arch, NormStatistics::calibrated(&dataset));
//! export(&request, Path::new("model"))?; // proved equal to the supernet's sub-network
//! let classifier = Classifier::load(Path::new("model"), &backend)?;
//! let logits = classifier.logits(Path::new("photo.png"))?;
//! # Ok(()) }
//! ```

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
pub mod study_report;

pub use error::{Error, Result};

// what is needed first
pub use self::latency::{LatencyTable, MeasureConfig, NativeEngine, measure_network, measure_space};
pub use self::search::{Found, LATENCY, Limits, ValidatedSearch, find_best};
pub use accuracy::{AccuracyEstimator, FitConfig};
pub use base::ErrorKind;
pub use export::{Exported, NormStatistics, Request, export, verify};
pub use kernels::Backend;
pub use network::accuracy_file;
pub use network::checkpoint::Supernet;
pub use network::data::{Dataset, Split};
pub use network::eval::Evaluator;
pub use network::model_folder::ModelFolder;
pub use predict::Classifier;
