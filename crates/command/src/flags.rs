//! Flags that several commands have, and how they are read.

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
    /// No progress and no messages but errors
    #[arg(long)]
    pub quiet: bool,
    /// Threads to compute with [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// How many validation images are counted on.
#[derive(Args)]
pub struct ValImages {
    /// Count on at most so many validation images, drawn with a constant seed [default: all]
    #[arg(long, value_name = "N", requires = "data", value_parser = within(1..=1_000_000_000))]
    pub val_images: Option<usize>,
}

impl ValImages {
    /// The data set with as many.
    pub fn of(&self, dataset: Dataset) -> Dataset {
        match self.val_images {
            Some(most) => dataset.with_val_images(most),
            None => dataset,
        }
    }
}

/// A reader of whole numbers within bounds.
pub fn within(bounds: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// A reader of the path of a result. A lone dash is none: standard output has the command's own words.
pub fn result_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("a path is needed, for standard output has the command's own words; /dev/stdout, or ./- for a file of that name"),
        false => Ok(path),
    })
}

/// Refuses an output that would take an input's place.
///
/// # Errors
/// Names the input.
pub fn not_an_input(out: &Path, inputs: &[&PathBuf]) -> anyhow::Result<()> {
    match inputs.iter().find(|input: &&&PathBuf| {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        real(out).is_some_and(|out| real(input) == Some(out))
    }) {
        Some(input) => anyhow::bail!("--out {}: expected another file than the input {0}", input.display()),
        None => Ok(()),
    }
}
