//! What an exported folder holds for programs that are not ours, beside its own two files.

use std::collections::BTreeMap;
use std::path::Path;

use network::model_folder::ModelFolder;
use network::tensor_file;
use serde_json::Value;
use space::arch_file::{self, NET_CONFIG, RUN_CONFIG, net_config, run_config};
use space::{Arch, SearchSpace};

use super::onnx_file;
use crate::error::{Error, Result};

/// Name of the ONNX file in a folder.
pub const ONNX_MODEL: &str = "model.onnx";

/// A form that other programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `net.config` and `run.config`: PyTorch's `ofa` builds the network from them, and `model.safetensors` has the
    /// weights under its names.
    Ofa,
    /// `model.onnx`: the whole network, its batch norms multiplied into its weights, for any number of images at once.
    Onnx,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Ofa, Self::Onnx];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ofa => "ofa",
            Self::Onnx => "onnx",
        }
    }

    /// Names of its files.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Ofa => &[NET_CONFIG, RUN_CONFIG],
            Self::Onnx => &[ONNX_MODEL],
        }
    }
}

/// Whether the sub-network has these forms; asked before the long work.
pub(super) fn check_possible(space: &SearchSpace, arch: &Arch, formats: &[Format]) -> Result<()> {
    if formats.contains(&Format::Ofa) {
        net_config(space, arch)?;
    }
    Ok(())
}

/// The files of these formats by name.
pub(super) fn contents(model: &ModelFolder, formats: &[Format]) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for format in formats {
        match format {
            Format::Ofa => {
                let config = &model.config;
                files.insert(NET_CONFIG, json_bytes(&net_config(&config.space, &config.arch)?));
                files.insert(RUN_CONFIG, json_bytes(&run_config(&config.arch)));
            }
            Format::Onnx => {
                files.insert(ONNX_MODEL, onnx_file::contents(model)?);
            }
        }
    }
    Ok(files)
}

fn json_bytes(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Whether each further file of a folder is as it was exported, and `net.config` names the folder's sub-network.
pub(super) fn check(
    folder: &Path,
    model: &ModelFolder,
    failed: &impl Fn(&str, &str, &str) -> Error,
) -> Result<()> {
    let config = &model.config;
    for (name, expected) in &config.files {
        let hash = tensor_file::hash(&folder.join(name))?;
        if hash != *expected {
            return Err(failed(&format!("blake3 of {name}"), expected, &hash));
        }
    }
    if config.files.contains_key(NET_CONFIG) {
        let named = arch_file::read(&config.space, &folder.join(NET_CONFIG).to_string_lossy())?;
        let [expected, got] = [&config.arch, &named].map(ToString::to_string);
        if expected != got {
            return Err(failed(&format!("sub-network of {NET_CONFIG}"), &expected, &got));
        }
    }
    Ok(())
}
