//! The spaces that come with the toolkit, and users' own.

use std::path::Path;

use base::error::{Error, Result};
use base::file;

use super::SearchSpace;

const PRESETS: [(&str, &str); 14] = [
    ("tiny", include_str!("presets/tiny.toml")),
    ("tiny-resnet", include_str!("presets/tiny-resnet.toml")),
    ("tiny-choice", include_str!("presets/tiny-choice.toml")),
    ("tiny-cell", include_str!("presets/tiny-cell.toml")),
    ("tiny-macro", include_str!("presets/tiny-macro.toml")),
    ("tiny-spectrogram", include_str!("presets/tiny-spectrogram.toml")),
    ("fashion", include_str!("presets/fashion.toml")),
    ("nas-bench-201", include_str!("presets/nas-bench-201.toml")),
    ("enas-macro", include_str!("presets/enas-macro.toml")),
    ("ofa-mbv3-w1.0", include_str!("presets/ofa-mbv3-w1.0.toml")),
    ("ofa-mbv3-w1.2", include_str!("presets/ofa-mbv3-w1.2.toml")),
    ("ofa-proxyless-w1.0", include_str!("presets/ofa-proxyless-w1.0.toml")),
    ("ofa-proxyless-w1.3", include_str!("presets/ofa-proxyless-w1.3.toml")),
    ("ofa-resnet50", include_str!("presets/ofa-resnet50.toml")),
];

/// Names of the presets.
pub fn preset_names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// A preset by name.
///
/// # Errors
/// If there is none of that name; the message lists them.
pub fn preset(name: &str) -> Result<SearchSpace> {
    let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = preset_names().collect();
        return Err(Error::invalid(
            "space",
            "name",
            format!("a preset ({}) or a TOML file", known.join(", ")),
            name,
        ));
    };
    SearchSpace::from_toml(&format!("preset {name}"), text)
}

/// Reads a user's space: a preset's name, or the path of a TOML file.
///
/// # Errors
/// If it is neither, or the file is not a valid space.
pub fn open(text: &str) -> Result<SearchSpace> {
    let path = Path::new(text);
    if preset_names().any(|name| name == text) || !file::is_input(path) {
        return preset(text);
    }
    let toml = file::read_text(path)?;
    SearchSpace::from_toml(text, &toml)
}
