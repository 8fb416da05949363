//! What can be chosen: search spaces, sub-networks as values, and the one walk that turns them into layers.
//!
//! Knows no tensor, no clock, and no randomness that is not passed in.

#![forbid(unsafe_code)]

mod activation;
mod arch;
pub mod arch_file;
mod cost;
mod layer;
mod layer_key;
mod preset;
pub mod sampler;
mod search_space;
mod space_file;
mod walk;

pub use activation::Activation;
pub use arch::{Arch, Block, Ratio};
pub use cost::{Cost, cost};
pub use layer::{
    Bottleneck, FeatureMap, LayerSpec, MbConv, Operator, Place, WeightRole, WeightSpec, make_divisible,
};
pub use preset::{open, preset, preset_names};
pub use search_space::{Choices, Counts, Family, FirstBlock, Head, SearchSpace, Stage, Stem};
