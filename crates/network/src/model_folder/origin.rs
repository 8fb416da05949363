//! The origin of an exported network, and its changes since.

use serde::{Deserialize, Serialize};

use crate::data::Split;
use crate::eval::Accuracy;

/// The measured accuracy of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredAccuracy {
    /// Share of images whose class was found.
    pub top1: f64,
    /// Images it was counted on.
    pub n: usize,
    /// Split they are of.
    pub split: String,
    /// The selection that used images of that split, if any: the network then looks better on them than it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selected_on: Option<SelectedOn>,
}

impl MeasuredAccuracy {
    /// An accuracy measured on a split.
    pub fn of(accuracy: Accuracy, split: Split) -> Self {
        Self { top1: accuracy.top1(), n: accuracy.n, split: split.to_string(), selected_on: None }
    }

    /// The counts behind it.
    pub fn accuracy(&self) -> Accuracy {
        Accuracy { correct: (self.top1 * self.n as f64).round() as usize, n: self.n }
    }
}

/// The criterion by which a search selected a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectedOn {
    /// Split that the images are of.
    pub split: String,
    /// Number of images.
    pub n: u64,
    /// The criterion in words.
    pub how: String,
}

/// Where the batch norms' statistics come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StatisticsOrigin {
    /// Gathered on training images.
    Calibrated {
        /// Number of images.
        images: usize,
        /// Name and hash of the data set.
        data: String,
        /// Seed that drew them.
        seed: u64,
    },
    /// Statistics of the supernet's largest network, as they lie in its file, for the leading channels that the network
    /// has.
    Inherited,
}

/// Where the network comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelOrigin {
    /// Version of the tool that wrote the folder.
    pub tool: String,
    /// Kernels that computed the statistics.
    #[serde(rename = "kernels")]
    pub backend: String,
    /// blake3 of the supernet's file.
    pub supernet: String,
    /// Where the batch norms' statistics come from.
    pub statistics: StatisticsOrigin,
    /// Predicted share of images whose class is found, where a search predicted one.
    pub predicted_top1: Option<f64>,
    /// Predicted latency in milliseconds, where a search predicted one.
    pub predicted_latency_ms: Option<f64>,
    /// Accuracy as counted after the export, or after the last fine-tuning.
    pub measured: Option<MeasuredAccuracy>,
    /// Changes of the weights since the export, in order; empty for a sub-network with the supernet's weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fine_tuned: Vec<FineTuned>,
}

/// One fine-tuning: from which model, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuned {
    /// The model before.
    pub from: FineTunedFrom,
    /// Version of the tool that trained.
    pub tool: String,
    /// Kernels that computed the weights.
    #[serde(rename = "kernels")]
    pub backend: String,
    /// Name and hash of the training data.
    pub data: String,
    /// Hash of the plan, which holds all that follows and the optimizer's settings.
    pub plan: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Passes over the training images.
    pub epochs: f64,
    /// Images per step.
    pub batch: usize,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Steps taken.
    pub steps: u64,
    /// blake3 of the file of the supernet whose largest network taught, if one did.
    pub teacher: Option<String>,
    /// Whether the classifier was made afresh, for other classes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_head: bool,
}

/// The start of a fine-tuning, and the values that it replaced in [`ModelOrigin`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTunedFrom {
    /// blake3 of its `model.safetensors`.
    pub model: String,
    /// Version of the tool that wrote it.
    pub tool: String,
    /// Kernels that computed its statistics.
    #[serde(rename = "kernels")]
    pub backend: String,
    /// Where its batch norms' statistics came from.
    pub statistics: StatisticsOrigin,
    /// Accuracy as counted when it was written.
    pub measured: Option<MeasuredAccuracy>,
    /// Accuracy as counted before the first step, on the images of [`ModelOrigin::measured`].
    pub counted: MeasuredAccuracy,
}
