//! The origin of an estimator that was imported from another program.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kinds of predictors of the package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OfaPredictor {
    /// `ofa.tutorial`'s: kernels of all blocks, expand ratios, then eight input sizes.
    Tutorial,
    /// `ofa.nas.accuracy_predictor`'s: input sizes, kernels of all blocks, expand ratios.
    Library,
}

impl fmt::Display for OfaPredictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tutorial => "tutorial",
            Self::Library => "library",
        })
    }
}

/// Where an imported estimator comes from. Nothing is known of the rows that it was fitted to, nor of its error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportedPredictor {
    /// The kind of predictor.
    pub kind: OfaPredictor,
    /// Name of the file, without its folders.
    pub file: String,
    /// BLAKE3 of the file, in hexadecimal.
    pub blake3: String,
    /// The input sizes that the columns for input sizes stand for, in order.
    pub resolutions: Vec<usize>,
    /// Whether it predicts per cent, so that the last layer was divided by 100.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_cent: bool,
}
