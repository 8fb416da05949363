//! The quantities that layers' costs add up to, as text with units and as numbers.

use std::fmt;

use super::metric::LATENCY;
use crate::error::Result;

/// A quantity that can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Latency, in microseconds.
    Latency,
    /// Multiply-accumulates.
    Macs,
    /// Parameters.
    Params,
    /// Peak activation memory, in bytes.
    Memory,
}

/// A unit's name and its factor in the quantity's own unit.
type Unit = (&'static str, f64);

impl Quantity {
    /// All quantities, in the order in which they are reported.
    pub const ALL: [Self; 4] = [Self::Latency, Self::Macs, Self::Params, Self::Memory];

    /// The metric's name.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Latency => LATENCY,
            Self::Macs => "macs",
            Self::Params => "params",
            Self::Memory => "memory",
        }
    }

    /// Its units, from the smallest; memory counts in powers of 1,000 (`MB`) and of 1,024 (`MiB`).
    fn units(self) -> &'static [Unit] {
        match self {
            Self::Latency => &[("us", 1.0), ("ms", 1e3), ("s", 1e6)],
            Self::Macs | Self::Params => &[("", 1.0), ("K", 1e3), ("M", 1e6), ("G", 1e9)],
            Self::Memory => &[
                ("B", 1.0),
                ("KB", 1e3),
                ("KiB", 1024.0),
                ("MB", 1e6),
                ("MiB", 1_048_576.0),
                ("GB", 1e9),
                ("GiB", 1_073_741_824.0),
            ],
        }
    }

    /// The factor of a unit. For times the case of the letters matters (`ms`); for the others `m` is a million like
    /// `M`. A micro is written as `u` or as either of Unicode's signs for it, and plain numbers are bytes for memory.
    fn scale(self, unit: &str) -> Option<f64> {
        let name = match (self, unit) {
            (Self::Latency, "\u{b5}s" | "\u{3bc}s") => "us",
            (Self::Memory, "") => "B",
            _ => unit,
        };
        let mut units = self.units().iter();
        let unit = match self {
            Self::Latency => units.find(|(known, _)| *known == name),
            _ => units.find(|(known, _)| known.eq_ignore_ascii_case(name)),
        };
        unit.map(|(_, scale)| *scale)
    }

    /// Reads an amount with its unit, such as `12ms`, `200M`, `500_000` or `4MB`.
    ///
    /// # Errors
    /// If it is not a number above 0 with one of the quantity's units.
    pub fn parse(self, text: &str) -> Result<f64> {
        let amount = |(split, _)| {
            let (number, unit) = text.split_at(split);
            Some(decimal(number.trim())? * self.scale(unit.trim())?)
        };
        let whole = std::iter::once((text.len(), ' '));
        // the number is the longest prefix that is one, for `5e6` contains a letter
        let found = whole.chain(text.char_indices().rev()).find_map(amount);
        found.filter(|amount| amount.is_finite() && *amount > 0.0).ok_or_else(|| {
            let units: Vec<_> = self.units().iter().map(|(name, _)| format!("12{name}")).collect();
            let expected = format!("an amount above 0 such as {}", units.join(", "));
            base::Error::invalid(format!("limit on {self}"), "amount", expected, text).into()
        })
    }

    /// An amount with a fitting unit and three decimals, rounded up, so that as a limit it allows the amount.
    pub fn text(self, amount: f64) -> String {
        let (name, scale) = self
            .units()
            .iter()
            .rfind(|unit: &&Unit| !unit.0.contains('i') && unit.1 <= amount)
            .unwrap_or(&self.units()[0]);
        let decimals = if *scale == 1.0 && self != Self::Latency { 1.0 } else { 1e3 };
        let mut steps = (amount / scale * decimals).ceil();
        if steps / decimals * scale < amount {
            steps += 1.0;
        }
        format!("{}{name}", steps / decimals)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Latency => "latency",
            Self::Macs => "MACs",
            Self::Params => "parameters",
            Self::Memory => "memory",
        })
    }
}

/// Reads a finite number, possibly with underscores between digits.
fn decimal(text: &str) -> Option<f64> {
    let digit = |at: Option<usize>| at.and_then(|at| text.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
    if !text.match_indices('_').all(|(at, _): (usize, &str)| digit(at.checked_sub(1)) && digit(Some(at + 1)))
    {
        return None;
    }
    text.replace('_', "").parse().ok().filter(|number: &f64| number.is_finite())
}

/// An amount as the user wrote it, not rounded up.
pub(super) fn amount(quantity: Quantity, value: f64) -> String {
    let (name, scale) = quantity
        .units()
        .iter()
        .rfind(|(name, scale)| !name.contains('i') && *scale <= value)
        .unwrap_or(&quantity.units()[0]);
    format!("{}{name}", value / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units() {
        use Quantity::{Latency, Macs, Memory, Params};
        for (quantity, text, expected) in [
            (Latency, "12ms", Some(12e3)),
            (Latency, "850us", Some(850.0)),
            (Latency, "1.5s", Some(1.5e6)),
            (Latency, "12 ms", Some(12e3)),
            (Macs, "200M", Some(2e8)),
            (Params, "5M", Some(5e6)),
            (Params, "123456", Some(123_456.0)),
            (Memory, "4MB", Some(4e6)),
            (Memory, "512KB", Some(512e3)),
            (Memory, "512KiB", Some(524_288.0)),
            (Latency, "12", None),
            (Latency, "-1ms", None),
            (Latency, "0ms", None),
            (Latency, "12M", None),
            (Latency, "nanms", None),
            (Macs, "200ms", None),
            (Params, "500k", Some(5e5)),
            (Params, "500_000", Some(5e5)),
            (Macs, "1_200.5K", Some(1_200_500.0)),
            (Macs, "5e6", Some(5e6)),
            (Macs, "5E6", Some(5e6)),
            (Macs, "5e1M", Some(5e7)),
            (Macs, "200m", Some(2e8)),
            (Macs, "1g", Some(1e9)),
            (Latency, "1000\u{b5}s", Some(1e3)),
            (Latency, "1000\u{3bc}s", Some(1e3)),
            (Latency, "1e-3s", Some(1e3)),
            (Latency, "1_0ms", Some(1e4)),
            (Latency, ".5ms", Some(500.0)),
            (Memory, "4000000", Some(4e6)),
            (Memory, "4_000_000", Some(4e6)),
            (Memory, "4e6", Some(4e6)),
            (Memory, "4mb", Some(4e6)),
            (Memory, "64kib", Some(65_536.0)),
            (Latency, "12MS", None),
            (Latency, "12m", None),
            (Latency, "1,5ms", None),
            (Latency, "-1e-3s", None),
            (Latency, "infs", None),
            (Latency, "1e400s", None),
            (Latency, "--max-macs", None),
            (Macs, "_5", None),
            (Macs, "5_", None),
            (Macs, "5__0", None),
            (Macs, "5_e6", None),
            (Macs, "5e", None),
            (Macs, "-5M", None),
            (Memory, "4 B B", None),
            (Memory, "-4", None),
            (Memory, "", None),
        ] {
            assert_eq!(quantity.parse(text).ok(), expected, "{quantity} {text}");
        }
        let error = Latency.parse("12").expect_err("no unit").to_string();
        assert!(error.contains("an amount above 0 such as 12us, 12ms, 12s, got 12"), "{error}");
    }

    #[test]
    fn amounts_are_written_so_that_they_are_enough() {
        for quantity in Quantity::ALL {
            for amount in [0.1234, 1.0, 999.9996, 1234.5678, 1e6 / 3.0, 5_000_001.0, 7e9 / 11.0] {
                let text = quantity.text(amount);
                let back = quantity.parse(&text).expect("own text");
                assert!(back >= amount && back < amount * 1.01 + 1.0, "{quantity} {amount} {text}");
            }
        }
        assert_eq!(Quantity::Latency.text(1234.5678), "1.235ms");
        assert_eq!(Quantity::Macs.text(2e8), "200M");
    }
}
