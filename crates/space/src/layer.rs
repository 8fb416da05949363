//! Concrete layers: their operators and inputs, the names and shapes of their weights, their latency keys.
//!
//! Channel rounding is defined here and used by the families.

use std::fmt;

use crate::feature_map::FeatureMap;
use crate::operators::{Maps, Operator};
use crate::value::Ratio;
use crate::weight::WeightSpec;

/// Rounds `value` to a multiple of `divisor` without losing more than a tenth of it (MobileNet's rule).
pub fn make_divisible(value: f64, divisor: usize) -> usize {
    let rounded = ((value + divisor as f64 / 2.0) / divisor as f64).floor() as usize * divisor;
    let rounded = rounded.max(divisor);
    if (rounded as f64) < 0.9 * value { rounded + divisor } else { rounded }
}

/// Inner channels of a block, given the channels that its expand ratio multiplies.
pub(crate) fn inner_channels(expand: Ratio, channels: usize) -> usize {
    make_divisible(expand.of(channels) as f64, 8)
}

/// One concrete layer: sizes, strides, channels, and which layers it reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerSpec {
    /// Prefix of its weights' names in a static network, such as `blocks.3`; blocks are numbered by position.
    pub name: String,
    /// Its number in the largest network of the space, where layers are numbered (blocks, the stem's convolutions).
    pub slot: Option<usize>,
    /// Operator.
    pub operator: Operator,
    /// First input.
    pub input: FeatureMap,
    /// Output.
    pub output: FeatureMap,
    /// The index of the layer that makes each of its inputs, in order; `None` is the network's input. Never empty.
    pub inputs: Vec<Option<usize>>,
}

impl LayerSpec {
    /// Prefix of its weights' names in the supernet.
    pub fn shared_name(&self) -> String {
        match (self.slot, self.name.rsplit_once('.')) {
            (Some(slot), Some((list, _))) => format!("{list}.{slot}"),
            _ => self.name.clone(),
        }
    }

    pub(crate) fn maps(&self) -> Maps {
        Maps { input: self.input, output: self.output }
    }

    /// Its trainable weights, in forward order, under [`LayerSpec::name`].
    pub fn weights(&self) -> Vec<WeightSpec> {
        let mut weights = self.operator.weights(self.maps());
        for weight in &mut weights {
            weight.name = format!("{}.{}", self.name, weight.name);
        }
        weights
    }

    /// The layer alone: each of its inputs is the network's.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { inputs: vec![None; self.inputs.len()], ..self.clone() }
    }

    /// Channels inside the squeeze-and-excite of a block with `mid` inner channels.
    pub fn squeeze_of(mid: usize) -> usize {
        make_divisible((mid / 4) as f64, 8)
    }

    /// Key of its latency: everything that decides how long it takes, and nothing else.
    pub fn key(&self) -> String {
        self.to_string()
    }
}

/// The key: `mbconv k5 s2 24-96-40 relu se24 skip @56x56`.
impl fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @{}x{}", self.operator.key(self.maps()), self.input.height, self.input.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn make_divisible_as_mobilenet() {
        let table = [
            (19.2, 24),
            (28.8, 32),
            (134.4, 136),
            (1152.0, 1152),
            (3.0, 8),
            (4.0, 8),
            (12.0, 16),
            (36.0, 40),
        ];
        for (value, expected) in table {
            assert_eq!(make_divisible(value, 8), expected, "{value}");
        }
    }
}
