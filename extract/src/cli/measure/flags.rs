//! `--precision` and `--half-width`, with the meanings that `--precision` and `--dtype` had before.

use std::fmt;
use std::str::FromStr;

use kernels::Precision;
use tracing::info;

use super::Arguments;

/// Half of a latency's 95 % interval unless `--half-width` is given, in percent.
const HALF_WIDTH: f64 = 5.0;

/// The value of `--precision`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PrecisionFlag {
    /// The number type of a GPU's products.
    NumberType(Precision),
    /// In percent: before `--half-width` existed, the flag had its meaning.
    HalfWidth(f64),
}

impl FromStr for PrecisionFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.parse::<f64>().is_ok() {
            return percent(text).map(Self::HalfWidth);
        }
        text.parse().map(Self::NumberType)
    }
}

impl fmt::Display for PrecisionFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NumberType(precision) => precision.fmt(f),
            Self::HalfWidth(percent) => percent.fmt(f),
        }
    }
}

/// Reads a half-width.
pub fn percent(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.01..=50.0).contains(value));
    value.ok_or_else(|| "a number from 0.01 to 50".to_string())
}

/// Refuses two values for one setting, and says what `--precision NUMBER` means.
pub fn check(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.precision {
        Some(PrecisionFlag::HalfWidth(_)) if arguments.half_width.is_some() => {
            anyhow::bail!(
                "--precision: expected f32, tf32 or bf16 with --half-width, got a second half-width"
            )
        }
        Some(PrecisionFlag::HalfWidth(percent)) => {
            info!(
                "note: --precision {percent} means --half-width {percent}; --precision is the number type now"
            );
        }
        Some(PrecisionFlag::NumberType(precision)) => {
            if let Some(dtype) = arguments.dtype.filter(|dtype| *dtype != precision) {
                anyhow::bail!("--dtype: expected the {precision} of --precision, got {dtype}");
            }
        }
        None => {}
    }
    Ok(())
}

/// The number type of a GPU's products.
pub fn number_type(arguments: &Arguments) -> Precision {
    match (arguments.dtype, arguments.precision) {
        (Some(dtype), _) => dtype,
        (None, Some(PrecisionFlag::NumberType(precision))) => precision,
        (None, Some(PrecisionFlag::HalfWidth(_)) | None) => Precision::F32,
    }
}

/// The target half-width of a latency's interval, as a share.
pub fn half_width(arguments: &Arguments) -> f64 {
    let percent = match (arguments.half_width, arguments.precision) {
        (Some(percent), _) | (None, Some(PrecisionFlag::HalfWidth(percent))) => percent,
        (None, Some(PrecisionFlag::NumberType(_)) | None) => HALF_WIDTH,
    };
    percent / 100.0
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Measure {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn both_flags_keep_their_former_meanings() {
        for (flags, expected) in [
            ("", Ok((Precision::F32, 0.05))),
            ("--half-width 20", Ok((Precision::F32, 0.2))),
            ("--precision 20", Ok((Precision::F32, 0.2))),
            ("--precision bf16", Ok((Precision::Bf16, 0.05))),
            ("--precision tf32 --half-width 0.5", Ok((Precision::Tf32, 0.005))),
            ("--dtype bf16", Ok((Precision::Bf16, 0.05))),
            ("--dtype bf16 --precision 50", Ok((Precision::Bf16, 0.5))),
            ("--dtype bf16 --precision bf16", Ok((Precision::Bf16, 0.05))),
            ("--precision 20 --half-width 20", Err("a second half-width")),
            ("--precision tf32 --dtype bf16", Err("expected the tf32 of --precision, got bf16")),
            ("--precision f32 --dtype bf16", Err("expected the f32 of --precision, got bf16")),
            ("--precision 60", Err("a number from 0.01 to 50")),
            ("--precision f64", Err("f32, tf32 or bf16")),
            ("--dtype 50", Err("f32, tf32 or bf16")),
        ] {
            let words = format!("measure --space tiny --out x.json {flags}");
            let parsed = Measure::try_parse_from(words.split_whitespace());
            let result = parsed.map_err(|error| error.to_string()).and_then(|Measure { arguments }| {
                check(&arguments).map_err(|error| error.to_string())?;
                Ok((number_type(&arguments), half_width(&arguments)))
            });
            match (result, expected) {
                (Ok(values), Ok(expected)) => assert_eq!(values, expected, "{flags}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{flags}: {error}"),
                (result, _) => panic!("{flags}: expected {expected:?}, got {result:?}"),
            }
        }
    }
}
