//! Search spaces: their lists of choices, sub-networks by name, and layers.
//!
//! There is one list of choices, the [`Genome`], and every layer records which of them it depends on; [`SpaceIndex`] is
//! derived from that. Knows no tensor, no clock, and no randomness that is not passed in.

#![forbid(unsafe_code)]

mod activation;
mod arch;
pub mod arch_file;
mod builder;
mod cost;
mod encoder;
mod families;
mod feature_map;
pub mod genome;
mod index;
mod layer;
mod layer_key;
mod ofa;
mod operators;
mod preset;
pub mod sampler;
mod search_space;
mod trace;
mod value;
mod weight;

pub use activation::Activation;
pub use arch::Arch;
pub use builder::{Layer, MIXES, Mix, SlotName};
pub use cost::{Cost, cost};
pub use encoder::{Encoded, Encoder};
pub use families::{FamilyName, KINDS};
pub use feature_map::FeatureMap;
pub use genome::{
    ABSENT, Change, Dimension, End, Gene, GeneId, GeneRow, Genome, Group, Index, NodeGene, NodeRole, Step,
    Steps,
};
pub use index::{ChangesFrom, Elimination, Factored, Join, LayerId, Slot, SpaceIndex, Table};
pub use layer::{LayerSpec, make_divisible};
pub use operators::{Bottleneck, FreeChannels, MbConv, Operator, Separable, reduced_parts};
pub use preset::{open, preset, preset_names};
pub use search_space::{Mixture, RESOLUTION, SearchSpace};
pub use trace::Var;
pub use value::{Extent, Ratio, Readable, Value};
pub use weight::{Norm, Take, WeightRole, WeightSpec};
