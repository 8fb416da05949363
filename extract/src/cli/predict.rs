//! `extract predict`: classify images with an exported model.

use std::fmt::Write;
use std::path::PathBuf;

use extract::predict::Classifier;
use serde_json::json;

use super::{Common, Outcome, Output, kernels};

/// Classify images with an exported model
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract predict model photo.png --top 3")]
pub struct Arguments {
    /// The exported folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// png, jpeg, or .npy with [C, H, W] or [1, C, H, W] floats, already normalised
    #[arg(value_name = "IMAGE", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// Classes to name
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// Give the logits too
    #[arg(long)]
    logits: bool,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let classifier = Classifier::load(&arguments.folder, kernels()?)?;
    let mut predictions = Vec::new();
    let mut text = String::new();
    for path in &arguments.images {
        let logits = classifier.logits(path)?;
        let top = classifier.top(&logits, arguments.top);
        // writing to a string cannot fail
        let _ = writeln!(text, "{}", path.display());
        for score in &top {
            let _ = writeln!(text, "  {:>6.2} %  {}", 100.0 * score.probability, score.class);
        }
        if arguments.logits {
            let _ = writeln!(text, "  logits {logits:?}");
        }
        let logits = arguments.logits.then_some(logits);
        predictions.push(json!({ "image": path.display().to_string(), "top": top, "logits": logits }));
    }
    output.result(text.trim_end(), &json!({ "predictions": predictions }))?;
    Ok(Outcome::Done)
}
