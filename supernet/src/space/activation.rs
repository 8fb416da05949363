//! The activations of the field, by name and formula.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What follows a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The identity.
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * relu6(x + 3) / 6` (Howard et al. 2019).
    HSwish,
    /// `relu6(x + 3) / 6`.
    HSigmoid,
}

impl Activation {
    /// The activation of `z`.
    #[inline(always)]
    pub fn apply(self, z: f32) -> f32 {
        match self {
            Self::None => z,
            Self::Relu => z.max(0.0),
            Self::Relu6 => z.clamp(0.0, 6.0),
            Self::HSwish => z * ((z + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0)),
            Self::HSigmoid => (z + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0),
        }
    }

    /// Its derivative at `z`; at the kinks what PyTorch takes.
    #[inline(always)]
    pub fn derivative(self, z: f32) -> f32 {
        let inside = |low: f32, high: f32, value: f32| if z > low && z < high { value } else { 0.0 };
        match self {
            Self::None => 1.0,
            Self::Relu => inside(0.0, f32::INFINITY, 1.0),
            Self::Relu6 => inside(0.0, 6.0, 1.0),
            Self::HSwish if z < -3.0 => 0.0,
            Self::HSwish if z <= 3.0 => z / 3.0 + 0.5,
            Self::HSwish => 1.0,
            Self::HSigmoid => inside(-3.0, 3.0, 1.0 / 6.0),
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::HSwish => "h_swish",
            Self::HSigmoid => "h_sigmoid",
        })
    }
}
