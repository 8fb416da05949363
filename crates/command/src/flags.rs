//! Flags that several commands share, and their parsers.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{PathBufValueParser, RangedU64ValueParser, TypedValueParser};
use network::data::Dataset;

/// Flags that every command has.
#[derive(Args)]
pub struct Common {
    /// One JSON document on stdout, nothing else there
    #[arg(long)]
    pub json: bool,
    /// No progress, and no messages except errors
    #[arg(long)]
    pub quiet: bool,
    /// Threads to compute with [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Number of validation images.
#[derive(Args)]
pub struct ValImages {
    /// Evaluate on at most N validation images, drawn with a constant seed [default: all]
    #[arg(long, value_name = "N", requires = "data", value_parser = within(1..=1_000_000_000))]
    pub val_images: Option<usize>,
}

impl ValImages {
    /// The data set with at most this number of validation images.
    pub fn of(&self, dataset: Dataset) -> Dataset {
        match self.val_images {
            Some(most) => dataset.with_val_images(most),
            None => dataset,
        }
    }
}

/// A parser of whole numbers within bounds.
pub fn within(bounds: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// A parser of the path of a result. A lone dash is refused: standard output is for the command's own text.
pub fn result_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("expected a path, for standard output has the command's own text; give /dev/stdout, or ./- for a file of that name"),
        false => Ok(path),
    })
}

/// Refuses an output that would overwrite an input.
///
/// # Errors
/// If it would; the error names the input.
pub fn not_an_input(out: &Path, inputs: &[&PathBuf]) -> anyhow::Result<()> {
    let Ok(out) = std::fs::canonicalize(out) else { return Ok(()) };
    for input in inputs {
        if std::fs::canonicalize(input).is_ok_and(|input| input == out) {
            anyhow::bail!("--out {}: expected another file than the input {0}", input.display());
        }
    }
    Ok(())
}
