//! The latency engine that `--engine` names.

use std::path::PathBuf;
use std::str::FromStr;

use extract::latency::{Engine, NativeEngine, Progress, Subject};
use kernels::Backend;

/// The value of `--engine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineChoice {
    /// Our own inference.
    Native,
    /// ONNX Runtime, from its shared library.
    OnnxRuntime(PathBuf),
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "native" => Ok(Self::Native),
            Some(("onnxruntime", library)) if !library.is_empty() => Ok(Self::OnnxRuntime(library.into())),
            _ => Err("native, or onnxruntime: and the path of its shared library".to_string()),
        }
    }
}

impl EngineChoice {
    /// The engine, with so many threads of its own, for so many images at once.
    pub fn open(&self, backend: &Backend, threads: usize, batch: usize) -> anyhow::Result<Box<dyn Engine>> {
        match self {
            Self::Native => Ok(Box::new(NativeEngine::new(backend, threads, batch))),
            Self::OnnxRuntime(_) if backend.gpu().is_some() => {
                anyhow::bail!("--engine: expected native with --device cuda, for ours is what runs there")
            }
            Self::OnnxRuntime(library) => open_onnxruntime(library, threads, batch),
        }
    }
}

#[cfg(feature = "onnxruntime")]
fn open_onnxruntime(
    library: &std::path::Path,
    threads: usize,
    batch: usize,
) -> anyhow::Result<Box<dyn Engine>> {
    Ok(Box::new(extract::latency::OnnxRuntimeEngine::new(library, threads, batch)?))
}

#[cfg(not(feature = "onnxruntime"))]
fn open_onnxruntime(library: &std::path::Path, _: usize, _: usize) -> anyhow::Result<Box<dyn Engine>> {
    anyhow::bail!(
        "--engine onnxruntime:{}: this build is without the feature onnxruntime; build extract with it",
        library.display()
    )
}

/// Shows the progress of measuring.
pub fn show(bar: &command::ProgressBar, progress: &Progress<'_>) {
    bar.set_length(progress.subjects as u64);
    bar.set_position(progress.finished as u64);
    let what = match progress.subject {
        Subject::Layer(_) => "layers",
        Subject::Network(..) => "sub-networks",
    };
    bar.set_message(format!("{what}, round {}", progress.round));
}
