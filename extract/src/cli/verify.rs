//! `extract verify`: is an exported folder the supernet's sub-network?

use std::path::{Path, PathBuf};

use command::{Common, Ending, data_form, data_help};
use extract::export::{OnnxVerification, verify};
use extract::onnx::OnnxRuntime;
use kernels::Precision;
use network::checkpoint::Supernet;
use serde_json::json;

use super::{OnDevice, open_data};

/// Compare an exported folder with the supernet: every weight and every logit, bit for bit; model.onnx weight for
/// weight, and by running it
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract verify model --supernet run/supernet.safetensors\n  extract verify model --supernet run/supernet.safetensors --data digits --onnxruntime libonnxruntime.so\n\nExit code 4 if anything differs; the message says what."
)]
pub struct Arguments {
    /// The exported folder
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The trained weights
    #[arg(long, value_name = "FILE")]
    supernet: PathBuf,
    // its help comes from the table of formats
    #[arg(
        long,
        value_parser = data_form(),
        help = data_help("Compare on real images too"),
        hide_possible_values = true
    )]
    data: Option<String>,
    /// Facts about the images (flip, class names) [default: dataset.toml in their folder]
    #[arg(long, value_name = "FILE", requires = "data")]
    dataset_toml: Option<PathBuf>,
    /// Run model.onnx with ONNX Runtime too: its shared library, or the folder that it lies in
    #[arg(long, value_name = "LIB")]
    onnxruntime: Option<PathBuf>,
    #[command(flatten)]
    on: OnDevice,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let backend = arguments.on.backend(Precision::F32)?;
    let supernet = Supernet::read(&arguments.supernet)?;
    let dataset = arguments
        .data
        .as_deref()
        .map(|data| open_data(output, data, arguments.dataset_toml.as_deref(), &supernet))
        .transpose()?;
    let runtime = arguments.onnxruntime.as_deref().map(open_runtime).transpose()?;
    let verification = verify(&arguments.folder, &supernet, dataset.as_ref(), &backend, runtime.as_deref())?;
    let folder = arguments.folder.display().to_string();
    let mut document = json!(verification);
    document["folder"] = json!(folder);
    let onnx = verification.onnx.as_ref().map_or_else(String::new, |onnx| format!("\n{}", compared(onnx)));
    output.print(&document, || format!(
            "{folder} is the supernet's sub-network: all weights and the logits of {} images are equal bit for bit{onnx}",
            verification.inputs
        ))?;
    Ok(Ending::Done)
}

/// A line that says what was compared of `model.onnx`.
pub fn compared(onnx: &OnnxVerification) -> String {
    let OnnxVerification { weights, inputs, max_relative_difference, runtime } = onnx;
    let runtime = runtime.as_ref().map_or_else(String::new, |runtime| {
        format!(", by {} within {:.1e}", runtime.name, runtime.max_relative_difference)
    });
    format!(
        "model.onnx: {weights} weights equal bit for bit, logits of {inputs} images within {max_relative_difference:.1e}{runtime}"
    )
}

#[cfg(feature = "onnxruntime")]
fn open_runtime(library: &Path) -> anyhow::Result<Box<dyn OnnxRuntime>> {
    Ok(Box::new(extract::latency::OnnxRuntimeEngine::new(library, rayon::current_num_threads(), 1)?))
}

#[cfg(not(feature = "onnxruntime"))]
fn open_runtime(library: &Path) -> anyhow::Result<Box<dyn OnnxRuntime>> {
    anyhow::bail!(
        "--onnxruntime {}: this build is without the feature onnxruntime; build extract with it",
        library.display()
    )
}
