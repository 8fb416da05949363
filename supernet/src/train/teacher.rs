//! Who teaches the sub-networks of a step, besides the labels.

mod file;

use serde::{Deserialize, Serialize};

pub use file::TeacherFile;

/// Whose logits are soft labels for a phase; their cross-entropy is added to that with the labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Teacher {
    /// Nobody: there are the labels alone.
    #[default]
    None,
    /// The largest network as it is after the phase of this name, which is the first that trains all of it (Cai et al. 2020).
    Phase(String),
    /// The first network of each step, as it is then, for the others of the step: in-place distillation (Yu and Huang 2019).
    First,
    /// The network of a file, which whoever starts the run gives ([`TeacherFile`]).
    File,
}
