//! Activations and their derivatives on vectors.
//!
//! Each activation is a type, so that a kernel's inner loop is compiled for its activation and holds no branch.

use super::simd::Lanes;

/// An activation known at compile time.
pub(super) trait Apply {
    /// The activation of `z`.
    fn apply<T: Lanes>(z: T) -> T;
    /// The derivative at `z`.
    fn derivative<T: Lanes>(z: T) -> T;
}

/// Evaluates `$body` with the type `$name` standing for the activation `$activation`.
macro_rules! with_activation {
    ($activation:expr, $name:ident => $body:expr) => {
        match $activation {
            $crate::cpu::Activation::None => {
                type $name = $crate::cpu::activation::Identity;
                $body
            }
            $crate::cpu::Activation::Relu => {
                type $name = $crate::cpu::activation::Relu;
                $body
            }
            $crate::cpu::Activation::Relu6 => {
                type $name = $crate::cpu::activation::Relu6;
                $body
            }
            $crate::cpu::Activation::HSwish => {
                type $name = $crate::cpu::activation::HSwish;
                $body
            }
            $crate::cpu::Activation::HSigmoid => {
                type $name = $crate::cpu::activation::HSigmoid;
                $body
            }
        }
    };
}
pub(super) use with_activation;

/// `z`.
pub(super) struct Identity;
/// `max(z, 0)`.
pub(super) struct Relu;
/// `min(max(z, 0), 6)`.
pub(super) struct Relu6;
/// `z * relu6(z + 3) / 6`.
pub(super) struct HSwish;
/// `relu6(z + 3) / 6`.
pub(super) struct HSigmoid;

/// `value` strictly between the bounds, 0 elsewhere.
#[inline(always)]
fn between<T: Lanes>(z: T, low: f32, high: f32, value: f32) -> T {
    let below_high = T::splat(high).if_above(z, T::splat(value), T::splat(0.0));
    z.if_above(T::splat(low), below_high, T::splat(0.0))
}

impl Apply for Identity {
    #[inline(always)]
    fn apply<T: Lanes>(z: T) -> T {
        z
    }
    #[inline(always)]
    fn derivative<T: Lanes>(_: T) -> T {
        T::splat(1.0)
    }
}

impl Apply for Relu {
    #[inline(always)]
    fn apply<T: Lanes>(z: T) -> T {
        z.at_least(T::splat(0.0))
    }
    #[inline(always)]
    fn derivative<T: Lanes>(z: T) -> T {
        z.if_above(T::splat(0.0), T::splat(1.0), T::splat(0.0))
    }
}

impl Apply for Relu6 {
    #[inline(always)]
    fn apply<T: Lanes>(z: T) -> T {
        z.at_least(T::splat(0.0)).at_most(T::splat(6.0))
    }
    #[inline(always)]
    fn derivative<T: Lanes>(z: T) -> T {
        between(z, 0.0, 6.0, 1.0)
    }
}

impl Apply for HSwish {
    #[inline(always)]
    fn apply<T: Lanes>(z: T) -> T {
        z.mul(HSigmoid::apply(z))
    }
    #[inline(always)]
    fn derivative<T: Lanes>(z: T) -> T {
        let middle = z.mul_add(T::splat(1.0 / 3.0), T::splat(0.5));
        let up_to_3 = z.if_above(T::splat(3.0), T::splat(1.0), middle);
        T::splat(-3.0).if_above(z, T::splat(0.0), up_to_3)
    }
}

impl Apply for HSigmoid {
    #[inline(always)]
    fn apply<T: Lanes>(z: T) -> T {
        // relu6 before the division: at both ends the value is exactly 0 or 1.
        Relu6::apply(z.add(T::splat(3.0))).mul(T::splat(1.0 / 6.0))
    }
    #[inline(always)]
    fn derivative<T: Lanes>(z: T) -> T {
        between(z, -3.0, 3.0, 1.0 / 6.0)
    }
}
