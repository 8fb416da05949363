//! The values of choices: counts, ratios, names and extents.

use std::fmt;
use std::str::FromStr;

use base::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An expand ratio or a width multiplier, in hundredths (`Ratio::whole(6)` is 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio(u32);

impl Ratio {
    /// A ratio that is a whole number.
    pub const fn whole(ratio: u32) -> Self {
        Self(ratio * 100)
    }

    /// A ratio in hundredths: 35 is 0.35.
    pub const fn hundredths(hundredths: u32) -> Self {
        Self(hundredths)
    }

    /// The ratio as a number.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// `channels` times the ratio, rounded half to even as Python's `round` does.
    pub fn of(self, channels: usize) -> usize {
        let product = channels * self.0 as usize;
        let whole = product / 100;
        let rest = product % 100;
        if rest > 50 || (rest == 50 && whole % 2 == 1) { whole + 1 } else { whole }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ratio())
    }
}

impl FromStr for Ratio {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid("ratio", "value", "a number above 0 in hundredths", text);
        let ratio: f64 = text.parse().map_err(|_| wrong())?;
        let hundredths = (ratio * 100.0).round();
        if !(1.0..=10_000.0).contains(&hundredths) || (ratio * 100.0 - hundredths).abs() > 1e-6 {
            return Err(wrong());
        }
        Ok(Self(hundredths as u32))
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            serializer.serialize_u32(self.0 / 100)
        } else {
            serializer.serialize_f64(self.ratio())
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ratio = f64::deserialize(deserializer)?;
        ratio.to_string().parse().map_err(serde::de::Error::custom)
    }
}

/// Height and width of a map or an input, in pixels (or other units of its rows and columns).
///
/// A square is written as its side, `28`, anything else as `40x101`, height first; in files a square is a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Extent {
    /// As many rows as columns.
    pub const fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }

    /// A single place, as after pooling.
    pub const ONE: Self = Self::square(1);

    /// Number of places.
    pub fn plane(self) -> usize {
        self.height * self.width
    }

    /// The extent after a convolution with padding `kernel / 2`: both sides divided by the stride, rounded up.
    #[must_use]
    pub fn through(self, stride: usize) -> Self {
        Self { height: self.height.div_ceil(stride), width: self.width.div_ceil(stride) }
    }
}

/// A square of this side.
impl From<usize> for Extent {
    fn from(side: usize) -> Self {
        Self::square(side)
    }
}

/// Equal to a number if it is the square of that side.
impl PartialEq<usize> for Extent {
    fn eq(&self, side: &usize) -> bool {
        *self == Self::square(*side)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.height == self.width {
            write!(f, "{}", self.height)
        } else {
            write!(f, "{}x{}", self.height, self.width)
        }
    }
}

impl FromStr for Extent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expected = "a side such as 28, or HEIGHTxWIDTH";
        let side = |side: &str| side.parse().map_err(|_| Error::invalid("extent", "value", expected, text));
        match text.split_once('x') {
            None => side(text).map(Self::square),
            Some((height, width)) => Ok(Self { height: side(height)?, width: side(width)? }),
        }
    }
}

impl Serialize for Extent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.height == self.width {
            serializer.serialize_u64(self.height as u64)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Extent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("usize, or text such as \"40x101\"")
            }

            fn visit_u64<E: serde::de::Error>(self, side: u64) -> Result<Extent, E> {
                usize::try_from(side)
                    .map(Extent::square)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(side), &self))
            }

            fn visit_i64<E: serde::de::Error>(self, side: i64) -> Result<Extent, E> {
                usize::try_from(side)
                    .map(Extent::square)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(side), &self))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Extent, E> {
                text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One value that a gene can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// A number of things, or a side: of blocks, of a kernel.
    Count(usize),
    /// A ratio.
    Ratio(Ratio),
    /// One of several that have no order: an operator.
    Name(&'static str),
    /// Height and width of the input.
    Extent(Extent),
}

impl Value {
    /// Whether values of this kind have an order, so that there are largest ones.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Self::Name(_))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Ratio(ratio) => ratio.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Extent(extent) => extent.fmt(f),
        }
    }
}

/// A type that converts to and from values of one kind.
pub trait Readable: Copy + PartialEq {
    /// Reads a value; `None` if it is of another kind.
    fn read(value: Value) -> Option<Self>;
    /// Makes the value.
    fn value(self) -> Value;
}

macro_rules! readable {
    ($($kind:ident: $of:ty),*) => {$(
        impl Readable for $of {
            fn read(value: Value) -> Option<Self> {
                if let Value::$kind(own) = value { Some(own) } else { None }
            }
            fn value(self) -> Value {
                Value::$kind(self)
            }
        }
    )*};
}
readable!(Count: usize, Ratio: Ratio, Name: &'static str, Extent: Extent);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expand_rounds_half_to_even() {
        assert_eq!(Ratio::hundredths(25).of(10), 2); // 2.5
        assert_eq!(Ratio::hundredths(35).of(10), 4); // 3.5
        assert_eq!(Ratio::whole(6).of(24), 144);
    }

    #[test]
    fn extents_are_written_as_a_side_or_as_both() {
        let wide = Extent { height: 40, width: 101 };
        for (extent, text, json) in [(Extent::square(28), "28", "28"), (wide, "40x101", "\"40x101\"")] {
            assert_eq!(extent.to_string(), text);
            assert_eq!(text.parse::<Extent>().expect("an extent"), extent);
            assert_eq!(serde_json::to_string(&extent).expect("plain"), json);
            assert_eq!(serde_json::from_str::<Extent>(json).expect("its own"), extent);
        }
        assert!(Extent::square(40) < wide && wide < Extent::square(41));
        for text in ["", "x", "4x", "x4", "-4", "4x4x4", "1e3"] {
            assert!(text.parse::<Extent>().is_err(), "{text}");
        }
        assert_eq!(wide.through(2), Extent { height: 20, width: 51 });
    }
}
