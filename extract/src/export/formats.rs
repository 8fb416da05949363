//! The files of an exported folder for other programs, next to `config.json` and `model.safetensors`.

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
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Ofa, Self::Onnx];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ofa => "ofa",
            Self::Onnx => "onnx",
        }
    }

    /// The names of the format's files.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Self::Ofa => &[NET_CONFIG, RUN_CONFIG],
            Self::Onnx => &[ONNX_MODEL],
        }
    }
}

/// Checks before the long work that the sub-network can be written in these formats.
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

#[cfg(test)]
mod tests {
    use super::super::assemble;
    use super::super::testing::{largest, request, supernet};
    use super::*;

    /// The assembled export of a preset's largest network.
    fn model(name: &str) -> ModelFolder {
        let supernet = supernet(name);
        assemble(&request(&supernet, &largest(&supernet)), None).expect("it fits")
    }

    #[test]
    fn each_format_has_its_own_name_and_files() {
        for (format, name, files) in
            [(Format::Ofa, "ofa", &["net.config", "run.config"][..]), (Format::Onnx, "onnx", &["model.onnx"])]
        {
            assert_eq!((format.name(), format.files()), (name, files));
            let contents = contents(&model("tiny"), &[format]).expect("written");
            assert_eq!(contents.keys().copied().collect::<Vec<_>>(), files);
        }
        assert!(contents(&model("tiny"), &[]).expect("none").is_empty());
    }

    #[test]
    fn a_network_that_ofa_cannot_build_is_refused_before_the_work() {
        for (name, formats, possible) in [
            ("tiny", &Format::ALL[..], true),
            ("tiny-spectrogram", &[Format::Onnx], true),
            ("tiny-spectrogram", &[], true),
            ("tiny-spectrogram", &Format::ALL, false),
        ] {
            let space = space::preset(name).expect("a preset");
            let checked = check_possible(&space, &space::sampler::largest(&space), formats);
            assert_eq!(checked.is_ok(), possible, "{name} {formats:?}");
        }
    }

    #[test]
    fn a_file_that_changed_or_names_another_network_is_found() {
        let at = tempfile::tempdir().expect("a folder");
        let mut model = model("tiny");
        let smallest = space::sampler::smallest(&model.config.space);
        let other = json_bytes(&net_config(&model.config.space, &smallest).expect("of its family"));
        let sound = contents(&model, &[Format::Ofa]).expect("written");
        std::fs::write(at.path().join(RUN_CONFIG), &sound[RUN_CONFIG]).expect("written");
        for (bytes, rehash, refused) in [
            (&sound[NET_CONFIG], true, None),
            (&other, false, Some("blake3 of net.config")),
            (&other, true, Some("sub-network of net.config")),
        ] {
            std::fs::write(at.path().join(NET_CONFIG), bytes).expect("written");
            let hashed = if rehash { bytes } else { &sound[NET_CONFIG] };
            let hash = blake3::hash(hashed).to_hex().to_string();
            model.config.files.insert(NET_CONFIG.to_string(), hash);
            let failed = |what: &str, expected: &str, got: &str| Error::VerificationFailed {
                path: at.path().to_path_buf(),
                what: what.to_string(),
                expected: expected.to_string(),
                got: got.to_string(),
            };
            let error = check(at.path(), &model, &failed).err().map(|error| error.to_string());
            let found = error.as_deref().zip(refused).map(|(error, part)| error.contains(part));
            assert_eq!((error.is_some(), found), (refused.is_some(), refused.map(|_| true)), "{error:?}");
        }
    }
}
