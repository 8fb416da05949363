//! The maths of static layers, forward and backward, on tensors.
//!
//! A layer requests weights of its [`Source`] by name and shape, and does not know their origin: views of a supernet, a
//! file, or random values. It knows no list of choices and no maximum size. Inside the network
//! activations are channel-major, `[C, N, H, W]`.
//!
//! Layers read one another ([`space::LayerSpec::inputs`]), and each is a file of its operator's name. A weight is a
//! `Parameter`: its values, its operand (read by matrix products), and the tensor that `backward` adds its gradient to.
//!
//! The gradient is explicit, a tape and a reverse list: candle's autograd is not used where the time goes.

mod batch_norm;
mod chain;
mod codes;
mod conv;
mod flow;
mod folded;
mod folding;
mod footprint;
mod graph;
mod layers;
mod linear;
mod network;
mod parameter;
mod pass;
mod source;
mod squeeze_excite;
#[cfg(test)]
pub(crate) mod testing;

pub use batch_norm::Statistics;
pub use codes::ActivationCodes;
pub use folded::FoldedNetwork;
pub use footprint::Footprint;
pub use network::Network;
pub use pass::{Pass, Tape};
pub use source::{MapSource, Source, operands};
