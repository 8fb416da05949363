//! The formats of PyTorch's `ofa` package (Cai et al. 2020): its latency tables, read and written
//! as ours, and its accuracy predictors, read as estimators.

pub mod exchange;
mod key;
mod predictor;
mod predictor_file;
pub mod table;

pub use predictor::PredictorFile;
