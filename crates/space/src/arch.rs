//! A sub-network by its name: ordered, hashable, with one canonical text.
//!
//! It is a text with an order, not a row with its space: measured rows, tables and plans hold sub-networks of several
//! spaces, some of which a reader does not have. Only a space interprets the text.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::value::Extent;

/// One sub-network: the resolution of its input, and its choices as text.
///
/// The text names the resolution, then the choices as the space's family writes them: `r28:k3e4,k5e6/k7e3,k3e3`, or
/// `r224:w0.8:/w1:k3e1/w0.65:k3e0.2,k3e0.35` where widths are elastic. Equal sub-networks have equal texts, so texts stand
/// in files of all kinds, next to sub-networks of other spaces, known to the reader or not. [`SearchSpace::row`]
/// interprets a text and checks that it lies in a space.
///
/// [`SearchSpace::row`]: crate::SearchSpace::row
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Arch {
    /// Height and width of the input, in pixels (or whatever its rows and columns are).
    pub resolution: Extent,
    choices: Arc<str>,
}

impl Arch {
    pub(crate) fn new(resolution: Extent, choices: String) -> Self {
        Self { resolution, choices: choices.into() }
    }

    /// The sub-network at another input resolution.
    #[must_use]
    pub fn at(&self, resolution: impl Into<Extent>) -> Self {
        Self { resolution: resolution.into(), choices: self.choices.clone() }
    }

    /// The choices besides the resolution.
    pub fn choices(&self) -> &str {
        &self.choices
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}:{}", self.resolution, self.choices)
    }
}

impl fmt::Debug for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// By resolution, then part by part: `/` separates parts, the choices of a part as a whole end with `:` and are
/// compared after all parts, and commas separate items. A part that is the beginning of another comes first; numbers
/// are compared as numbers.
impl Ord for Arch {
    fn cmp(&self, other: &Self) -> Ordering {
        self.resolution
            .cmp(&other.resolution)
            .then_with(|| compare_parts(&self.choices, &other.choices, items))
            .then_with(|| compare_parts(&self.choices, &other.choices, of_whole))
            .then_with(|| self.choices.cmp(&other.choices))
    }
}

impl PartialOrd for Arch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The items of a part.
fn items(part: &str) -> &str {
    part.split_once(':').map_or(part, |(_, items)| items)
}

/// The choices of a part as a whole.
fn of_whole(part: &str) -> &str {
    part.split_once(':').map_or("", |(whole, _)| whole)
}

fn compare_parts(a: &str, b: &str, of: fn(&str) -> &str) -> Ordering {
    let words = |text| -> Vec<Vec<Word>> {
        str::split(text, '/').map(|part| of(part).split(',').flat_map(words_of).collect()).collect()
    };
    words(a).partial_cmp(&words(b)).unwrap_or(Ordering::Equal)
}

/// A run of characters of a name: a number, or anything else.
#[derive(Debug, PartialEq, PartialOrd)]
enum Word<'a> {
    Number(f64),
    Text(&'a str),
}

fn is_numeric(character: char) -> bool {
    character.is_ascii_digit() || character == '.'
}

fn words_of(item: &str) -> Vec<Word<'_>> {
    runs(item).into_iter().map(word_of).collect()
}

fn word_of(run: &str) -> Word<'_> {
    match run.parse() {
        Ok(number) if run.starts_with(is_numeric) => Word::Number(number),
        _ => Word::Text(run),
    }
}

/// Runs of digits and points, and the text between them.
fn runs(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let numeric = is_numeric(first);
        let end = rest.find(|character| is_numeric(character) != numeric).unwrap_or(rest.len());
        runs.push(&rest[..end]);
        rest = &rest[end..];
    }
    runs
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |field: &str, got: &str| {
            Error::invalid("arch", field, "text like r28:k3e4,k5e6/k7e3", format!("`{got}`"))
        };
        let (resolution, choices) = text
            .strip_prefix('r')
            .and_then(|rest| rest.split_once(':'))
            .ok_or_else(|| wrong("text", text))?;
        let resolution = resolution.parse().map_err(|_| wrong("resolution", resolution))?;
        if choices.is_empty() || !choices.chars().all(|character| character.is_ascii_graphic()) {
            return Err(wrong("choices", choices));
        }
        // numbers as they are printed, so that equal sub-networks have equal texts
        Ok(Self::new(
            resolution,
            runs(choices)
                .into_iter()
                .map(|run: &str| match run.parse::<f64>() {
                    Ok(number) if run.starts_with(is_numeric) => number.to_string(),
                    _ => run.to_string(),
                })
                .collect(),
        ))
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch(text: &str) -> Arch {
        text.parse().expect(text)
    }

    #[test]
    fn text_round_trips_and_numbers_have_one_form() {
        for text in
            ["r28:k3e4,k5e6/k7e3,k3e3", "r224:k3e0.35", "r40x101:k5e6/k3e4/k7e3", "r32:w0.8:/w1:k3e0.2,k3e1"]
        {
            assert_eq!(arch(text).to_string(), text);
            let json = serde_json::to_string(&arch(text)).expect("an arch is plain text");
            assert_eq!(serde_json::from_str::<Arch>(&json).expect("what was written"), arch(text));
        }
        assert_eq!(arch("r28x28:k03e4.0/k3e0.350").to_string(), "r28:k3e4/k3e0.35");
        for text in ["", "r28", "28:k3e3", "r28:", "rx:k3e3", "r28:k3 e3", "r28:k3e3\n"] {
            assert!(text.parse::<Arch>().is_err(), "{text}");
        }
    }

    #[test]
    fn order_is_by_resolution_then_blocks_then_widths() {
        let rising = [
            "r8:k3e3/k3e3",
            "r8:k3e3,k3e3/k3e3",
            "r8:k3e4/k3e3",
            "r8:k5e3/k3e3",
            "r12:k3e3/k3e3",
            "r112:w1:/w0.65:k3e3",
            "r112:k3e3",
            "r112:w0.65:k3e3/w1:k3e3",
            "r112:w0.8:k3e3/w0.65:k3e3",
        ];
        let mut sorted: Vec<Arch> = rising.iter().rev().map(|text| arch(text)).collect();
        sorted.sort();
        assert_eq!(sorted, rising.map(arch));
    }
}
