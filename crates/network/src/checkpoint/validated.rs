//! Results of the validations within a training's phase.

use serde::{Deserialize, Serialize};

/// The validations of a phase so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationProgress {
    /// Steps that were taken at the last one; 0 before there was one.
    pub step: u64,
    /// The best of the phase, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<BestValidation>,
    /// Number of validations since the best one.
    pub not_better: u64,
}

/// The best validation of a phase; the weights of its step lie in a file of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestValidation {
    /// Steps that were taken.
    pub step: u64,
    /// Images whose class was found, over all sub-networks that were validated.
    pub correct: usize,
}
