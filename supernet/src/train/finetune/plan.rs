//! The plan of a fine-tuning: checked settings for a model and its data.

use network::data::{Augmentation, AugmentationSettings, Sampling};
use network::model_folder::{Input, ModelConfig};
use serde::Serialize;

use super::FineTuneTask;
use crate::error::{Error, Result};
use crate::train::class_weights::WeightRule;
use crate::train::plan::{hash_of, scheduled_lr};

/// Largest number of epochs; with more, steps could no longer be counted.
const MOST_EPOCHS: f64 = 1e6;
/// Batch size of [`LR`]; the rate is scaled in proportion (Goyal et al. 2017).
const LR_BATCH: f64 = 2048.0;
/// Learning rate of once-for-all's last phase (Cai et al. 2020, the authors' code). For their fine-tuning, only the
/// numbers of epochs are published: 25 and 75.
const LR: f64 = 0.24;
/// Learning rate of fresh weights: that of the authors' first phase.
const FRESH_LR: f64 = 2.6;
/// Share of the steps that trains a fresh classifier alone.
const HEAD: f64 = 0.1;
/// Share of the other steps used for warm-up: as in the same phase, 5 of 125 epochs.
const WARMUP: f64 = 5.0 / 125.0;

fn is_zero(steps: &u64) -> bool {
    *steps == 0
}

/// Settings of a fine-tuning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FineTuneSettings {
    /// Passes over the training images, warm-up included.
    pub epochs: f64,
    /// Images per step.
    pub batch: usize,
    /// Learning rate after warm-up; by default 0.24 for 2,048 images, in proportion to the batch.
    pub lr: Option<f64>,
    /// Nesterov momentum.
    pub momentum: f32,
    /// Decay of kernels and matrices; batch norms and biases do not decay.
    pub weight_decay: f32,
    /// Label smoothing.
    pub label_smoothing: f32,
    /// Whether to replace the classifier by a fresh one for the images' classes. It is then trained alone for the
    /// first tenth of the steps, at the learning rate of fresh weights.
    pub new_head: bool,
    /// Sampling of the images in an epoch.
    pub sampling: Sampling,
    /// Weight of each class in the loss; by default all are equal.
    pub class_weights: Option<WeightRule>,
}

/// 25 epochs, as once-for-all's published models (names that end in `finetune-25`); all else as
/// [`Recipe::progressive`](crate::train::Recipe::progressive).
impl Default for FineTuneSettings {
    fn default() -> Self {
        Self {
            epochs: 25.0,
            batch: 64,
            lr: None,
            momentum: 0.9,
            weight_decay: 3e-5,
            label_smoothing: 0.1,
            new_head: false,
            sampling: Sampling::default(),
            class_weights: None,
        }
    }
}

impl FineTuneSettings {
    fn check(&self) -> Result<()> {
        let Self { epochs, batch, lr, momentum, weight_decay, label_smoothing, .. } = *self;
        let least = f64::MIN_POSITIVE;
        let bounds = [
            ("epochs", epochs, least, MOST_EPOCHS),
            ("batch", batch as f64, 1.0, 1e6),
            ("lr", lr.unwrap_or(LR), least, 1e3),
            ("momentum", f64::from(momentum), 0.0, 0.9999),
            ("weight_decay", f64::from(weight_decay), 0.0, 1.0),
            ("label_smoothing", f64::from(label_smoothing), 0.0, 0.999),
        ];
        for (field, value, low, high) in bounds {
            if !(low..=high).contains(&value) {
                let low = if low == least { "above 0".to_string() } else { low.to_string() };
                return Err(Error::invalid("fine-tuning", field, format!("{low} to {high}"), value));
            }
        }
        Ok(())
    }
}

/// Everything that determines the result of a fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FineTunePlan {
    /// blake3 of the first weights.
    pub model: String,
    /// Input of the network.
    pub input: Input,
    /// Hash of the training data.
    pub data: String,
    /// blake3 of the teacher's file, if there is one.
    pub teacher: Option<String>,
    /// Seed of all random draws.
    pub seed: u64,
    /// Passes over the training images.
    pub epochs: f64,
    /// Images per step.
    pub batch: usize,
    /// Steps per pass over the training images.
    pub steps_per_epoch: u64,
    /// Total number of steps, warm-up included; at least one.
    pub steps: u64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Learning rate after warm-up.
    pub lr: f64,
    /// Nesterov momentum.
    pub momentum: f32,
    /// Decay of kernels and matrices.
    pub weight_decay: f32,
    /// Label smoothing.
    pub label_smoothing: f32,
    /// First steps, in which a fresh classifier is trained alone; 0 if the model's classifier is kept.
    #[serde(skip_serializing_if = "is_zero")]
    pub head_steps: u64,
    /// Learning rate at the start of `head_steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_lr: Option<f64>,
    /// Sampling of the images in an epoch.
    #[serde(skip_serializing_if = "Sampling::is_default")]
    pub sampling: Sampling,
    /// Weight of each class in the loss, by label, if the weights differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<Vec<f64>>,
    /// Augmentation of the images; `None`, which is [`Augmentation::unsaid`], for a model whose `config.json` does not say how
    /// images are oriented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<Augmentation>,
}

impl FineTunePlan {
    /// Applies settings to the data; `begun` is the plan of a run to resume.
    ///
    /// # Errors
    /// If data or teacher do not fit the model, a setting is out of range, or a batch cannot be filled.
    pub(super) fn new(
        task: &FineTuneTask,
        settings: &FineTuneSettings,
        seed: u64,
        begun: Option<&serde_json::Value>,
    ) -> Result<Self> {
        settings.check()?;
        let FineTuneTask { model, dataset, teacher } = task;
        let dataset = &model.see(dataset)?;
        if let Some(teacher) = teacher {
            check_teacher(&model.config, teacher)?;
        }
        let FineTuneSettings { epochs, batch, lr, momentum, weight_decay, label_smoothing, new_head, .. } =
            *settings;
        let images = dataset.train().len();
        if images < batch {
            let place = format!("data {}", dataset.name());
            let expected = format!("at least a batch of {batch}");
            return Err(Error::invalid(place, "training images", expected, images)
                .and_then_do("choose a smaller batch"));
        }
        let said = model.config.input.orient.is_some();
        let steps_per_epoch = (images / batch) as u64;
        let steps = ((epochs * steps_per_epoch as f64).round() as u64).max(1);
        let head_steps = if new_head { (HEAD * steps as f64).round() as u64 } else { 0 };
        let augmentation = AugmentationSettings::default().as_begun(begun);
        Ok(Self {
            model: model.config.model_hash.clone(),
            input: model.config.input.clone(),
            data: dataset.hash().to_string(),
            teacher: teacher.as_ref().map(|teacher| teacher.hash.clone()),
            seed,
            epochs,
            batch,
            steps_per_epoch,
            steps,
            warmup_steps: (WARMUP * (steps - head_steps) as f64).round() as u64,
            lr: lr.unwrap_or(LR * batch as f64 / LR_BATCH),
            momentum,
            weight_decay,
            label_smoothing,
            head_steps,
            head_lr: new_head.then_some(FRESH_LR * batch as f64 / LR_BATCH),
            sampling: settings.sampling,
            class_weights: settings.class_weights.map(|rule| rule.weights(dataset)),
            augmentation: said.then(|| Augmentation::for_dataset(dataset, augmentation)).transpose()?,
        })
    }

    /// Learning rate of a step: linear from zero in warm-up, then half a cosine down to zero; half a cosine of its own
    /// while a fresh classifier is trained alone.
    pub fn lr_of(&self, step: u64) -> f32 {
        match (step.checked_sub(self.head_steps), self.head_lr) {
            (None, Some(lr)) => scheduled_lr(lr, step, 0, self.head_steps),
            (within, _) => {
                let within = within.unwrap_or_default();
                scheduled_lr(self.lr, within, self.warmup_steps, self.steps - self.head_steps)
            }
        }
    }

    /// Hash of the plan.
    pub fn hash(&self) -> String {
        hash_of(self)
    }
}

/// Checks that the teacher's logits can be compared with the model's.
fn check_teacher(model: &ModelConfig, teacher: &network::checkpoint::Supernet) -> Result<()> {
    let space = &teacher.space;
    let pairs = [
        ("channels", model.input.channels, space.input_channels()),
        ("classes", model.classes.len(), space.classes()),
    ];
    for (field, expected, got) in pairs {
        if expected != got {
            let place = format!("teacher of space {}", space.name());
            return Err(Error::invalid(place, field, expected, got)
                .and_then_do("give a supernet of the model's classes, or none"));
        }
    }
    Ok(())
}
