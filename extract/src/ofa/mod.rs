//! The formats of PyTorch's `ofa` package (Cai et al. 2020): its latency tables, read and written as ours.

pub mod exchange;
mod key;
pub mod table;
