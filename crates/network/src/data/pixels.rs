//! The values of pixels: bytes, as images have them, or floats, as arrays of measurements do.

use serde::{Deserialize, Serialize};

/// Kind of the values of pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelKind {
    /// Whole numbers of 0 to 255, of which networks see the 255th part.
    #[default]
    Bytes,
    /// Numbers of any size, which networks see as they are.
    Floats,
}

impl PixelKind {
    /// Whether they are bytes, which older files do not state.
    pub fn is_bytes(&self) -> bool {
        *self == Self::Bytes
    }

    /// The value that a network sees as 1.
    pub(super) fn unit(self) -> f32 {
        match self {
            Self::Bytes => 255.0,
            Self::Floats => 1.0,
        }
    }
}

impl std::fmt::Display for PixelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Bytes => "images of 8 bits",
            Self::Floats => "arrays of floats",
        })
    }
}

/// The values of some pixels, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pixels<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// Floats, all of them finite.
    Floats(&'a [f32]),
}

impl<'a> Pixels<'a> {
    /// The bytes; none where they are floats.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(values) => Some(values),
            Self::Floats(_) => None,
        }
    }

    /// The floats; none where they are bytes.
    pub fn floats(self) -> Option<&'a [f32]> {
        match self {
            Self::Bytes(_) => None,
            Self::Floats(values) => Some(values),
        }
    }

    /// Number of values.
    pub fn len(self) -> usize {
        match self {
            Self::Bytes(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Kind of the values.
    pub fn kind(self) -> PixelKind {
        match self {
            Self::Bytes(_) => PixelKind::Bytes,
            Self::Floats(_) => PixelKind::Floats,
        }
    }

    /// The `count` values from `start` on.
    pub(super) fn part(self, start: usize, count: usize) -> Self {
        match self {
            Self::Bytes(values) => Self::Bytes(&values[start..start + count]),
            Self::Floats(values) => Self::Floats(&values[start..start + count]),
        }
    }
}

/// Owned values of pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PixelBuffer {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl PixelBuffer {
    pub fn view(&self) -> Pixels<'_> {
        match self {
            Self::Bytes(values) => Pixels::Bytes(values),
            Self::Floats(values) => Pixels::Floats(values),
        }
    }

    /// The values at some places, `size` per place.
    pub fn gathered(&self, places: &[usize], size: usize) -> Self {
        fn of<T: Copy>(values: &[T], places: &[usize], size: usize) -> Vec<T> {
            let mut kept = Vec::with_capacity(places.len() * size);
            places.iter().for_each(|place| kept.extend_from_slice(&values[place * size..(place + 1) * size]));
            kept
        }
        match self {
            Self::Bytes(values) => Self::Bytes(of(values, places, size)),
            Self::Floats(values) => Self::Floats(of(values, places, size)),
        }
    }
}

/// A value that images are resized from.
pub(super) trait Pixel: Copy {
    /// The value.
    fn value(self) -> f32;
}

impl Pixel for u8 {
    fn value(self) -> f32 {
        f32::from(self)
    }
}

impl Pixel for f32 {
    fn value(self) -> f32 {
        self
    }
}
