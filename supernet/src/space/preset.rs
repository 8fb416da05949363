//! The spaces that come with the toolkit.

use super::SearchSpace;
use crate::error::{Error, Result};

const PRESETS: [(&str, &str); 4] = [
    ("tiny", include_str!("presets/tiny.toml")),
    ("fashion", include_str!("presets/fashion.toml")),
    ("ofa-mbv3-w1.0", include_str!("presets/ofa-mbv3-w1.0.toml")),
    ("ofa-mbv3-w1.2", include_str!("presets/ofa-mbv3-w1.2.toml")),
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
