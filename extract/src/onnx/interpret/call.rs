//! One call of an operator: its inputs, its attributes with their defaults, and the room for its output.

use std::collections::BTreeMap;

use super::super::decoded::{Array, AttributeValue, elements, invalid};
use crate::error::{Error, Result};

/// The most values that may be alive at once, per value of the input: a wide layer on a grey image has some hundred.
const LIVE_PER_INPUT: usize = 1 << 16;

/// The most operations per value of the input, plus one for each weight: convolutions of maps that never grow take no
/// more.
const OPERATIONS_PER_INPUT: usize = 1 << 20;

/// Larger whole numbers in attributes are refused, so that no sum of sizes overflows.
const LARGEST_INT: i64 = 1 << 16;

/// The memory and time that are left. Both follow from the data that is there, so that a small file cannot request much.
pub(super) struct Limits {
    live: usize,
    operations: usize,
}

impl Limits {
    pub(super) fn new(input: usize, weights: usize) -> Self {
        Self {
            live: input.saturating_mul(LIVE_PER_INPUT),
            operations: input.saturating_mul(OPERATIONS_PER_INPUT.saturating_add(weights)),
        }
    }

    /// Gives back the room of values that nobody reads any more.
    pub(super) fn release(&mut self, values: usize) {
        self.live = self.live.saturating_add(values);
    }

    /// Takes room for values that take so many operations each.
    fn take(&mut self, values: usize, operations: usize) -> Option<()> {
        self.operations = self.operations.checked_sub(values.checked_mul(operations)?)?;
        self.live = self.live.checked_sub(values)?;
        Some(())
    }
}

/// A node with the values that it reads.
pub(super) struct Call<'a> {
    place: String,
    attributes: &'a BTreeMap<String, AttributeValue>,
    inputs: Vec<Option<&'a Array>>,
    limits: &'a mut Limits,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        place: String,
        attributes: &'a BTreeMap<String, AttributeValue>,
        inputs: Vec<Option<&'a Array>>,
        limits: &'a mut Limits,
    ) -> Self {
        Self { place, attributes, inputs, limits }
    }

    /// An error that names the node.
    pub(super) fn wrong(&self, field: &str, expected: impl ToString, got: impl ToString) -> Error {
        invalid(&self.place, field, expected, got)
    }

    /// Refuses other attributes than these, and more inputs than an operator has.
    pub(super) fn takes(&self, inputs: usize, attributes: &[&str]) -> Result<()> {
        if self.inputs.len() > inputs {
            let expected = format!("at most {inputs}");
            return Err(self.wrong("inputs", expected, self.inputs.len()));
        }
        match self.attributes.keys().find(|key| !attributes.contains(&key.as_str())) {
            Some(key) => Err(self.wrong(key, "no attribute of this name", "one")),
            None => Ok(()),
        }
    }

    /// An input that the operator must have.
    pub(super) fn input(&self, index: usize) -> Result<&'a Array> {
        self.optional(index).ok_or_else(|| self.wrong("inputs", format!("input {index}"), "none"))
    }

    /// An input that may be left out.
    pub(super) fn optional(&self, index: usize) -> Option<&'a Array> {
        self.inputs.get(index).copied().flatten()
    }

    /// The sizes of an input of `N` dimensions.
    pub(super) fn sizes<const N: usize>(&self, array: &Array) -> Result<[usize; N]> {
        array
            .shape
            .as_slice()
            .try_into()
            .map_err(|_| self.wrong("inputs", format!("{N} dimensions"), format!("shape {:?}", array.shape)))
    }

    /// A whole number, or its default.
    pub(super) fn int(&self, key: &str, default: i64) -> Result<i64> {
        match self.attributes.get(key) {
            None => Ok(default),
            Some(AttributeValue::Int(value)) => Ok(*value),
            Some(other) => Err(self.wrong(key, "a whole number", other)),
        }
    }

    /// A whole number that is 0 or 1, or its default.
    pub(super) fn switch(&self, key: &str, default: bool) -> Result<bool> {
        match self.int(key, i64::from(default))? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(key, "0 or 1", other)),
        }
    }

    /// A number, or its default.
    pub(super) fn float(&self, key: &str, default: f32) -> Result<f32> {
        match self.attributes.get(key) {
            None => Ok(default),
            Some(AttributeValue::Float(value)) => Ok(*value),
            Some(other) => Err(self.wrong(key, "a number", other)),
        }
    }

    /// `N` whole numbers of at least `least`, or none where the attribute is left out.
    pub(super) fn ints<const N: usize>(&self, key: &str, least: i64) -> Result<Option<[usize; N]>> {
        let Some(attribute) = self.attributes.get(key) else { return Ok(None) };
        let range = least..=LARGEST_INT;
        let wrong = || {
            let expected = format!("{N} whole numbers from {least} to {LARGEST_INT}");
            self.wrong(key, expected, attribute)
        };
        match attribute {
            AttributeValue::Ints(values) if values.iter().all(|value| range.contains(value)) => {
                let values: Vec<usize> = values.iter().map(|&value| value as usize).collect();
                values.try_into().map(Some).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        }
    }

    /// Zeros for an output whose values take so many operations each.
    pub(super) fn room(&mut self, shape: &[usize], operations: usize) -> Result<Vec<f32>> {
        let count = elements(shape).filter(|&count| self.limits.take(count, operations).is_some());
        match count {
            Some(count) => Ok(vec![0.0; count]),
            None => {
                let expected = "one in proportion to the graph's input";
                Err(self.wrong("output", expected, format!("shape {shape:?}")))
            }
        }
    }
}
