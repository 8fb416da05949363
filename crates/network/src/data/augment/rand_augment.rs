//! RandAugment (Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space"): random
//! operations on the pixels of a training image.
//!
//! The fourteen operations, their ranges and the 31 magnitudes are those of `torchvision.transforms.RandAugment`. Knows
//! nothing of crops and normalization.

mod picture;
#[cfg(test)]
mod tests;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use space::Extent;

use self::picture::{Axis, Picture};

/// Number and magnitude of the operations on each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandAugment {
    /// Operations in a row, each drawn anew.
    pub operations: usize,
    /// Magnitude of all operations, 0 to [`RandAugment::MOST_MAGNITUDE`].
    pub magnitude: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Identity,
    Shear(Axis),
    Translate(Axis),
    Rotate,
    Brightness,
    Color,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

const OPERATIONS: [Operation; 14] = [
    Operation::Identity,
    Operation::Shear(Axis::X),
    Operation::Shear(Axis::Y),
    Operation::Translate(Axis::X),
    Operation::Translate(Axis::Y),
    Operation::Rotate,
    Operation::Brightness,
    Operation::Color,
    Operation::Contrast,
    Operation::Sharpness,
    Operation::Posterize,
    Operation::Solarize,
    Operation::AutoContrast,
    Operation::Equalize,
];

impl RandAugment {
    /// The greatest magnitude, at which each operation is at the end of its range.
    pub const MOST_MAGNITUDE: u32 = 30;

    /// Applies random operations to pixel values of 0 to 255, which become whole numbers.
    ///
    /// # Shapes
    /// `planes` [C, rows, columns] of the extent.
    pub(super) fn apply(self, planes: &mut [f32], extent: Extent, rng: &mut ChaCha8Rng) {
        let mut picture = Picture::of(planes, extent);
        for _ in 0..self.operations {
            let operation = OPERATIONS[rng.random_range(0..OPERATIONS.len())];
            let magnitude = operation.magnitude(self.magnitude, extent);
            let turned = operation.is_signed() && rng.random_bool(0.5);
            operation.apply(&mut picture, if turned { -magnitude } else { magnitude });
        }
        picture.write(planes);
    }
}

impl Operation {
    /// The operation's own magnitude at a magnitude of RandAugment: a slope, pixels, degrees, the change of a factor, bits, or
    /// a pixel value.
    fn magnitude(self, of_all: u32, extent: Extent) -> f64 {
        let part = f64::from(of_all) / f64::from(RandAugment::MOST_MAGNITUDE);
        match self {
            Self::Identity | Self::AutoContrast | Self::Equalize => 0.0,
            Self::Shear(_) => 0.3 * part,
            Self::Translate(Axis::X) => 150.0 / 331.0 * extent.width as f64 * part,
            Self::Translate(Axis::Y) => 150.0 / 331.0 * extent.height as f64 * part,
            Self::Rotate => 30.0 * part,
            Self::Brightness | Self::Color | Self::Contrast | Self::Sharpness => 0.9 * part,
            Self::Posterize => 8.0 - (4.0 * part).round(),
            Self::Solarize => 255.0 * (1.0 - part),
        }
    }

    /// Whether the magnitude is negative for half of the images.
    fn is_signed(self) -> bool {
        match self {
            Self::Shear(_) | Self::Translate(_) | Self::Rotate => true,
            Self::Brightness | Self::Color | Self::Contrast | Self::Sharpness => true,
            Self::Identity | Self::Posterize | Self::Solarize | Self::AutoContrast | Self::Equalize => false,
        }
    }

    fn apply(self, picture: &mut Picture, magnitude: f64) {
        match self {
            Self::Identity => {}
            Self::Shear(axis) => picture.shear(axis, magnitude),
            Self::Translate(axis) => picture.translate(axis, magnitude.trunc()),
            Self::Rotate => picture.rotate(magnitude),
            Self::Brightness => picture.brighten(1.0 + magnitude),
            Self::Color => picture.saturate(1.0 + magnitude),
            Self::Contrast => picture.contrast(1.0 + magnitude),
            Self::Sharpness => picture.sharpen(1.0 + magnitude),
            Self::Posterize => picture.posterize(magnitude as u32),
            Self::Solarize => picture.solarize(magnitude),
            Self::AutoContrast => picture.stretch(),
            Self::Equalize => picture.equalize(),
        }
    }
}
