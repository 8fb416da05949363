//! The plan of a run in steps: a recipe applied to a data set of a given size.

use std::f64::consts::PI;
use std::fmt;

use base::document::sorted_json;
use base::random::rng_for;
use network::data::{Augmentation, Sampling};
use serde::{Serialize, Serializer};
use space::{Extent, SearchSpace};

use super::architecture::ArchitectureRecipe;
use super::controller::ControllerRecipe;
use super::cost_axis::CostKind;
use super::draw::{Candidates, Draw, DrawnBy, DrawnFrom};
use super::optimizer::OptimizerSettings;
use super::recipe::{Allowed, Phase, Recipe, is_one};
use super::teacher::{Distillation, Dropout, Teacher};
use super::validation::PlannedValidation;
use crate::error::Result;

/// One phase with its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedPhase {
    /// The phase of the recipe.
    pub phase: Phase,
    /// First step, counted over the whole run.
    pub first_step: u64,
    /// Number of steps, warm-up included.
    pub steps: u64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Learning rate after warm-up, scaled to the batch.
    pub scaled_lr: f64,
}

impl PlannedPhase {
    /// Learning rate of a step of this phase: linear from zero in warm-up, then half a cosine down to zero, or to the
    /// phase's floor, where it stays.
    pub fn lr(&self, step: u64) -> f32 {
        let within = step - self.first_step;
        let scheduled = scheduled_lr(self.scaled_lr, within, self.warmup_steps, self.steps);
        match within < self.warmup_steps {
            true => scheduled,
            false => scheduled.max((self.phase.lr_floor * self.scaled_lr) as f32),
        }
    }

    /// Number of sub-networks that a step trains.
    pub fn subnetworks(&self) -> usize {
        Draw::count(&self.phase.draw)
    }

    /// The step after its last.
    pub fn end(&self) -> u64 {
        self.first_step + self.steps
    }
}

/// `full      240 steps of 1 sub-networks`, in columns.
impl fmt::Display for PlannedPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:>4} steps of {} sub-networks", self.phase.name, self.steps, self.subnetworks())
    }
}

/// A phase as in a plan's file and hash: settings of version 1 stay in their fields, so that a plan keeps its hash,
/// and newer settings are in other fields.
#[derive(Serialize)]
struct PhaseForm<'a> {
    name: &'a str,
    allowed: &'a Allowed,
    subnetworks: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    draw: Option<&'a [Draw]>,
    epochs: f64,
    warmup_epochs: f64,
    lr: f64,
    distill: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lr_floor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    teacher: Option<&'a Teacher>,
    #[serde(skip_serializing_if = "Distillation::is_default")]
    distillation: Distillation,
    #[serde(skip_serializing_if = "Dropout::is_default")]
    dropout: Dropout,
    sort_channels: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    head_only: bool,
    first_step: u64,
    steps: u64,
    warmup_steps: u64,
    scaled_lr: f64,
}

impl Serialize for PlannedPhase {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let phase = &self.phase;
        let is_random = matches!(phase.draw[..], [Draw::Random(_)]);
        let form = PhaseForm {
            name: &phase.name,
            allowed: &phase.allowed,
            subnetworks: Draw::count(&phase.draw),
            draw: (!is_random).then_some(&phase.draw),
            epochs: phase.epochs,
            warmup_epochs: phase.warmup_epochs,
            lr: phase.lr,
            distill: phase.teacher != Teacher::None,
            lr_floor: Some(phase.lr_floor).filter(|floor| *floor > 0.0),
            distillation: phase.distillation,
            dropout: phase.dropout,
            teacher: Some(&phase.teacher).filter(|teacher| matches!(teacher, Teacher::First | Teacher::File)),
            sort_channels: phase.sort_channels,
            head_only: phase.head_only,
            first_step: self.first_step,
            steps: self.steps,
            warmup_steps: self.warmup_steps,
            scaled_lr: self.scaled_lr,
        };
        form.serialize(serializer)
    }
}

/// Learning rate of step `within` of `steps`: linear from zero up to `lr` in warm-up, then half a cosine down to
/// zero.
pub(super) fn scheduled_lr(lr: f64, within: u64, warmup_steps: u64, steps: u64) -> f32 {
    let scheduled = if within < warmup_steps {
        lr * (within + 1) as f64 / warmup_steps as f64
    } else {
        let share = (within - warmup_steps) as f64 / (steps - warmup_steps).max(1) as f64;
        0.5 * lr * (1.0 + (PI * share).cos())
    };
    scheduled as f32
}

/// Hash of a plan: of its JSON text with sorted keys.
pub(super) fn hash_of(plan: &impl Serialize) -> String {
    let text = sorted_json(plan).expect("a plan is plain data");
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Everything that determines the result of a run, except the first values of the weights.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingPlan {
    /// The recipe's name.
    pub recipe: String,
    /// Seed of all random draws.
    pub seed: u64,
    /// Images per step.
    pub batch: usize,
    /// Steps per pass over the training images.
    pub steps_per_epoch: u64,
    /// The optimizer and its settings.
    #[serde(flatten, serialize_with = "OptimizerSettings::serialize_fields")]
    pub optimizer: OptimizerSettings,
    /// Decay of kernels and matrices.
    pub weight_decay: f32,
    /// Label smoothing.
    pub label_smoothing: f32,
    /// Greatest size of a component of the gradient in a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_clip: Option<f32>,
    /// Number of parts that a step's images are computed in.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulation: usize,
    /// Decay of the moving average of the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema_decay: Option<f32>,
    /// Sampling of the images in an epoch.
    #[serde(skip_serializing_if = "Sampling::is_default")]
    pub sampling: Sampling,
    /// Weight of each class in the loss, by label, if the weights differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f64>>,
    /// Validation within the phases, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<PlannedValidation>,
    /// The controller that draws sub-networks, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<ControllerRecipe>,
    /// The architecture parameters, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<ArchitectureRecipe>,
    /// Augmentation of the images; plans older than this field have none and use [`Augmentation::unsaid`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<Augmentation>,
    /// blake3 of the file of the first weights, unless they are fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// blake3 of the teacher file, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// Hash of the latency table, if sub-networks are drawn by latency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_table: Option<String>,
    /// The phases; those without a step are left out.
    pub phases: Vec<PlannedPhase>,
}

impl TrainingPlan {
    /// Converts a recipe, suited to its space, to steps; a phase with any epochs has at least one step.
    pub fn new(recipe: &Recipe, steps_per_epoch: u64, seed: u64) -> Self {
        let steps_of = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let mut first_step = 0;
        let mut phases = Vec::new();
        for phase in &recipe.phases {
            let warmup_steps = steps_of(phase.warmup_epochs);
            let steps = steps_of(phase.warmup_epochs + phase.epochs).max(u64::from(phase.epochs > 0.0));
            if steps == 0 {
                continue;
            }
            let scaled_lr = phase.lr * recipe.batch as f64 / recipe.lr_batch as f64;
            phases.push(PlannedPhase { phase: phase.clone(), first_step, steps, warmup_steps, scaled_lr });
            first_step += steps;
        }
        Self {
            recipe: recipe.name.clone(),
            seed,
            batch: recipe.batch,
            steps_per_epoch,
            optimizer: recipe.optimizer,
            weight_decay: recipe.weight_decay,
            label_smoothing: recipe.label_smoothing,
            gradient_clip: recipe.gradient_clip,
            accumulation: recipe.accumulation,
            ema_decay: recipe.ema_decay,
            sampling: recipe.sampling,
            class_weights: None,
            validation: recipe.validation.map(|settings| PlannedValidation::new(settings, steps_per_epoch)),
            controller: recipe.controller,
            architecture: recipe.architecture,
            augmentation: None,
            start: None,
            teacher: None,
            latency_table: None,
            phases,
        }
    }

    /// The phase whose network becomes the teacher: the first that trains all of it.
    pub fn teaching(&self) -> usize {
        self.phases.iter().position(|phase| !phase.phase.head_only).unwrap_or(0)
    }

    /// The cost by which attentive draws compare, or that counts in the controller's reward, if there is one.
    pub fn cost(&self) -> Option<CostKind> {
        let of_draws = self.phases.iter().flat_map(|phase| &phase.phase.draw).find_map(Draw::cost);
        of_draws.or(self.controller.and_then(|controller| controller.cost).map(|cost| cost.by))
    }

    /// Steps between two lessons of the controller, if there is one.
    pub fn lesson_steps(&self) -> Option<u64> {
        let steps = |controller: ControllerRecipe| controller.every_epochs * self.steps_per_epoch as f64;
        self.controller.map(|controller| (steps(controller).round() as u64).max(1))
    }

    /// Total number of steps.
    pub fn steps(&self) -> u64 {
        self.phases.last().map_or(0, PlannedPhase::end)
    }

    /// The phase that a step belongs to, and its index.
    pub fn phase_at(&self, step: u64) -> Option<(usize, &PlannedPhase)> {
        self.phases.iter().enumerate().find(|(_, phase)| step < phase.end())
    }

    /// The image resolution of a step: drawn from the space's, the same for all its sub-networks.
    pub fn resolution(&self, space: &SearchSpace, step: u64) -> Extent {
        use rand::seq::IndexedRandom;
        let mut rng = rng_for("resolution", self.seed, &[step]);
        *space.resolutions().choose(&mut rng).expect("a checked space has a resolution")
    }

    /// The candidates for each sub-network of a step: a function of seed and step, and of what decides beside chance, so that a resumed
    /// run draws the same.
    ///
    /// # Errors
    /// If a cost is needed and unknown.
    pub(super) fn candidates(
        &self,
        space: &SearchSpace,
        phase: &PlannedPhase,
        step: u64,
        by: DrawnBy,
    ) -> Result<Vec<Candidates>> {
        let allowed = &phase.phase.allowed.of(space);
        let from = DrawnFrom { allowed, resolution: self.resolution(space, step), by };
        Draw::candidates(&phase.phase.draw, &from, self.seed, step)
    }

    /// The spaces that the phases before one allowed: sorting channels must not change their sub-networks.
    pub fn trained_before(&self, space: &SearchSpace, phase: usize) -> Vec<SearchSpace> {
        self.phases[..phase].iter().map(|earlier| earlier.phase.allowed.of(space)).collect()
    }

    /// Hash of the plan.
    pub fn hash(&self) -> String {
        hash_of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cost_axis::CostAxis;
    use super::*;
    use space::{Ratio, Value, preset, sampler};

    fn recipe() -> Recipe {
        Recipe::progressive().suited_to(&preset("fashion").expect("a preset"))
    }

    #[test]
    fn phases_follow_one_another() {
        let plan = TrainingPlan::new(&recipe().scaled(0.1), 10, 1);
        assert_eq!(
            plan.phases.iter().map(|phase| phase.steps).collect::<Vec<_>>(),
            [180, 125, 25, 125, 25, 125]
        );
        assert_eq!(plan.steps(), 605);
        assert_eq!(plan.phase_at(180).map(|(index, _)| index), Some(1));
        assert_eq!(plan.phase_at(605), None);
        assert_eq!(TrainingPlan::new(&recipe().scaled(1e-9), 10, 1).steps(), 6, "at least a step each");
    }

    /// As written by builds older than draws and teachers; checkpoints hold the hash.
    #[test]
    fn a_phase_is_written_as_it_always_was() {
        let plan = TrainingPlan::new(&recipe(), 10, 1);
        let expected = serde_json::json!({
            "allowed": { "depth": 2, "expand": 1, "kernel": 9 }, "distill": true, "epochs": 25.0, "first_step": 3050,
            "lr": 0.08, "name": "depth 1", "scaled_lr": 0.0025, "sort_channels": false, "steps": 250, "subnetworks": 2,
            "warmup_epochs": 0.0, "warmup_steps": 0,
        });
        assert_eq!(serde_json::json!(plan.phases[2]), expected);
        let mut changed = plan.phases[2].clone();
        changed.phase.draw = vec![Draw::Largest, Draw::Random(3)];
        changed.phase.teacher = Teacher::First;
        let changed = serde_json::json!(changed);
        assert_eq!((&changed["subnetworks"], &changed["distill"]), (&4.into(), &true.into()));
        assert_eq!(changed["draw"], serde_json::json!(["largest", { "random": 3 }]));
        assert_eq!(changed["teacher"], "first");
    }

    #[test]
    fn learning_rate_rises_and_falls() {
        let plan = TrainingPlan::new(&recipe(), 10, 1);
        let kernel = &plan.phases[1];
        let top = 0.96 * 64.0 / 2048.0;
        assert!((f64::from(kernel.lr(kernel.first_step)) - top / 50.0).abs() < 1e-9);
        assert!((f64::from(kernel.lr(kernel.first_step + 50)) - top).abs() < 1e-9);
        assert!(f64::from(kernel.lr(kernel.end() - 1)) < top * 1e-3);
    }

    #[test]
    fn a_floor_is_a_constant_tail() {
        let mut plan = TrainingPlan::new(&recipe(), 10, 1);
        let kernel = &mut plan.phases[1];
        let before: Vec<f32> = (0..kernel.steps).map(|step| kernel.lr(kernel.first_step + step)).collect();
        kernel.phase.lr_floor = 0.05;
        let floor = (0.05 * kernel.scaled_lr) as f32;
        for (step, before) in before.into_iter().enumerate() {
            let expected = if step < 50 { before } else { before.max(floor) };
            assert_eq!(kernel.lr(kernel.first_step + step as u64), expected, "step {step}");
        }
        assert_eq!(kernel.lr(kernel.end() - 1), floor);
    }

    #[test]
    fn sub_networks_depend_on_seed_and_step_alone() {
        let space = preset("fashion").expect("a preset");
        let plan = TrainingPlan::new(&recipe(), 10, 3);
        let last = &plan.phases[5];
        let by = DrawnBy { cost: &CostAxis::Macs, pupil: None, logits: None };
        let draw = |step| plan.candidates(&space, last, step, by).expect("something to choose");
        assert_eq!(draw(last.first_step), draw(last.first_step));
        assert_ne!(draw(last.first_step), draw(last.first_step + 1));
        assert_eq!(draw(last.first_step).len(), 4);
        let full = &plan.phases[0];
        let largest = sampler::largest(&space);
        assert_eq!(plan.candidates(&space, full, 5, by).expect("one")[0].archs[0].at(28), largest);
    }

    #[test]
    fn trained_spaces_grow_with_the_phases() {
        let space = preset("fashion").expect("a preset");
        let plan = TrainingPlan::new(&recipe(), 10, 3);
        let ratios = |phase| {
            let trained = plan.trained_before(&space, phase);
            let last = trained.last().expect("an earlier phase").clone();
            let gene = last.genome().find("s1.b1.expand").expect("a gene");
            (trained.len(), last.genome().values_of(gene).collect::<Vec<_>>())
        };
        assert!(plan.trained_before(&space, 0).is_empty());
        assert_eq!(ratios(4), (4, vec![Value::Ratio(Ratio::whole(6))]));
        assert_eq!(ratios(5), (5, [4, 6].map(|ratio| Value::Ratio(Ratio::whole(ratio))).to_vec()));
    }
}
