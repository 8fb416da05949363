//! `extract inspect`: where a file comes from.

use std::path::PathBuf;

use extract::latency::LatencyTable;
use extract::report::{self, LayerReport};
use network::model_folder::ModelFolder;
use network::tensor_file;
use serde_json::{Value, json};

use command::{Common, Ending};

/// Show what an exported folder or a safetensors file of this toolkit is, and where it comes from
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract inspect model\n  extract inspect model --layers --latency-table table.json\n  extract inspect run/supernet.safetensors"
)]
pub struct Arguments {
    /// An exported folder, or a supernet, checkpoint, estimator or model file
    #[arg(value_name = "FOLDER|FILE")]
    path: PathBuf,
    /// List the layers of an exported folder: what each reads, its costs
    #[arg(long)]
    layers: bool,
    /// Latency table, to list each layer's latency
    #[arg(long, value_name = "TABLE.json", requires = "layers")]
    latency_table: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let path = &arguments.path;
    let mut layers = Vec::new();
    let (hash, mut facts, tensors) = if path.is_dir() {
        let model = ModelFolder::read(path)?;
        if arguments.layers {
            layers = arguments.report(&model)?;
        }
        (model.config.model_hash.clone(), json!(model.config), model.tensors)
    } else {
        if arguments.layers {
            return Err(base::Error::invalid(path.display(), "layers", "an exported folder", "a file")
                .and_then_do("export a sub-network with `extract export`")
                .into());
        }
        let file = tensor_file::read(path)?;
        let document = serde_json::from_str::<Value>(&file.document)
            .map_err(|error| base::Error::invalid(path.display(), "metadata", "JSON", error))?;
        (file.hash, document, file.tensors)
    };
    let values: usize = tensors.values().map(|tensor| tensor.elem_count()).sum();
    // the space in full is long; its name says enough to a reader, and --json has all of it
    let mut document = json!({ "path": path.display().to_string(), "blake3": hash, "tensors": tensors.len(),
        "values": values, "facts": facts });
    if let Some(name) = facts.pointer("/space/name").cloned() {
        facts["space"] = name;
    }
    if arguments.layers {
        document["layers"] = json!(layers);
    }
    output.print(&document, || {
        let count = tensors.len();
        let mut text =
            format!("{}\nblake3   {hash}\ntensors  {count} with {values} values\n{facts:#}", path.display());
        if arguments.layers {
            text += &format!("\n{}", report::table(&layers));
        }
        text
    })?;
    Ok(Ending::Done)
}

impl Arguments {
    /// The layers of a folder's network, with latencies where a table was given.
    fn report(&self, model: &ModelFolder) -> anyhow::Result<Vec<LayerReport>> {
        let table = self.latency_table.as_deref().map(LatencyTable::read).transpose()?;
        let network = model.config.space.lower(&model.config.arch)?;
        Ok(report::layers(&network, table.as_ref())?)
    }
}
