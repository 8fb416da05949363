//! The versions of a recipe file.

use base::document;
use network::data::{AugmentationSettings, Sampling};
use serde::{Deserialize, Serialize};

use super::{Allowed, Phase, Recipe};
use crate::error::{Error, Result};
use crate::train::architecture::ArchitectureRecipe;
use crate::train::class_weights::ClassWeights;
use crate::train::controller::ControllerRecipe;
use crate::train::draw::Draw;
use crate::train::optimizer::OptimizerSettings;
use crate::train::teacher::{Distillation, Dropout, Teacher};
use crate::train::validation::ValidationSettings;

/// The version written, and the versions read.
pub(super) const VERSION: u32 = 2;
const VERSIONS: [u32; 2] = [1, VERSION];

const FORM: &str = "a recipe in TOML";

/// Reads a recipe, and returns the version of the text.
pub(super) fn read(place: &str, text: &str) -> Result<(Recipe, u32)> {
    let version = document::toml_version(place, text, &VERSIONS, FORM)?;
    let recipe = match version {
        1 => {
            let file: File<FirstPhase> = document::read_toml(place, text, version, FORM)?;
            if file.optimizer.is_some() {
                return Err(Error::invalid(place, "optimizer", "none in version 1", "a table"));
            }
            let teaching = file.phases.iter().find(|phase| !phase.head_only);
            let teaching = teaching.map_or_else(String::new, |phase| phase.name.clone());
            file.into_recipe(place, |phase| phase.into_phase(&teaching))?
        }
        _ => {
            let file: File<Phase> = document::read_toml(place, text, version, FORM)?;
            file.into_recipe(place, |phase| phase)?
        }
    };
    Ok((recipe, version))
}

fn is_default(settings: &AugmentationSettings) -> bool {
    *settings == AugmentationSettings::default()
}

fn one() -> usize {
    1
}

pub(in crate::train) fn is_one(count: &usize) -> bool {
    *count == 1
}

/// The fields of all versions; `P` is a phase.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File<P> {
    version: u32,
    name: String,
    batch: usize,
    lr_batch: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    momentum: Option<f32>,
    weight_decay: f32,
    label_smoothing: f32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gradient_clip: Option<f32>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    accumulation: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ema_decay: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    optimizer: Option<OptimizerSettings>,
    #[serde(default, skip_serializing_if = "Sampling::is_default")]
    sampling: Sampling,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    class_weights: Option<ClassWeights>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<ValidationSettings>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    controller: Option<ControllerRecipe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    architecture: Option<ArchitectureRecipe>,
    #[serde(default, skip_serializing_if = "is_default")]
    augmentation: AugmentationSettings,
    phases: Vec<P>,
}

/// A phase of version 1: a number of random sub-networks, taught by the first whole phase or not taught.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FirstPhase {
    name: String,
    allowed: Allowed,
    subnetworks: usize,
    epochs: f64,
    warmup_epochs: f64,
    lr: f64,
    distill: bool,
    sort_channels: bool,
    #[serde(default)]
    head_only: bool,
}

impl<P> File<P> {
    fn into_recipe(self, place: &str, phase: impl Fn(P) -> Phase) -> Result<Recipe> {
        let optimizer = OptimizerSettings::of_recipe(place, self.momentum, self.optimizer)?;
        Ok(Recipe {
            name: self.name,
            batch: self.batch,
            lr_batch: self.lr_batch,
            optimizer,
            weight_decay: self.weight_decay,
            label_smoothing: self.label_smoothing,
            gradient_clip: self.gradient_clip,
            accumulation: self.accumulation,
            ema_decay: self.ema_decay,
            sampling: self.sampling,
            class_weights: self.class_weights,
            validation: self.validation,
            controller: self.controller,
            architecture: self.architecture,
            augmentation: self.augmentation,
            phases: self.phases.into_iter().map(phase).collect(),
        })
    }
}

impl FirstPhase {
    fn into_phase(self, teaching: &str) -> Phase {
        Phase {
            name: self.name,
            allowed: self.allowed,
            draw: vec![Draw::Random(self.subnetworks)],
            epochs: self.epochs,
            warmup_epochs: self.warmup_epochs,
            lr: self.lr,
            lr_floor: 0.0,
            distillation: Distillation::default(),
            dropout: Dropout::default(),
            teacher: if self.distill { Teacher::Phase(teaching.to_string()) } else { Teacher::None },
            sort_channels: self.sort_channels,
            head_only: self.head_only,
        }
    }
}

impl From<Recipe> for File<Phase> {
    fn from(recipe: Recipe) -> Self {
        let (momentum, optimizer) = recipe.optimizer.fields();
        Self {
            version: VERSION,
            name: recipe.name,
            batch: recipe.batch,
            lr_batch: recipe.lr_batch,
            momentum,
            weight_decay: recipe.weight_decay,
            label_smoothing: recipe.label_smoothing,
            gradient_clip: recipe.gradient_clip,
            accumulation: recipe.accumulation,
            ema_decay: recipe.ema_decay,
            optimizer,
            sampling: recipe.sampling,
            class_weights: recipe.class_weights,
            validation: recipe.validation,
            controller: recipe.controller,
            architecture: recipe.architecture,
            augmentation: recipe.augmentation,
            phases: recipe.phases,
        }
    }
}
