//! Parameters of strategies by name, as a command line or a file has them.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Most members, rows of a batch and the like.
const MOST: usize = 1_000_000;

/// A parameter of a strategy.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its value where none is given.
    pub default: &'static str,
    /// What it decides.
    pub what: &'static str,
}

/// Values of a strategy's parameters; those that are not given have their defaults.
#[derive(Clone, Debug)]
pub struct Parameters {
    strategy: &'static str,
    known: &'static [Parameter],
    given: BTreeMap<String, String>,
}

impl Parameters {
    /// The given values of a strategy's parameters.
    ///
    /// # Errors
    /// If the strategy has no parameter of a name.
    pub(super) fn new(
        strategy: &'static str,
        known: &'static [Parameter],
        given: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let unknown = given.iter().find(|(name, _)| known.iter().all(|one| one.name != name.as_str()));
        if let Some((name, value)) = unknown {
            let names: Vec<&str> = known.iter().map(|one| one.name).collect();
            let expected = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            let got = format!("{name}={value}");
            return Err(base::Error::invalid(place(strategy), "parameters", expected, got).into());
        }
        Ok(Self { strategy, known, given: given.clone() })
    }

    /// The text of a parameter.
    ///
    /// # Panics
    /// If the strategy has no such parameter.
    pub(super) fn text(&self, name: &str) -> &str {
        let default = || self.known.iter().find(|one| one.name == name).expect("a parameter").default;
        self.given.get(name).map_or_else(default, String::as_str)
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str, holds: impl Fn(&T) -> bool) -> Result<T> {
        let text = self.text(name);
        text.parse().ok().filter(holds).ok_or_else(|| self.refused(name, expected, text))
    }

    /// The error for a parameter.
    pub(super) fn refused(&self, name: &str, expected: &str, got: &str) -> Error {
        base::Error::invalid(place(self.strategy), name, expected, got).into()
    }

    /// A whole number from 1 to a million.
    pub(super) fn count(&self, name: &str) -> Result<usize> {
        self.parsed(name, "a whole number from 1 to 1000000", |count| (1..=MOST).contains(count))
    }

    /// A whole number, at least 1, or `none`.
    pub(super) fn count_or_none(&self, name: &str) -> Result<Option<usize>> {
        match self.text(name) {
            "none" => Ok(None),
            _ => self.parsed(name, "a whole number, at least 1, or none", |count| *count > 0).map(Some),
        }
    }

    /// A share from 0 to 1.
    pub(super) fn share(&self, name: &str) -> Result<f64> {
        self.parsed(name, "a share from 0 to 1", |share| (0.0..=1.0).contains(share))
    }

    /// A number above 0.
    pub(super) fn positive(&self, name: &str) -> Result<f64> {
        self.parsed(name, "a number above 0", |number: &f64| number.is_finite() && *number > 0.0)
    }

    /// A number, at least 0.
    pub(super) fn weight(&self, name: &str) -> Result<f64> {
        self.parsed(name, "a number, at least 0", |weight: &f64| weight.is_finite() && *weight >= 0.0)
    }

    /// One of several words.
    pub(super) fn word(&self, name: &str, words: &[&'static str]) -> Result<&'static str> {
        let text = self.text(name);
        let found = words.iter().find(|word| **word == text);
        found.copied().ok_or_else(|| self.refused(name, &words.join(" or "), text))
    }
}

fn place(strategy: &str) -> String {
    format!("strategy {strategy}")
}
