//! The two files with which PyTorch's `ofa` describes a network: `net.config` layer by layer, `run.config` with the
//! size of its images.
//!
//! From a `net.config` only the fields that distinguish sub-networks of a space are read. The config of the result is
//! then compared with the given one, field by field; so the result is exactly the network that the package would build.

mod compare;
mod read;
#[cfg(test)]
mod tests;
mod write;

use base::error::{Error, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::{Arch, Extent, FamilyName, SearchSpace};

pub use write::net_config;

/// Name of the network's file in a folder.
pub const NET_CONFIG: &str = "net.config";
/// Name of the run's file next to it.
pub const RUN_CONFIG: &str = "run.config";

/// The part of `run.config` that describes a sub-network: `{"image_size": 224}`.
pub fn run_config(arch: &Arch) -> Value {
    json!({ "image_size": arch.resolution })
}

/// The classes of the package, by the family whose networks they build.
const CLASSES: [(FamilyName, &str); 3] = [
    (FamilyName::MobileNetV3, "MobileNetV3"),
    (FamilyName::ProxylessNas, "ProxylessNASNets"),
    (FamilyName::ResNetD, "ResNets"),
];

/// The class of the package that builds a space's networks.
fn class_of(space: &SearchSpace) -> Result<&'static str> {
    let class = CLASSES.iter().find(|(family, _)| *family == space.family());
    class.map(|(_, class)| *class).ok_or_else(|| space.is_not_of_ofa())
}

/// Whether a JSON text is a `net.config`, which alone has these fields.
pub(crate) fn is_net_config(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Front {
        #[serde(rename = "blocks")]
        _blocks: IgnoredAny,
        #[serde(rename = "classifier")]
        _classifier: IgnoredAny,
    }
    // a JSON list would be read as the fields in their order
    text.trim_start().starts_with('{') && serde_json::from_str::<Front>(text).is_ok()
}

/// The resolution that a `run.config` names.
pub(crate) fn image_size(place: &str, text: &str) -> Result<Extent> {
    #[derive(Deserialize)]
    struct RunConfig {
        image_size: Extent,
    }
    let run: RunConfig = serde_json::from_str(text)
        .map_err(|error| Error::invalid(place, "image_size", "{\"image_size\": PIXELS}", error))?;
    Ok(run.image_size)
}

/// The sub-network of a `net.config` at the resolution of the `run.config` next to it; without one the space must have
/// a single resolution.
pub(crate) fn from_text(
    space: &SearchSpace,
    place: &str,
    text: &str,
    resolution: Option<Extent>,
) -> Result<Arch> {
    let config: Value = serde_json::from_str(text)
        .map_err(|error| Error::invalid(place, "text", "a net.config of ofa in JSON", error))?;
    let class = class_of(space).map_err(|error| error.in_place(place))?;
    let name = config.get("name").unwrap_or(&Value::Null);
    if name != class {
        let expected = format!("{class}, the family of space {}", space.name());
        return Err(Error::invalid(place, "name", expected, compare::shown(name))
            .and_then_do("give the network's space as --space"));
    }
    let resolution = match (resolution, space.resolutions()) {
        (Some(resolution), _) | (None, &[resolution]) => resolution,
        (None, _) => {
            return Err(Error::invalid(place, "resolution", format!("a {RUN_CONFIG} beside it"), "none")
                .and_then_do("write {\"image_size\": PIXELS} into one"));
        }
    };
    let config = compare::normal(config);
    let arch = read::arch(space, place, &config, resolution)?;
    space.check(&arch).map_err(|error| error.in_place(place))?;
    let expected = net_config(space, &arch).map_err(|error| error.in_place(place))?;
    match compare::first_difference(&compare::normal(expected), &config) {
        Some((field, expected, got)) => {
            let expected = format!("{expected} (space {})", space.name());
            Err(Error::invalid(place, field, expected, got))
        }
        None => Ok(arch),
    }
}
