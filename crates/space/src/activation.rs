//! The activations of the search spaces, with their derivatives.
//!
//! Values one at a time, in plain Rust: the definition the vector kernels are tested against.

use std::fmt;

/// An elementwise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `z`.
    None,
    /// `max(z, 0)`.
    Relu,
    /// `min(max(z, 0), 6)`.
    Relu6,
    /// `z * relu6(z + 3) / 6` (MobileNetV3, section 5.2).
    HSwish,
    /// `relu6(z + 3) / 6` (MobileNetV3, section 5.2).
    HSigmoid,
}

impl Activation {
    /// All activations, in the order of the enum.
    pub const ALL: [Self; 5] = [Self::None, Self::Relu, Self::Relu6, Self::HSwish, Self::HSigmoid];

    /// The activation of `z`. A NaN stays one, so that a diverged training shows in its loss.
    pub fn apply(self, z: f32) -> f32 {
        match self {
            Self::None => z,
            Self::Relu if z < 0.0 => 0.0,
            Self::Relu => z,
            Self::Relu6 => z.clamp(0.0, 6.0),
            Self::HSwish => z * Self::HSigmoid.apply(z),
            Self::HSigmoid => (z + 3.0).clamp(0.0, 6.0) / 6.0,
        }
    }

    /// The derivative at `z`; at the kinks the values are PyTorch's.
    pub fn derivative(self, z: f32) -> f32 {
        let inside = |low: f32, high: f32| z > low && z < high;
        match self {
            Self::None => 1.0,
            Self::Relu => f32::from(z > 0.0),
            Self::Relu6 => f32::from(inside(0.0, 6.0)),
            Self::HSwish if z < -3.0 => 0.0,
            Self::HSwish if z <= 3.0 => z / 3.0 + 0.5,
            Self::HSwish => 1.0,
            Self::HSigmoid if inside(-3.0, 3.0) => 1.0 / 6.0,
            Self::HSigmoid => 0.0,
        }
    }

    /// The name in files and messages: `none`, `relu`, `relu6`, `h_swish`, `h_sigmoid`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::HSwish => "h_swish",
            Self::HSigmoid => "h_sigmoid",
        }
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Activation::{self, *};

    #[test]
    fn values_and_derivatives() {
        // (activation, z, value, derivative); the kinks are those of torch.nn.functional
        let table = [
            (None, -2.0, -2.0, 1.0),
            (Relu, -1.0, 0.0, 0.0),
            (Relu, 0.0, 0.0, 0.0),
            (Relu, 2.0, 2.0, 1.0),
            (Relu6, 0.0, 0.0, 0.0),
            (Relu6, 6.0, 6.0, 0.0),
            (Relu6, 5.0, 5.0, 1.0),
            (HSwish, -4.0, 0.0, 0.0),
            (HSwish, -3.0, 0.0, -0.5),
            (HSwish, 1.0, 4.0 / 6.0, 1.0 / 3.0 + 0.5),
            (HSwish, 3.0, 3.0, 1.5),
            (HSwish, 4.0, 4.0, 1.0),
            (HSigmoid, -3.0, 0.0, 0.0),
            (HSigmoid, 0.0, 0.5, 1.0 / 6.0),
            (HSigmoid, 3.0, 1.0, 0.0),
        ];
        for (activation, z, value, derivative) in table {
            assert!((activation.apply(z) - value).abs() < 1e-6, "{activation}({z})");
            assert!((activation.derivative(z) - derivative).abs() < 1e-6, "{activation}'({z})");
        }
    }

    #[test]
    fn derivatives_agree_with_differences() {
        for activation in Activation::ALL {
            for z in [-4.5f32, -2.5, -0.7, 0.4, 1.9, 3.7, 5.2, 6.8] {
                let step = 1e-2;
                let slope = (activation.apply(z + step) - activation.apply(z - step)) / (2.0 * step);
                assert!((slope - activation.derivative(z)).abs() < 1e-3, "{activation}'({z})");
            }
        }
    }

    #[test]
    fn a_nan_is_kept() {
        assert!(Activation::ALL.iter().all(|activation| activation.apply(f32::NAN).is_nan()));
    }

    #[test]
    fn serde_and_display_agree() {
        for activation in Activation::ALL {
            let written = serde_json::to_string(&activation).expect("a unit variant is always written");
            assert_eq!(written, format!("\"{activation}\""));
        }
    }
}
