//! Whose weights they are: the supernet's shared tensors, and the slices of them that make a sub-network.
//!
//! The only module that narrows a weight.

mod kernel_transform;
mod reorder;
mod shared;
mod subnet;

pub use reorder::{Nesting, sort_channels};
#[cfg(feature = "train")]
pub(crate) use shared::check_finite;
pub use shared::{Gradients, SharedWeights};
pub use subnet::{SubnetGradients, SubnetWeights};
