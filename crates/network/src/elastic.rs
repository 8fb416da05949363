//! The owner of the weights: the supernet's shared tensors, and the slices of them that make a sub-network.
//!
//! The only module that narrows a weight.

mod kernel_transform;
mod reorder;
mod shared;
mod statistics;
mod subnet;
mod takes;
#[cfg(test)]
mod testing;

pub use reorder::sort_channels;
pub use shared::{Gradients, SharedWeights, fresh_classifier, shared_parts, shared_specs};
pub use statistics::statistics_to_tensors;
pub(crate) use statistics::{is_running, running_names, statistics_from_tensors};
pub use subnet::{SubnetGradients, SubnetWeights};
