//! The maths of static layers, forward and backward, on tensors.
//!
//! A layer asks its [`Source`] for "name, shape" and never learns whose weights they are: views of a
//! supernet, a file, or random values. It knows no list of choices and no maximum size. Inside the network
//! activations are channel-major, `[C, N, H, W]`.
//!
//! The gradients of a network are a network too: the same layers, built from a source that answers with
//! gradients. `backward` adds into them in place.

mod batch_norm;
mod bottleneck;
mod chain;
mod conv;
mod folded;
mod footprint;
mod linear;
mod mbconv;
mod network;
mod pass;
mod source;
mod squeeze_excite;

pub use batch_norm::{BatchNorm, Statistics};
pub use bottleneck::Bottleneck;
pub use chain::{Excited, Inner};
pub use conv::{ConvNorm, Convolution, Dense, Pointwise};
pub use folded::FoldedNetwork;
pub use footprint::Footprint;
pub use linear::{FeatureMix, Linear};
pub use mbconv::MbConv;
pub use network::Network;
pub use pass::{Pass, Tape};
pub use source::{MapSource, Source, with_operands};
pub use squeeze_excite::SqueezeExcite;
