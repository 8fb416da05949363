//! `extract inspect`: where a file comes from.

use std::path::PathBuf;

use network::model_folder::ModelFolder;
use network::tensor_file;
use serde_json::{Value, json};

use command::{Common, Ending};

/// Show what an exported folder or a safetensors file of this toolkit is, and where it comes from
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract inspect model\n  extract inspect run/supernet.safetensors")]
pub struct Arguments {
    /// An exported folder, or a supernet, checkpoint, estimator or model file
    #[arg(value_name = "FOLDER|FILE")]
    path: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let path = &arguments.path;
    let (hash, mut facts, tensors) = if path.is_dir() {
        let model = ModelFolder::read(path)?;
        (model.config.model_hash.clone(), json!(model.config), model.tensors)
    } else {
        let file = tensor_file::read(path)?;
        let document = serde_json::from_str::<Value>(&file.document)
            .map_err(|error| base::Error::invalid(path.display(), "metadata", "JSON", error))?;
        (file.hash, document, file.tensors)
    };
    let values: usize = tensors.values().map(|tensor| tensor.elem_count()).sum();
    // the space in full is long; its name says enough to a reader, and --json has all of it
    let document = json!({ "path": path.display().to_string(), "blake3": hash, "tensors": tensors.len(),
        "values": values, "facts": facts });
    if let Some(name) = facts.pointer("/space/name").cloned() {
        facts["space"] = name;
    }
    output.print(&document, || {
        format!(
            "{}\nblake3   {hash}\ntensors  {} with {values} values\n{facts:#}",
            path.display(),
            tensors.len()
        )
    })?;
    Ok(Ending::Done)
}
