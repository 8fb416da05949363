//! A sub-network as a value: ordered, hashable, with one canonical text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use base::error::{Error, Result};

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
        let (whole, rest) = (product / 100, product % 100);
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
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            serializer.serialize_u32(self.0 / 100)
        } else {
            serializer.serialize_f64(self.ratio())
        }
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ratio = f64::deserialize(deserializer)?;
        ratio.to_string().parse().map_err(serde::de::Error::custom)
    }
}

/// The choices of one block that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Side of the depthwise kernel.
    pub kernel: usize,
    /// Inner width over input width; in a bottleneck, over output width.
    pub expand: Ratio,
}

/// One sub-network: a resolution and, stage by stage, the blocks that exist.
///
/// A stage's depth is its number of blocks; choices of absent blocks are no part of the value, so equal
/// networks are equal values. Whether an `Arch` lies in a space is [`SearchSpace::check`]'s to say.
///
/// The canonical text names the resolution, then the stages: `r28:k3e4,k5e6/k7e3,k3e3`. Where a space is elastic in
/// the width of its stages, each begins with its multiplier: `r224:w0.8:/w1:k3e1/w0.65:k3e0.2,k3e0.35`; the first
/// stage there has no block.
///
/// [`SearchSpace::check`]: super::SearchSpace::check
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    /// Side of the square input image, in pixels.
    pub resolution: usize,
    /// The blocks of each stage, in order.
    pub stages: Vec<Vec<Block>>,
    /// The width multiplier of each stage; none at all where the space is not elastic in them.
    pub widths: Vec<Ratio>,
}

impl Arch {
    /// The same sub-network at another input resolution.
    #[must_use]
    pub fn at(&self, resolution: usize) -> Self {
        Self { resolution, ..self.clone() }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.resolution)?;
        for (index, stage) in self.stages.iter().enumerate() {
            f.write_str(if index == 0 { ":" } else { "/" })?;
            if let Some(width) = self.widths.get(index) {
                write!(f, "w{width}:")?;
            }
            for (position, block) in stage.iter().enumerate() {
                let comma = if position == 0 { "" } else { "," };
                write!(f, "{comma}k{}e{}", block.kernel, block.expand)?;
            }
        }
        Ok(())
    }
}

fn unreadable(field: &str, got: &str) -> Error {
    Error::invalid("arch", field, "text like r28:k3e4,k5e6/k7e3", format!("`{got}`"))
}

impl FromStr for Block {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || unreadable("block", text);
        let (kernel, expand) =
            text.strip_prefix('k').and_then(|rest| rest.split_once('e')).ok_or_else(wrong)?;
        Ok(Self {
            kernel: kernel.parse().map_err(|_| wrong())?,
            expand: expand.parse().map_err(|_| wrong())?,
        })
    }
}

/// The blocks of a stage; only one with a width may have none.
fn blocks_of(text: &str, may_be_empty: bool) -> Result<Vec<Block>> {
    if text.is_empty() && may_be_empty {
        return Ok(Vec::new());
    }
    text.split(',').map(Block::from_str).collect()
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (resolution, stages) = text
            .strip_prefix('r')
            .and_then(|rest| rest.split_once(':'))
            .ok_or_else(|| unreadable("text", text))?;
        let resolution = resolution.parse().map_err(|_| unreadable("resolution", resolution))?;
        let (mut blocks, mut widths) = (Vec::new(), Vec::new());
        for stage in stages.split('/') {
            let (width, list) =
                stage.split_once(':').map_or((None, stage), |(width, list)| (Some(width), list));
            if let Some(width) = width {
                let ratio = width.strip_prefix('w').ok_or_else(|| unreadable("width", width))?;
                widths.push(ratio.parse().map_err(|_| unreadable("width", width))?);
            }
            blocks.push(blocks_of(list, width.is_some())?);
        }
        if !widths.is_empty() && widths.len() != blocks.len() {
            return Err(unreadable("widths (of all stages or none)", text));
        }
        Ok(Self { resolution, stages: blocks, widths })
    }
}

impl Serialize for Arch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in
            ["r28:k3e4,k5e6/k7e3,k3e3", "r224:k3e0.35", "r8:k5e6/k3e4/k7e3", "r32:w0.8:/w1:k3e0.2,k3e1"]
        {
            let arch: Arch = text.parse().expect(text);
            assert_eq!(arch.to_string(), text);
            let json = serde_json::to_string(&arch).expect("an arch is plain text");
            assert_eq!(serde_json::from_str::<Arch>(&json).expect("what was written"), arch);
        }
    }

    #[test]
    fn broken_text_is_refused() {
        for text in
            ["", "r28", "28:k3e3", "r28:", "r28:k3", "r28:k3e3,", "r28:k3e-1", "r28:k3e3//k3e3", "rx:k3e3"]
        {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
        for text in
            ["r8:w1:k3e3/k3e3", "r8:k3e3/w1:k3e3", "r8:x1:k3e3", "r8:w:k3e3", "r8:w-1:k3e3", "r8:w1:,"]
        {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    #[test]
    fn expand_rounds_half_to_even() {
        assert_eq!(Ratio::hundredths(25).of(10), 2); // 2.5
        assert_eq!(Ratio::hundredths(35).of(10), 4); // 3.5
        assert_eq!(Ratio::whole(6).of(24), 144);
    }
}
