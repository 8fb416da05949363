//! Sum of several inputs of one size.

use super::{Form, Maps, Operator, Parsed, words};

/// Most inputs that a key may name.
const MOST_INPUTS: usize = 64;

pub(super) struct Sum {
    pub of: usize,
}

impl Form for Sum {
    fn key(&self, maps: Maps) -> String {
        format!("sum{} {}", self.of, maps.input.channels)
    }

    fn arity(&self) -> usize {
        self.of
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let [word, channels] = key else { return None };
    let of = words::number(word.strip_prefix("sum")?, MOST_INPUTS).filter(|of| *of >= 2)?;
    Some(Parsed { name: "sum", operator: Operator::Sum { of }, channels: [words::channels(channels)?; 2] })
}
