//! An exported folder in your own program: loads it once, then classifies images. Neither the supernet nor its data is
//! needed.
//!
//! `cargo run --release --example deploy -- FOLDER IMAGE...`, where FOLDER comes from `extract export`, and an
//! image is a png, a jpeg, or a normalized `.npy` array (for a network that takes arrays, one like those of its training).
//! Prints one line per image: path, class, probability.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use extract::predict::Classifier;
use kernels::Backend;

const USAGE: &str = "usage: deploy FOLDER IMAGE...

FOLDER  folder from `extract export`
IMAGE   png, jpeg, or .npy with [C, H, W] floats, normalized";

fn main() -> anyhow::Result<ExitCode> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = paths.next();
    let images = paths.collect::<Vec<_>>();
    let Some(folder) = folder.filter(|_| !images.is_empty()) else {
        eprintln!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    let classifier = Classifier::load(&folder, &Backend::detect())?;
    for image in &images {
        println!("{}", classify(&classifier, image)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// `photo.png  sneaker  97.31 %`
fn classify(classifier: &Classifier, image: &Path) -> anyhow::Result<String> {
    let logits = classifier.logits(image)?;
    let best = classifier.top(&logits, 1).pop().context("a network without classes")?;
    Ok(format!("{}  {}  {:.2} %", image.display(), best.class, 100.0 * best.probability))
}
