//! Weighted sum of several inputs of one size: what a mixture of operators makes of their outputs. Only mixtures have it, no
//! sub-network.

use super::{Form, Maps, Operator, Parsed, words};

/// Most inputs that a key may name.
const MOST_INPUTS: usize = 64;

pub(super) struct WeightedSum {
    pub of: usize,
}

impl Form for WeightedSum {
    /// `mix3 16`.
    fn key(&self, maps: Maps) -> String {
        format!("mix{} {}", self.of, maps.input.channels)
    }

    fn arity(&self) -> usize {
        self.of
    }
}

pub(super) fn read(key: &[&str]) -> Option<Parsed> {
    let [word, channels] = key else { return None };
    let of = words::number(word.strip_prefix("mix")?, MOST_INPUTS).filter(|of| *of >= 1)?;
    let operator = Operator::WeightedSum { of };
    Some(Parsed { name: "mix.0", operator, channels: [words::channels(channels)?; 2] })
}
