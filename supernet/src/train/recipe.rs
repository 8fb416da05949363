//! A training recipe as data: phases in order, and their common settings.

mod built_in;
mod check;
mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use network::data::{AugmentationSettings, Sampling};
use serde::{Deserialize, Serialize};
use space::{FamilyName, RESOLUTION, SearchSpace};

pub use built_in::BuiltIn;
pub(super) use check::within;
pub(super) use file::is_one;

use super::architecture::ArchitectureRecipe;
use super::class_weights::ClassWeights;
use super::controller::ControllerRecipe;
use super::cost_axis::CostKind;
use super::draw::Draw;
use super::optimizer::OptimizerSettings;
use super::teacher::{Distillation, Dropout, Teacher};
use super::validation::ValidationSettings;
use crate::error::{Error, Result};

/// Learning rate for weights that are trained already, and its batch size (the last phase of Cai et al. 2020).
const FINE_TUNING_LR: f64 = 0.24;
const FINE_TUNING_BATCH: f64 = 2048.0;

/// Number of largest choices that a phase allows per dimension, such as `{ kernel = 3, depth = 1, expand = 1 }`. A
/// dimension that is not named allows its largest choice alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Allowed(BTreeMap<String, usize>);

impl Allowed {
    /// Allows this many of the largest choices of each kind.
    pub fn new(largest: &[(&str, usize)]) -> Self {
        Self(largest.iter().map(|(kind, most)| (kind.to_string(), *most)).collect())
    }

    /// Number of largest choices allowed of a kind.
    pub fn most(&self, kind: &str) -> usize {
        self.0.get(kind).copied().unwrap_or(1)
    }

    /// The space with only these choices. Resolutions are drawn separately, so all of them stay.
    #[must_use]
    pub fn of(&self, space: &SearchSpace) -> SearchSpace {
        let genome = space.genome();
        let resolution = genome.genes()[RESOLUTION].dimension.key;
        let dimensions = genome.dimensions().into_iter().filter(|dimension| dimension.key != resolution);
        space.restricted(&dimensions.map(|of| (of.key.to_string(), self.most(of.key))).collect())
    }

    /// Whether it names no kind with more than its largest choice.
    fn allows_one(&self) -> bool {
        self.0.values().all(|most| *most == 1)
    }

    /// Whether it allows nothing more than `before`, or more of a kind in which the space has a choice.
    fn adds_to(&self, before: &Self, space: &SearchSpace) -> bool {
        let kinds: BTreeSet<&String> = self.0.keys().chain(before.0.keys()).collect();
        let mut more = kinds.into_iter().filter(|kind| self.most(kind) > before.most(kind)).peekable();
        more.peek().is_none() || more.any(|kind| space.genome().is_elastic(kind))
    }
}

/// One phase of a recipe, as files of the newest version write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Name of the phase in plans and logs.
    pub name: String,
    /// The sub-networks that may be drawn.
    #[serde(default)]
    pub allowed: Allowed,
    /// The sub-networks that a step trains, their gradients summed.
    pub draw: Vec<Draw>,
    /// Passes over the training images, warm-up not counted.
    pub epochs: f64,
    /// Passes over the training images with a rising learning rate, before the others.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// Learning rate after warm-up, for [`Recipe::lr_batch`] images per step.
    pub lr: f64,
    /// Share of the rate below which it does not fall after warm-up: a constant tail. 0 has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lr_floor: f64,
    /// The source of soft labels.
    #[serde(default)]
    pub teacher: Teacher,
    /// What the networks that have a teacher learn from.
    #[serde(default, skip_serializing_if = "Distillation::is_default")]
    pub distillation: Distillation,
    /// Which networks have dropout.
    #[serde(default, skip_serializing_if = "Dropout::is_default")]
    pub dropout: Dropout,
    /// Whether inner channels are sorted by importance before the phase.
    #[serde(default)]
    pub sort_channels: bool,
    /// Whether only the classifier is trained: for given first weights that get a fresh classifier.
    #[serde(default)]
    pub head_only: bool,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Phase {
    /// Of a space with one network, a step trains that once, and no other network of the run can teach it.
    fn train_alone(&mut self) {
        let is_chosen = Draw::by_controller(&self.draw)
            || Draw::by_architecture(&self.draw)
            || self.draw.iter().any(|draw| draw.cost().is_some());
        if Draw::count(&self.draw) > 1 || is_chosen {
            self.draw = vec![Draw::Random(1)];
        }
        if self.teacher == Teacher::First {
            self.teacher = Teacher::None;
            self.distillation = Distillation::default();
        }
    }

    /// The phase with the largest network alone; a file may still teach it.
    fn of_the_largest(&self) -> Self {
        if self.allowed.allows_one() && self.teacher != Teacher::First {
            return self.clone();
        }
        let by_file = self.teacher == Teacher::File;
        Self {
            allowed: Allowed::default(),
            draw: vec![Draw::Largest],
            teacher: if by_file { Teacher::File } else { Teacher::None },
            distillation: if by_file { self.distillation } else { Distillation::default() },
            ..self.clone()
        }
    }
}

/// Phases and their common settings. Serializes as a file of the newest version.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "file::File<Phase>")]
pub struct Recipe {
    /// Name of the recipe.
    pub name: String,
    /// Images per step.
    pub batch: usize,
    /// Images per step of the learning rates, which are scaled in proportion (Goyal et al. 2017).
    pub lr_batch: usize,
    /// The optimizer and its settings.
    pub optimizer: OptimizerSettings,
    /// Decay of kernels and matrices; batch norms and biases do not decay.
    pub weight_decay: f32,
    /// Label smoothing.
    pub label_smoothing: f32,
    /// Greatest size of a component of the gradient in a step; larger ones are clamped to it.
    pub gradient_clip: Option<f32>,
    /// Number of parts that a step's images are computed in, one after the other, so that the memory is that of one part.
    pub accumulation: usize,
    /// Decay of the moving average of the weights, which each phase ends with.
    pub ema_decay: Option<f32>,
    /// Sampling of the images in an epoch.
    pub sampling: Sampling,
    /// Weight of each class in the loss; by default all are equal.
    pub class_weights: Option<ClassWeights>,
    /// Validation within the phases, if any.
    pub validation: Option<ValidationSettings>,
    /// The controller that draws sub-networks, if there is one.
    pub controller: Option<ControllerRecipe>,
    /// The architecture parameters, if there are any.
    pub architecture: Option<ArchitectureRecipe>,
    /// Augmentation of the images, where it does not follow from the data.
    pub augmentation: AugmentationSettings,
    /// The phases, in order.
    pub phases: Vec<Phase>,
}

impl Recipe {
    /// Once-for-all's progressive shrinking (Cai et al. 2020, section 3.4 and the authors' code): full network,
    /// kernels, depths in two steps, widths in two steps; batch 64 in place of 2,048, rates scaled in proportion.
    pub fn progressive() -> Self {
        Self::open(built_in::BUILT_IN[0].name).expect("checked by a test")
    }

    /// The recipe that suits a space if none is given: `uniform` where edges or layers choose their operators, for the largest
    /// of those networks is no teacher of the others, else `progressive`.
    pub fn default_for(space: &SearchSpace) -> Self {
        match space.family() {
            FamilyName::DenseCell | FamilyName::SkipLayers => {
                Self::open("uniform").expect("checked by a test")
            }
            _ => Self::progressive(),
        }
    }

    /// The recipes that come with the tool.
    pub fn built_in() -> impl Iterator<Item = BuiltIn> {
        built_in::BUILT_IN.into_iter()
    }

    /// The names of the recipes that come with the tool.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::built_in().map(|recipe| recipe.name)
    }

    /// The TOML text of a recipe that is given by its name or by the path of a file.
    ///
    /// # Errors
    /// If it is neither, or the file cannot be read.
    pub fn text_of(given: &str) -> Result<String> {
        match built_in::find(given) {
            Some(recipe) => Ok(recipe.text.to_string()),
            None => Ok(base::file::read_text(Path::new(given))?),
        }
    }

    /// Opens a recipe that is given by its name or by the path of a file.
    ///
    /// # Errors
    /// As [`Recipe::text_of`] and [`Recipe::from_toml`].
    pub fn open(given: &str) -> Result<Self> {
        let place = match built_in::find(given) {
            Some(recipe) => format!("recipe {}", recipe.name),
            None => given.to_string(),
        };
        Self::from_toml(&place, &Self::text_of(given)?)
    }

    /// Reads a recipe from TOML; `place` names it in messages.
    ///
    /// # Errors
    /// If the text is not TOML, or a field is missing, unknown or out of range.
    pub fn from_toml(place: &str, text: &str) -> Result<Self> {
        let (recipe, version) = file::read(place, text)?;
        recipe.check(place, version)?;
        Ok(recipe)
    }

    /// The name of the phase whose network is kept as a teacher: the first that trains the whole network.
    pub fn teaching(&self) -> Option<&str> {
        self.phases.iter().find(|phase| !phase.head_only).map(|phase| phase.name.as_str())
    }

    /// The cost by which its attentive draws compare, or that counts in its controller's reward, if there is one.
    pub fn cost(&self) -> Option<CostKind> {
        let of_draws = self.phases.iter().flat_map(|phase| &phase.draw).find_map(Draw::cost);
        of_draws.or(self.controller.and_then(|controller| controller.cost).map(|cost| cost.by))
    }

    /// The recipe with every phase's epochs multiplied.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Self {
        let mut scaled = self.clone();
        for phase in &mut scaled.phases {
            phase.epochs *= factor;
            phase.warmup_epochs *= factor;
        }
        scaled.architecture.iter_mut().for_each(|architecture| architecture.warmup_epochs *= factor);
        scaled
    }

    /// The recipe with this number of images per step; a plan scales its learning rates in proportion. A batch that is computed
    /// in parts stays so: in as few equal parts as are no larger than before.
    #[must_use]
    pub fn with_batch(&self, batch: usize) -> Self {
        let most = self.batch / self.accumulation;
        let parts = (1..=batch).find(|parts| batch.is_multiple_of(*parts) && batch / parts <= most);
        let accumulation = if self.accumulation == 1 { 1 } else { parts.unwrap_or(1) };
        Self { batch, accumulation, ..self.clone() }
    }

    /// The recipe with this learning rate in the first phase that trains the whole network (after warm-up, at the
    /// recipe's batch), and the rates of the other phases scaled in proportion.
    ///
    /// # Errors
    /// If a rate is then out of range.
    pub fn with_lr(&self, lr: f64) -> Result<Self> {
        let mut changed = self.clone();
        let target = lr * self.lr_batch as f64 / self.batch as f64;
        let before = self.phases.iter().find(|phase| !phase.head_only).map_or(0.0, |phase| phase.lr);
        if before <= 0.0 {
            return Err(Error::invalid(
                format!("recipe {}", self.name),
                "lr of the first whole phase",
                "above 0",
                before,
            )
            .and_then_do("give its phases rates in the recipe itself"));
        }
        for phase in &mut changed.phases {
            phase.lr *= target / before;
        }
        changed.check(&format!("recipe {} with a rate of {lr}", self.name), file::VERSION)?;
        Ok(changed)
    }

    /// The recipe for given first weights. If their classifier is kept, phases that train the classifier alone are
    /// left out; if it is fresh, the recipe begins with such a phase, a ninth as long as the next, at that phase's
    /// rate. Trained weights learn at most at the rate of a fine-tuning (0.24 for 2,048 images), unless the recipe
    /// has its own `head_only` phase and so was written for given weights.
    #[must_use]
    pub fn starting(&self, fresh_classifier: bool) -> Self {
        let mut starting = self.clone();
        let written_for_it = starting.phases.iter().any(|phase| phase.head_only);
        if !fresh_classifier {
            starting.phases.retain(|phase| !phase.head_only);
        }
        if let (false, Some(full)) = (written_for_it, starting.phases.first_mut()) {
            let head = Phase {
                name: "head".to_string(),
                epochs: full.epochs / 9.0,
                warmup_epochs: 0.0,
                head_only: true,
                ..full.of_the_largest()
            };
            full.lr = full.lr.min(FINE_TUNING_LR * self.lr_batch as f64 / FINE_TUNING_BATCH);
            if fresh_classifier {
                starting.phases.insert(0, head);
            }
        }
        starting
    }

    /// The recipe for fresh weights, which are all trained from the first step on.
    #[must_use]
    pub fn from_scratch(&self) -> Self {
        let phases = self.phases.iter().filter(|phase| !phase.head_only).cloned().collect();
        Self { phases, ..self.clone() }
    }

    /// The recipe without the phases that add only choices that the space lacks: a kernel phase trains nothing new in
    /// a space of one kernel. In a space of one network, each step trains it once.
    #[must_use]
    pub fn suited_to(&self, space: &SearchSpace) -> Self {
        let mut suited = Self { phases: Vec::new(), ..self.clone() };
        let mut before = None;
        for phase in &self.phases {
            if before.is_none_or(|before| phase.allowed.adds_to(before, space)) {
                suited.phases.push(phase.clone());
            }
            before = Some(&phase.allowed);
        }
        if space.subnetworks() == 1u32.into() {
            suited.phases.iter_mut().for_each(Phase::train_alone);
            suited.controller = None;
            suited.architecture = None;
        }
        suited
    }
}

#[cfg(test)]
mod tests;
