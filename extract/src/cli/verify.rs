//! `extract verify`: is an exported folder the supernet's sub-network?

use std::path::PathBuf;

use serde_json::json;
use supernet::checkpoint::Supernet;
use supernet::kernels::Precision;

use super::{Common, OnDevice, Outcome, Output, open_data};

/// Compare an exported folder with the supernet: every weight and every logit, bit for bit
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract verify model --supernet run/supernet.safetensors\n\nExit code 4 if anything differs; the message says what."
)]
pub struct Arguments {
    /// The exported folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The trained weights
    #[arg(long, value_name = "FILE")]
    supernet: PathBuf,
    /// Compare on real images too: `digits`, `idx:FOLDER` or `folder:FOLDER`
    #[arg(long)]
    data: Option<String>,
    #[command(flatten)]
    on: OnDevice,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let kernels = arguments.on.kernels(Precision::F32)?;
    let supernet = Supernet::read(&arguments.supernet)?;
    let dataset = arguments.data.as_deref().map(|data| open_data(&output, data)).transpose()?;
    let verification = extract::export::verify(&arguments.folder, &supernet, dataset.as_ref(), kernels)?;
    let folder = arguments.folder.display().to_string();
    let document = json!({
        "folder": folder, "inputs": verification.inputs,
        "max_abs_difference": verification.max_abs_difference,
        "reference_difference": verification.reference_difference,
        "folded_difference": verification.folded_difference,
    });
    output.result(
        format_args!(
            "{folder} is the supernet's sub-network: all weights and the logits of {} images are equal bit for bit",
            verification.inputs
        ),
        &document,
    )?;
    Ok(Outcome::Done)
}
