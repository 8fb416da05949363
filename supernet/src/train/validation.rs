//! Validation within a phase: the settings of a recipe, and the steps of a plan.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use space::{Arch, Dimension, End, SearchSpace, sampler};

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
    /// Sub-networks that are validated.
    #[serde(default, skip_serializing_if = "Validated::is_default")]
    pub subnetworks: Validated,
    /// Number of validations in a row without improvement that ends the phase; by default it runs to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
}

/// The sub-networks of a validation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validated {
    /// The phase's largest and smallest at the highest resolution.
    #[default]
    Ends,
    /// Every combination of the least and the most of each kind of choice, at the lowest and the highest resolution
    /// (Cai et al. 2020, the authors' code).
    Corners,
}

impl Validated {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The sub-networks, of those that a phase allows.
    pub(super) fn archs(self, allowed: &SearchSpace) -> Vec<Arch> {
        let high = allowed.greatest_resolution();
        let mut archs = match self {
            Self::Ends => vec![sampler::largest(allowed), sampler::smallest(allowed).at(high)],
            Self::Corners => corners(allowed),
        };
        let mut seen = HashSet::new();
        archs.retain(|arch| seen.insert(arch.clone()));
        archs
    }
}

/// Every combination of the ends of each dimension of a space, resolution included, the largest first.
fn corners(space: &SearchSpace) -> Vec<Arch> {
    let genome = space.genome();
    let elastic = genome.dimensions().into_iter().filter(|dimension| genome.is_elastic(dimension.key));
    let keys: Vec<&str> = elastic.map(|dimension| dimension.key).collect();
    let corner = |most: usize| {
        let end = |dimension: Dimension| {
            let place = keys.iter().position(|key| *key == dimension.key);
            if place.is_some_and(|place| most >> place & 1 == 0) { End::Smallest } else { End::Largest }
        };
        space.arch(&genome.corner(end))
    };
    (0..1usize << keys.len()).rev().map(corner).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use space::preset;

    #[test]
    fn corners_are_all_combinations_of_ends() {
        let space = preset("fashion").expect("a preset");
        let archs = Validated::Corners.archs(&space);
        // resolution, kernel, depth, ratio
        assert_eq!(archs.len(), 16);
        assert_eq!(archs[0], sampler::largest(&space));
        assert_eq!(archs[15], sampler::smallest(&space));
        let texts: Vec<String> = archs.iter().map(Arch::to_string).collect();
        for text in [
            "r28:k3e3,k3e3/k3e3,k3e3",
            "r20:k3e3,k3e3,k3e3,k3e3/k3e3,k3e3,k3e3,k3e3",
            "r28:k7e6,k7e6/k7e6,k7e6",
        ] {
            assert!(texts.iter().any(|known| known == text), "{text} of {texts:?}");
        }
        let ends = [texts[0].clone(), "r28:k3e3,k3e3/k3e3,k3e3".to_string()];
        assert_eq!(Validated::Ends.archs(&space).iter().map(Arch::to_string).collect::<Vec<_>>(), ends);
    }
}
