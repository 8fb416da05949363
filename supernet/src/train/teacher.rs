//! The teacher of a step's sub-networks, and how its logits and the labels count.

mod file;

use serde::{Deserialize, Serialize};

pub use file::TeacherFile;

/// What a network that has a teacher learns from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distillation {
    /// The soft cross-entropy is added to that with the labels, each with weight 1 (Cai et al. 2020).
    #[default]
    Added,
    /// The soft cross-entropy alone (Yu et al. 2020, BigNAS).
    Only,
    /// The adaptive alpha-divergence from the teacher alone (Wang et al. 2021, AlphaNet).
    Alpha,
}

impl Distillation {
    /// Whether it is the default, which plans and recipes leave out.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Only => "only",
            Self::Alpha => "alpha",
        }
    }
}

/// Which networks of a step have dropout before the classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dropout {
    /// Every network.
    #[default]
    All,
    /// The largest network that the phase allows (Yu et al. 2020, BigNAS): the others underfit rather than overfit.
    Largest,
}

impl Dropout {
    /// Whether it is the default, which plans and recipes leave out.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The network whose logits are a phase's soft labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Teacher {
    /// No teacher, labels only.
    #[default]
    None,
    /// The largest network after the phase of this name, the first that trains all of it (Cai et al. 2020).
    Phase(String),
    /// The first network of each step, for the others of the step, by the logits of its own training pass: in-place
    /// distillation (Yu and Huang 2019).
    First,
    /// A network from a file that is given at the start of the run ([`TeacherFile`]).
    File,
}
