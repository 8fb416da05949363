//! Validation within a phase: the settings of a recipe, and the steps of a plan.

use serde::{Deserialize, Serialize};

use super::plan::PlannedPhase;
use crate::error::{Error, Result};

/// How often a phase is validated, on which images, and how long it may go without improvement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationSettings {
    /// Passes over the training images between two validations of a phase.
    pub every_epochs: f64,
    /// Validation images, drawn with a constant seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<usize>,
    /// Number of validations in a row without improvement that ends the phase; by default it runs to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
}

impl ValidationSettings {
    /// Checks the fields; `place` names the recipe in messages.
    ///
    /// # Errors
    /// If one is out of range.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        let refused = |field: &str, expected: &str, got: String| {
            Err(Error::invalid(place, format!("validation.{field}"), expected, got))
        };
        if !(self.every_epochs > 0.0 && self.every_epochs <= 1e6) {
            return refused("every_epochs", "above 0, at most 1000000", self.every_epochs.to_string());
        }
        if self.images == Some(0) {
            return refused("images", "1 or more", "0".to_string());
        }
        if self.patience == Some(0) {
            return refused("patience", "1 or more", "0".to_string());
        }
        Ok(())
    }
}

/// Validation within a phase in steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedValidation {
    /// Settings of the recipe.
    #[serde(flatten)]
    pub settings: ValidationSettings,
    /// Steps between two validations of a phase, at least one.
    pub every_steps: u64,
}

impl PlannedValidation {
    /// Converts settings to steps.
    pub(super) fn new(settings: ValidationSettings, steps_per_epoch: u64) -> Self {
        let every_steps = (settings.every_epochs * steps_per_epoch as f64).round() as u64;
        Self { settings, every_steps: every_steps.max(1) }
    }

    /// Whether a phase is validated when `step` steps are taken, in its middle or at its end.
    pub(super) fn is_due(&self, phase: &PlannedPhase, step: u64) -> bool {
        let taken = step.saturating_sub(phase.first_step);
        step == phase.end() || taken > 0 && taken.is_multiple_of(self.every_steps)
    }
}
