//! Channels inside an operator whose order is free: whatever it is, the operator computes the same.

/// Channels that can change places: so the most important can be moved to the front, which smaller networks keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeChannels {
    /// How many there are.
    pub count: usize,
    /// The weight that reads them as its inputs, `[O, I, …]`: the L1 norm of what it has for each is the channel's importance
    /// (Cai et al. 2020).
    pub read_by: &'static str,
    /// The weights that have a value for each, and in which dimension, that one among them.
    pub members: Vec<(&'static str, usize)>,
}
