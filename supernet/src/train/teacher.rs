//! The teacher of a step's sub-networks, in addition to the labels.

mod file;

use serde::{Deserialize, Serialize};

pub use file::TeacherFile;

/// The network whose logits are a phase's soft labels; their cross-entropy is added to that with the labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Teacher {
    /// No teacher, labels only.
    #[default]
    None,
    /// The largest network after the phase of this name, the first that trains all of it (Cai et al. 2020).
    Phase(String),
    /// The first network of each step, for the others of the step: in-place distillation (Yu and Huang 2019).
    First,
    /// A network from a file that is given at the start of the run ([`TeacherFile`]).
    File,
}
