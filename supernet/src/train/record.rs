//! The lines of `log.jsonl`.

use serde::{Deserialize, Serialize};

use network::eval::Accuracy;
use space::{Arch, Extent};

use super::conflict::ConflictRecord;

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted over the whole run from 0.
    pub step: u64,
    /// The phase's name.
    pub phase: String,
    /// Mean loss of the sub-networks.
    pub loss: f32,
    /// Learning rate.
    pub lr: f32,
    /// Height and width of the images: a number where both are the same.
    pub resolution: Extent,
    /// Milliseconds, waiting for images included.
    pub ms: f64,
}

/// The divergence that ended a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The step in which it was detected, counted over the whole run from 0.
    pub step: u64,
    /// The name of the step's phase.
    pub phase: String,
    /// The phase's first step.
    pub first_step: u64,
    /// The value that shows it, in words.
    pub what: String,
}

/// A sub-network's accuracy in a validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubnetValidation {
    /// The sub-network.
    pub arch: Arch,
    /// Share of images classified correctly.
    pub top1: f64,
    /// The counts behind it.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// The result of a validation within a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// Steps taken so far.
    pub step: u64,
    /// The phase's name.
    pub phase: String,
    /// Mean top-1 of the sub-networks, by which validations are compared.
    pub top1: f64,
    /// Whether it is the best of the phase so far.
    pub is_best: bool,
    /// The phase's largest and smallest sub-network.
    pub subnetworks: Vec<SubnetValidation>,
}

/// A phase that ended before its last step, because validation no longer improved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyEnd {
    /// Steps taken so far.
    pub step: u64,
    /// The phase's name.
    pub phase: String,
    /// Steps taken at its best validation.
    pub best_step: u64,
    /// The step at which the next phase begins.
    pub next_step: u64,
}

/// A lesson of the controller: means over all samples of its updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControllerRecord {
    /// Steps taken so far.
    pub step: u64,
    /// The phase's name.
    pub phase: String,
    /// Updates of the policy.
    pub updates: usize,
    /// Mean reward.
    pub reward: f64,
    /// Mean top-1 on minibatches of validation images.
    pub top1: f64,
    /// The rewards' moving average after the lesson.
    pub baseline: f64,
    /// Mean entropy of a sub-network's choices, in nats.
    pub entropy: f64,
    /// Share of links between nodes that were taken, where there are links.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<f64>,
}

/// The architecture parameters after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchitectureRecord {
    /// Steps taken so far.
    pub step: u64,
    /// The phase's name.
    pub phase: String,
    /// Mean entropy of a choice, in nats.
    pub entropy: f64,
    /// Mean probability of `skip_connect`.
    pub skips: f64,
    /// Choices that are `skip_connect` in the sub-network of now.
    pub derived_skips: usize,
    /// Whether skips have more than half of the probability: the search collapses.
    pub collapsed: bool,
    /// The sub-network that would be derived now.
    pub arch: Arch,
}

/// The sub-network that a controller or architecture parameters derived after the last step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DerivedRecord {
    /// Steps taken so far.
    pub step: u64,
    /// The sub-network.
    pub arch: Arch,
    /// Its reward, where it was chosen by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reward: Option<f64>,
    /// Different candidates that were scored.
    pub candidates: usize,
    /// Share of all validation images classified correctly, with statistics of training images.
    pub top1: f64,
    /// The counts behind it.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LogLine {
    /// The run was resumed.
    Resumed {
        /// The next step.
        resumed_from_step: u64,
        /// Seconds since 1970.
        time: u64,
    },
    /// The first checkpoint since the run began or was resumed was written.
    Checkpoint {
        /// Steps taken at the checkpoint.
        step: u64,
    },
    /// An image that cannot be used and is left out.
    SkippedImage {
        /// Path of the image.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A step.
    Step(StepRecord),
    /// A sub-network was evaluated.
    Evaluation {
        /// Steps taken so far.
        step: u64,
        /// The phase that ended.
        phase: String,
        /// The sub-network.
        arch: Arch,
        /// Split of the images.
        split: String,
        /// Share of images classified correctly.
        top1: f64,
        /// The counts behind it.
        #[serde(flatten)]
        accuracy: Accuracy,
    },
    /// A phase was validated, within it or at its end.
    Validation(ValidationRecord),
    /// A phase ended early.
    EndedEarly(EarlyEnd),
    /// A report on conflicts between sub-networks.
    Conflict(ConflictRecord),
    /// The controller had a lesson.
    Controller(ControllerRecord),
    /// The state of architecture parameters.
    Architecture(ArchitectureRecord),
    /// A sub-network was derived.
    Derived(DerivedRecord),
    /// The run ended by a divergence.
    Diverged(Divergence),
}

impl LogLine {
    /// The sub-network, if the line is an evaluation after `steps` steps.
    pub fn evaluated_at(self, steps: u64) -> Option<Arch> {
        match self {
            Self::Evaluation { step, arch, .. } if step == steps => Some(arch),
            _ => None,
        }
    }

    /// The accuracy, if the line is an evaluation after `steps` steps.
    pub fn accuracy_at(&self, steps: u64) -> Option<Accuracy> {
        match self {
            Self::Evaluation { step, accuracy, .. } if *step == steps => Some(*accuracy),
            _ => None,
        }
    }

    /// Steps taken when the line was written; a resume cuts the lines beyond its checkpoint.
    pub fn steps_taken(&self) -> u64 {
        match self {
            Self::Resumed { resumed_from_step, .. } => *resumed_from_step,
            Self::SkippedImage { .. } => 0,
            Self::Step(record) => record.step + 1,
            Self::Validation(record) => record.step,
            Self::EndedEarly(end) => end.step,
            Self::Conflict(record) => record.step,
            Self::Controller(record) => record.step,
            Self::Architecture(record) => record.step,
            Self::Derived(record) => record.step,
            Self::Evaluation { step, .. } | Self::Checkpoint { step } => *step,
            // the steps after it take another course: no resume keeps the line
            Self::Diverged(_) => u64::MAX,
        }
    }

    /// Whether a checkpoint existed when the line was written.
    pub fn shows_checkpoint(&self) -> bool {
        match self {
            Self::Resumed { .. } | Self::Checkpoint { .. } => true,
            Self::Evaluation { step, .. } => *step > 0,
            Self::SkippedImage { .. } | Self::Step(_) | Self::Diverged(_) => false,
            Self::Validation(_) | Self::EndedEarly(_) | Self::Conflict(_) => false,
            Self::Controller(_) | Self::Architecture(_) | Self::Derived(_) => false,
        }
    }
}
