//! Channels inside an operator whose order is free: the operator's result does not depend on it.

/// Channels whose order is free, so that the most important can be moved to the front, which smaller networks keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeChannels {
    /// Number of channels.
    pub count: usize,
    /// The weight that reads them as its inputs, `[O, I, …]`: the L1 norm over each is the channel's importance (Cai et
    /// al. 2020).
    pub read_by: &'static str,
    /// All weights with values for each channel, including `read_by`, and the dimension of the channels.
    pub members: Vec<(&'static str, usize)>,
}
