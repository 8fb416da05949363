//! Fine-tuning: one exported network trained further, from a model folder to a folder of the same kind.
//!
//! During the run the folder holds `plan.json`, `log.jsonl` and `checkpoint.safetensors`, as in any training. At the
//! end, `model.safetensors` and `config.json` replace the checkpoint (`result`). A step's images are a function of
//! seed and step, so a run that was killed and resumed ends with the same bytes.

mod plan;
mod result;
mod state;
mod static_network;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base::random::rng_for;
use base::timing::Stopwatch;
use candle_core::Tensor;
use network::arena::ArenaPart;
use network::checkpoint::Supernet;
use network::data::{Augmentation, Batch, Dataset, LoaderConfig, TrainLoader};
use network::elastic::fresh_classifier;
use network::eval::Accuracy;
use network::model_folder::{ModelFolder, config_path, weights_path};
use space::sampler;

pub use plan::{FineTunePlan, FineTuneSettings};
pub use state::FineTuneCheckpoint;
pub use static_network::StaticNetwork;

use super::events::Points;
use super::loss::{Loss, Target};
use super::optimizer::Nesterov;
use super::prefetcher::Prefetcher;
use super::record::{Divergence, LogLine, StepRecord};
use super::resumed::{Resumed, log_beginning};
use super::run_folder::RunFolder;
use super::step::{Student, dropout_mask, most_loss};
use super::steps::{Learner, Pace, Taken, take_steps};
use super::trainer::{RunOutcome, TrainConfig};
use crate::error::{Error, Result};

/// Name of the only phase in the log.
const PHASE: &str = "fine-tune";

/// The model, the images and the teacher of a fine-tuning.
pub struct FineTuneTask {
    /// The exported network.
    pub model: ModelFolder,
    /// Images of the model's classes.
    pub dataset: Dataset,
    /// A supernet whose largest network is the teacher.
    pub teacher: Option<Supernet>,
}

impl FineTuneTask {
    /// Gives the model a fresh classifier for the images' classes; its hash stays that of the original weights.
    fn with_fresh_classifier(self, seed: u64) -> Result<Self> {
        let Self { mut model, dataset, teacher } = self;
        let config = &mut model.config;
        config.classes = dataset.classes().to_vec();
        config.space = config.space.with_classes(config.classes.len())?;
        let parts = ArenaPart::of_layers(&config.space.lower(&config.arch)?);
        model.tensors.extend(fresh_classifier(parts, &mut rng_for("classifier", seed, &[]))?);
        Ok(Self { model, dataset, teacher })
    }
}

/// A fine-tuning run, between two steps.
pub struct FineTuner {
    model: ModelFolder,
    dataset: Arc<Dataset>,
    teacher: Option<Supernet>,
    plan: FineTunePlan,
    config: TrainConfig,
    folder: RunFolder,
    network: StaticNetwork,
    optimizer: Nesterov,
    step: u64,
    resumed: Option<Resumed>,
    /// Steps taken at the checkpoint in the folder.
    saved: Option<u64>,
    /// Accuracy before the first step, once measured.
    before: Option<Accuracy>,
    /// Accuracy of the fine-tuned network, once it is written.
    after: Option<Accuracy>,
}

/// Opens a folder for a fine-tuning, and creates it if needed.
///
/// # Errors
/// If the folder holds a model that no fine-tuning wrote there, is used and `resume` is false, another process holds
/// it, or it cannot be written.
pub fn open_fine_tune_folder(path: &Path, resume: bool) -> Result<RunFolder> {
    let results = [config_path(path), weights_path(path)];
    if results.iter().any(|file| file.exists()) && !path.join("plan.json").exists() {
        return Err(base::Error::Occupied {
            path: path.to_path_buf(),
            reason: "the folder holds a model that no fine-tuning wrote there".to_string(),
            next: "choose another folder".to_string(),
        }
        .into());
    }
    RunFolder::open_for(path, resume, &["config.json", "model.safetensors"])
}

impl FineTuner {
    /// Prepares a run: from the folder's last checkpoint if there is one, else from the model's weights. Images are
    /// preprocessed as the model's `config.json` says, and labeled in the order of its classes.
    ///
    /// # Errors
    /// If data or teacher do not fit the model, a setting is out of range, or the folder holds another run.
    pub fn new(
        task: FineTuneTask,
        settings: &FineTuneSettings,
        folder: RunFolder,
        config: TrainConfig,
    ) -> Result<Self> {
        let task = if settings.new_head { task.with_fresh_classifier(config.seed)? } else { task };
        let plan = FineTunePlan::new(&task, settings, config.seed, folder.planned().as_ref())?;
        let FineTuneTask { model, dataset, teacher } = task;
        let dataset = model.see(&dataset)?;
        let teacher = teacher.map(|teacher| teacher.on(&config.backend)).transpose()?;
        let dataset = Arc::new(dataset);
        let network = StaticNetwork::of_model(&model, &config.backend)?;
        let optimizer = Nesterov::new(network.weights(), plan.momentum, plan.weight_decay, &config.backend)?;
        let mut tuner = Self {
            model,
            dataset,
            teacher,
            plan,
            config,
            folder,
            network,
            optimizer,
            step: 0,
            resumed: None,
            saved: None,
            before: None,
            after: None,
        };
        tuner.resume()?;
        Ok(tuner)
    }

    /// The plan of the run.
    pub fn plan(&self) -> &FineTunePlan {
        &self.plan
    }

    /// The run's folder, where the fine-tuned model is written.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// Also writes the log as TensorBoard events, as [`Trainer::write_events`](super::Trainer::write_events) does.
    pub fn write_events(&mut self) {
        self.folder.write_events(Points { batch: self.plan.batch, largest: None });
    }

    /// How the run was resumed, if it was.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// Accuracy of the given model on the `val` split, once measured before the first step.
    pub fn before(&self) -> Option<Accuracy> {
        self.before
    }

    /// Accuracy on the `val` split of the fine-tuned model, once it is written.
    pub fn after(&self) -> Option<Accuracy> {
        self.after
    }

    /// Milliseconds per step, timed on one step; the state does not change.
    ///
    /// # Errors
    /// If a step fails.
    pub fn time_step(&self) -> Result<f64> {
        let batch = self.loader()?.batch_at(self.step, self.model.config.arch.resolution)?;
        let batch = batch.on(&self.config.backend)?;
        let learn = || self.learn(self.step, &batch)?.read();
        learn()?;
        let watch = Stopwatch::start();
        learn()?;
        let ms = watch.elapsed_ms();
        self.network.clear()?;
        Ok(ms)
    }

    fn loader(&self) -> Result<TrainLoader> {
        let augmentation = self.plan.augmentation.unwrap_or_else(|| Augmentation::unsaid(&self.dataset));
        let FineTunePlan { batch, seed, sampling, .. } = self.plan;
        let config = LoaderConfig { batch, seed, augmentation, sampling };
        let resolution = self.model.config.arch.resolution;
        Ok(TrainLoader::new(self.dataset.clone(), config, self.step, move |_| resolution)?)
    }

    /// Trains until all steps are taken and the model is written, or `stop` is set, whichever comes first; `report`
    /// receives each step and evaluation as a line of the log.
    ///
    /// # Errors
    /// If the run diverges ([`Error::Diverged`]), or an image or a file cannot be read or written; the last good
    /// checkpoint then remains.
    pub fn run(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(&LogLine)) -> Result<RunOutcome> {
        if self.after.is_some() {
            return Ok(RunOutcome::Finished);
        }
        let ended = self.take_all_steps(stop, report);
        if let Err(Error::Diverged { step, phase, what, .. }) = &ended {
            let step = *step;
            let phase = phase.clone();
            let what = what.clone();
            self.folder.note_divergence(Divergence { step, phase, first_step: 0, what });
        }
        ended
    }

    fn take_all_steps(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(&LogLine)) -> Result<RunOutcome> {
        log_beginning(&mut self.folder, self.resumed.as_ref(), &self.dataset)?;
        let mut done = self.count_before(stop, report)? && !Self::stopped(stop);
        if done && self.step < self.plan.steps {
            let side = self.model.config.arch.resolution;
            let values = self.plan.batch * self.model.config.space.input_channels() * side.plane();
            let mut batches = Prefetcher::new(self.loader()?, &self.config.backend, values)?;
            let pace = Pace { steps: 0..self.plan.steps, every: self.config.checkpoint_every, stop };
            done = take_steps(self, &pace, &mut batches, report)? == Taken::All;
            if done {
                self.save()?;
            }
        }
        if done && self.finish(stop, report)? {
            return Ok(RunOutcome::Finished);
        }
        Ok(RunOutcome::Interrupted { step: self.step })
    }

    /// Adds the gradients of a step and returns its loss.
    fn learn(&self, step: u64, batch: &Batch) -> Result<Loss> {
        let space = &self.model.config.space;
        let teacher = self.soft_labels(&batch.inputs)?;
        let labels = batch.targets.classes();
        let partners = batch.targets.partners();
        let smoothing = self.plan.label_smoothing;
        let class_weights = self.plan.class_weights.as_deref();
        let teacher = teacher.as_ref();
        let target = Target { labels, partners, smoothing, teacher, class_weights, ..Default::default() };
        let dropout = dropout_mask(space, &self.model.config.arch, batch.len(), self.plan.seed, [step, 0])?;
        self.network.learn(&batch.inputs, &target, dropout)
    }

    /// The loss, unless it has exploded.
    fn read(&self, step: u64, loss: &Loss) -> Result<f32> {
        let loss = loss.read()?;
        if loss.is_nan() || loss > most_loss(self.model.config.space.classes()) {
            return Err(self.diverged(step, format!("the loss is {loss}")));
        }
        Ok(loss)
    }

    /// The logits of the teacher's largest network, on the model's images.
    fn soft_labels(&self, images: &Tensor) -> Result<Option<Tensor>> {
        let Some(Supernet { space, weights, .. }) = &self.teacher else { return Ok(None) };
        let teacher = Student { space, weights, backend: self.config.backend.clone() };
        teacher.teach(&sampler::largest(space).at(images.dim(3)?), images).map(Some)
    }

    fn stopped(stop: &AtomicBool) -> bool {
        stop.load(Ordering::Relaxed)
    }
}

impl Learner for FineTuner {
    fn next_step(&self) -> u64 {
        self.step
    }

    fn take_step(&mut self, batch: &Batch, watch: &mut Stopwatch) -> Result<StepRecord> {
        let step = self.step;
        let lr = self.plan.lr_of(self.step);
        let loss = self.learn(step, batch)?;
        match step < self.plan.head_steps {
            true => self.network.step_head(&mut self.optimizer, lr)?,
            false => self.network.step(&mut self.optimizer, lr)?,
        }
        // read last, as in a supernet's training
        let loss = self.read(step, &loss)?;
        self.step += 1;
        let resolution = self.model.config.arch.resolution;
        let ms = watch.lap().as_secs_f64() * 1e3;
        Ok(StepRecord { step, phase: PHASE.to_string(), loss, lr, resolution, ms })
    }

    fn save(&mut self) -> Result<()> {
        self.write_checkpoint()
    }

    fn folder(&mut self) -> &mut RunFolder {
        &mut self.folder
    }
}

#[cfg(test)]
mod tests;
