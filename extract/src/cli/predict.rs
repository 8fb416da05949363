//! `extract predict`: classify images with an exported model.

use std::fmt::Write;
use std::path::PathBuf;

use command::{Common, Ending};
use extract::predict::{Classifier, images_at};
use serde_json::json;
use tracing::{error, warn};

use super::backend;

/// Classify images with an exported model
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract predict model photo.png --top 3\n  extract predict model photos\n\nAn image that cannot be classified is named; the others are classified all the same. Exit code 1 if there is one."
)]
pub struct Arguments {
    /// The exported folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Images (png, jpeg, webp, bmp, tiff, gif, ppm), .npy with [C, H, W] or [1, C, H, W] floats, already normalized, or
    /// folders of them; for a model trained on arrays, .npy like those
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

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let classifier = Classifier::load(&arguments.folder, &backend()?)?;
    let (images, passed_over) = images_at(&arguments.images)?;
    passed_over.iter().for_each(|words| warn!("{words}"));
    let mut predictions = Vec::new();
    let mut failed = Vec::new();
    let mut text = String::new();
    for path in &images {
        let image = path.display().to_string();
        let logits = match classifier.logits(path) {
            Ok(logits) => logits,
            Err(error) => {
                failed.push((image, error));
                continue;
            }
        };
        let top = classifier.top(&logits, arguments.top);
        // writing to a string cannot fail
        let _ = writeln!(text, "{image}");
        for score in &top {
            let _ = writeln!(text, "  {:>6.2} %  {}", 100.0 * score.probability, score.class);
        }
        if arguments.logits {
            let _ = writeln!(text, "  logits {logits:?}");
        }
        let logits = arguments.logits.then_some(logits);
        predictions.push(json!({ "image": image, "top": top, "logits": logits }));
    }
    for (_, error) in &failed {
        error!("{error}");
    }
    let named = failed.iter().map(|(image, error)| json!({ "image": image, "error": error.to_string() }));
    let mut document = json!({ "predictions": predictions, "failed": named.collect::<Vec<_>>() });
    let summary = match failed.as_slice() {
        [] => None,
        [(_, error)] if images.len() == 1 => Some(error.to_string()),
        failed => Some(format!("{} of {} images could not be classified", failed.len(), images.len())),
    };
    if let Some(summary) = &summary {
        document["error"] = json!(summary);
    }
    if arguments.common.json || !predictions.is_empty() {
        output.print(&document, || text.trim_end().to_string())?;
    }
    match summary {
        None => Ok(Ending::Done),
        Some(summary) => {
            if images.len() > 1 {
                error!("{summary}");
            }
            Ok(Ending::Partly)
        }
    }
}
