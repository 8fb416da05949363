//! The training loop: phases in order, a step at a time, saved as it goes (`state`).
//!
//! Everything a step samples and sees is a function of seed and step, so a run that was killed and resumed from
//! its last checkpoint ends with the same bytes.

mod phase_ends;
mod state;
mod validation;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::Tensor;

use super::feeder::Feeder;
use super::history::History;
use super::loss::{Loss, Target};
use super::plan::{Plan, PlannedPhase};
use super::recipe::Recipe;
use super::record::{Divergence, EarlyEnd, LogLine, StepRecord, ValidationRecord};
use super::resumed::{Resumed, log_beginning};
use super::run_folder::RunFolder;
use super::sgd::Sgd;
use super::start::Start;
use super::step::{Pupil, dropout_mask, most_loss};
use super::steps::{Learner, Pace, Pause, Taken, take_steps};
use super::way_back::WayBack;
use crate::checkpoint::{self, Interface, Kind, StartedFrom, Supernet, Validated};
use crate::data::{Augmentation, Batch, Dataset, LoaderConfig, Preprocess, Resize, TrainLoader};
use crate::elastic::{Gradients, SharedWeights, sort_channels};
use crate::error::{Error, Result};
use crate::eval::Accuracy;
use crate::kernels::Kernels;
use crate::random::rng_for;
use crate::space::{Arch, SearchSpace, sampler};
use crate::timing::Stopwatch;

/// What a run needs besides space, data and recipe.
#[derive(Clone, Copy, Debug)]
pub struct TrainConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// Time between checkpoints within a phase.
    pub checkpoint_every: Duration,
    /// What computes.
    pub kernels: Kernels,
}

/// Who is told what happens.
pub trait Observer {
    /// A phase begins, or is taken up again at `step`.
    fn phase(&mut self, phase: &PlannedPhase, step: u64);
    /// A step was taken.
    fn step(&mut self, record: &StepRecord);
    /// A sub-network was evaluated at the end of a phase.
    fn evaluated(&mut self, arch: &Arch, accuracy: Accuracy);
    /// A phase was validated, within it or at its end.
    fn validated(&mut self, _record: &ValidationRecord) {}
    /// A phase ended early, for no validation was better.
    fn ended_early(&mut self, _end: &EarlyEnd) {}
}

/// Tells an observer what the log is told within a phase.
fn tell(observer: &mut dyn Observer, line: &LogLine) {
    match line {
        LogLine::Step(record) => observer.step(record),
        LogLine::Validation(record) => observer.validated(record),
        LogLine::EndedEarly(end) => observer.ended_early(end),
        _ => {}
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are taken and the supernet is written.
    Finished,
    /// It was asked to stop; the state is saved.
    Interrupted {
        /// The next step.
        step: u64,
    },
}

/// A training between two steps.
pub struct Trainer {
    space: SearchSpace,
    dataset: Arc<Dataset>,
    plan: Plan,
    /// Under which plans the steps so far were taken, the one that is followed at the end.
    history: History,
    config: TrainConfig,
    /// What the weights' files say of images and classes.
    interface: Interface,
    /// Name and hash of the images, as the first file of the run has them.
    data: String,
    /// What it began with, where that was no fresh weights.
    started: Option<StartedFrom>,
    folder: RunFolder,
    weights: SharedWeights,
    gradients: Gradients,
    optimizer: Sgd,
    teacher: Option<Supernet>,
    step: u64,
    resumed: Option<Resumed>,
    /// From where it goes on after a divergence, in words.
    went_back: Option<String>,
    /// Steps that the checkpoint in the folder holds.
    saved: Option<u64>,
    /// Whether the checkpoint at the end of each phase is kept for good.
    keeps_checkpoints: bool,
    /// What validations within the phase have found, where there are such.
    validated: Option<Validated>,
    /// Images of validations within a phase.
    validation_set: Arc<Dataset>,
}

impl Trainer {
    /// Prepares a run: from its last checkpoint where the folder has one, else from fresh weights. One that has diverged
    /// goes back to the end of the phase before. The supernet will see images as the data set is seen
    /// ([`Dataset::seen_as`]).
    ///
    /// # Errors
    /// If data and space do not fit, or the checkpoint is of another space, plan or data set.
    pub fn new(
        space: SearchSpace,
        dataset: Arc<Dataset>,
        recipe: &Recipe,
        folder: RunFolder,
        config: TrainConfig,
    ) -> Result<Self> {
        Self::prepare(space, dataset, &recipe.from_scratch(), None, folder, config)
    }

    /// Prepares a run that begins with given weights in place of fresh ones, or goes on from its last checkpoint. Images
    /// are seen as the weights were trained to see them, unless `resize` says otherwise. Where their classes are others
    /// than the weights', the classifier is made afresh and trained first, with all else frozen.
    ///
    /// # Errors
    /// As [`Trainer::new`], and if the space differs from the weights' in more than classes and resolutions.
    pub fn starting(
        start: &Start,
        space: SearchSpace,
        dataset: &Dataset,
        resize: Option<Resize>,
        recipe: &Recipe,
        folder: RunFolder,
        config: TrainConfig,
    ) -> Result<Self> {
        let space = start.space_for(Some(&space), dataset.classes().len())?;
        let (mut dataset, keeps_classifier) = start.see(dataset)?;
        if let Some(resize) = resize {
            dataset = dataset.seen_as(Preprocess { resize, ..dataset.preprocess().clone() })?;
        }
        let recipe = recipe.starting(!keeps_classifier);
        let started = Started {
            weights: start.weights(&space, keeps_classifier, config.seed)?,
            from: StartedFrom { weights: start.supernet().hash.clone(), fresh_classifier: !keeps_classifier },
        };
        Self::prepare(space, Arc::new(dataset), &recipe, Some(started), folder, config)
    }

    fn prepare(
        space: SearchSpace,
        dataset: Arc<Dataset>,
        recipe: &Recipe,
        started: Option<Started>,
        folder: RunFolder,
        config: TrainConfig,
    ) -> Result<Self> {
        check_fit(&space, &dataset, recipe)?;
        let steps_per_epoch = (dataset.train().len() / recipe.batch) as u64;
        let mut plan = Plan::new(&recipe.suited_to(&space), steps_per_epoch, config.seed);
        plan.start = started.as_ref().map(|started| started.from.weights.clone());
        let (saved, way_back) = WayBack::taken_up(&folder)?;
        let goes_on_unsaid =
            saved.as_ref().is_some_and(|saved| saved.supernet.interface.preprocess.is_none());
        let (dataset, interface) = match goes_on_unsaid {
            // a run of before files said what they see goes on as it began
            true => (Arc::new(dataset.seen_as(dataset.preprocess_unsaid(&space)?)?), Interface::default()),
            false => {
                let dataset = with_channels_of(&space, dataset)?;
                let begun = saved.as_ref().and_then(|_| folder.planned());
                let augmentation = recipe.augmentation.as_begun(begun.as_ref());
                plan = plan.varying(Augmentation::for_dataset(&dataset, augmentation));
                let interface = Interface::of(&dataset);
                (dataset, interface)
            }
        };
        plan.class_weights =
            recipe.class_weights.as_ref().map(|weights| weights.weights(&dataset)).transpose()?;
        let (weights, started) = match started {
            Some(Started { weights, from }) => (weights, Some(from)),
            None => (SharedWeights::new(&space, &mut rng_for("weights", config.seed, &[]))?, None),
        };
        let weights = weights.on(config.kernels)?;
        let optimizer = Sgd::new(&weights, plan.momentum, plan.weight_decay, config.kernels)?;
        let gradients = Gradients::new(&weights)?;
        let data = saved.as_ref().map_or_else(|| dataset.identity(), |saved| saved.training.data.clone());
        let images = plan.validation.and_then(|validation| validation.settings.images);
        let validation_set =
            images.map_or_else(|| dataset.clone(), |images| Arc::new(dataset.with_val_images(images)));
        let mut trainer = Self {
            space,
            dataset,
            validation_set,
            validated: plan.validation.map(|_| Validated::default()),
            history: History::new(&plan),
            plan,
            config,
            interface,
            data,
            started,
            folder,
            weights,
            gradients,
            optimizer,
            teacher: None,
            step: 0,
            resumed: None,
            went_back: None,
            saved: None,
            keeps_checkpoints: false,
        };
        if let Some(saved) = saved {
            trainer.restore(saved)?;
        } else if trainer.folder.supernet().exists() {
            return Err(Error::Occupied {
                path: trainer.folder.supernet(),
                reason: "it is there, but the checkpoint that it came from is not".to_string(),
                next: "put checkpoint.safetensors back, or choose another folder".to_string(),
            });
        }
        if let Some(way_back) = way_back {
            way_back.go(&mut trainer.folder)?;
            trainer.went_back = Some(way_back.in_words(&trainer.plan, trainer.step));
        }
        trainer.begin_log()?;
        Ok(trainer)
    }

    /// The same, keeping the checkpoint at the end of each phase for good, in the folder `checkpoints`.
    #[must_use]
    pub fn keeping_checkpoints(self) -> Self {
        Self { keeps_checkpoints: true, ..self }
    }

    /// Cuts the log back to what the checkpoint holds, and notes what it knows; without a checkpoint it is emptied.
    fn begin_log(&mut self) -> Result<()> {
        let Some(resumed) = &mut self.resumed else { return self.folder.empty_log() };
        let happened = self.folder.cut_log(self.step)?;
        resumed.happened = happened.into_iter().filter(|line| line.steps_taken() == self.step).collect();
        let evaluated = resumed.happened.iter().cloned().filter_map(|line| line.evaluated_at(self.step));
        resumed.evaluated = evaluated.collect();
        Ok(())
    }

    /// What will be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Writes `plan.json`, with those plans under which earlier steps were taken; `run` holds what may differ between equal
    /// runs, such as dates and estimates.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_plan(&self, run: &serde_json::Value) -> Result<()> {
        self.folder.write_history(&self.history, run)
    }

    /// The run's folder.
    pub fn folder(&self) -> &RunFolder {
        &self.folder
    }

    /// The state that was taken up, if there was one.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// From where the run goes on, in words, where it has diverged.
    pub fn went_back(&self) -> Option<&str> {
        self.went_back.as_deref()
    }

    /// Milliseconds that one step of each phase takes now, from one try of each; changes nothing. Of fewer phases
    /// if `stop` is set.
    ///
    /// # Errors
    /// If a step fails.
    pub fn time_phases(&self, stop: &AtomicBool) -> Result<Vec<f64>> {
        let loader = self.loader()?;
        let mut times = Vec::new();
        for phase in self.plan.phases.iter().take_while(|_| !stop.load(Ordering::Relaxed)) {
            let step = phase.first_step;
            let batch =
                loader.batch_at(step, self.plan.resolution(&self.space, step))?.on(self.config.kernels)?;
            // what the losses are is no matter here: phases to come are tried on weights that are not theirs yet
            let learn =
                || self.learn(phase, step, &batch)?.iter().try_for_each(|(_, loss)| loss.read().map(drop));
            if times.is_empty() {
                learn()?;
            }
            let watch = Stopwatch::start();
            learn()?;
            times.push(watch.elapsed_ms());
        }
        self.gradients.clear(self.config.kernels)?;
        Ok(times)
    }

    fn loader(&self) -> Result<TrainLoader> {
        let config = LoaderConfig {
            batch: self.plan.batch,
            seed: self.config.seed,
            augmentation: self.plan.augmentation.unwrap_or_else(|| Augmentation::unsaid(&self.dataset)),
            sampling: self.plan.sampling,
        };
        let (plan, space) = (self.plan.clone(), self.space.clone());
        TrainLoader::new(self.dataset.clone(), config, self.step, move |step| plan.resolution(&space, step))
    }

    /// Trains until all steps are taken or `stop` is set, whichever comes first.
    ///
    /// # Errors
    /// If the numbers can no longer be mended ([`Error::Diverged`]), an image or a file cannot be read or written; the
    /// last good checkpoint is then still there.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        let ended = self.take_phases(stop, observer);
        if let Err(Error::Diverged { step, phase, what, .. }) = &ended {
            let first_step = self.plan.phase_at(*step).map_or(0, |(_, phase)| phase.first_step);
            let (phase, what) = (phase.clone(), what.clone());
            self.folder.note_divergence(Divergence { step: *step, phase, first_step, what });
        }
        ended
    }

    fn take_phases(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Outcome> {
        // a checkpoint of a plan that is not written down could only be gone on with under the same
        if self.folder.history().as_ref() != Some(&self.history) {
            self.write_plan(&serde_json::json!({}))?;
        }
        log_beginning(&mut self.folder, self.resumed.as_ref(), &self.dataset)?;
        // a kill between a phase's last checkpoint and its evaluations loses none of them
        let ended = self.plan.phases.iter().position(|phase| self.step > 0 && phase.end() == self.step);
        if let Some(index) = ended {
            let done = match self.is_settled() {
                true => self.conclude(index, stop, observer)?,
                false => self.leave(index, stop, observer)?,
            };
            if !done {
                return Ok(Outcome::Interrupted { step: self.step });
            }
        }
        let mut batches = self.batches()?;
        while let Some((index, phase)) = self.plan.phase_at(self.step) {
            let phase = phase.clone();
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Ok(Outcome::Interrupted { step: self.step });
            }
            if self.step == phase.first_step {
                self.enter(index, &phase)?;
            }
            observer.phase(&phase, self.step);
            let pace =
                Pace { steps: phase.first_step..phase.end(), every: self.config.checkpoint_every, stop };
            let learner = &mut InPhase { trainer: self, phase: &phase, index };
            let taken = take_steps(learner, &pace, &mut batches, &mut |line| tell(observer, line))?;
            if taken == Taken::Enough {
                self.end_early(index, &mut |line| tell(observer, line))?;
                batches = self.batches()?;
            }
            if taken == Taken::Stopped || !self.leave(index, stop, observer)? {
                return Ok(Outcome::Interrupted { step: self.step });
            }
        }
        self.forget_older_best()?;
        if !self.is_written() {
            let path = self.folder.supernet();
            self.write_weights(&path, Kind::Supernet)?;
        }
        if !self.keeps_checkpoints {
            self.folder.forget_phase_end()?;
        }
        Ok(Outcome::Finished)
    }

    /// Batches from the next step on.
    fn batches(&self) -> Result<Feeder> {
        let side = sampler::largest(&self.space).resolution;
        let values = self.plan.batch * self.space.input_channels() * side * side;
        Feeder::new(self.loader()?, self.config.kernels, values)
    }

    fn write_weights(&self, path: &Path, kind: Kind) -> Result<()> {
        checkpoint::write_weights(path, kind, &self.space, &self.interface, &self.weights, self.training())
    }

    /// Before the first step of a phase: the optimizer rests, and channels are sorted where the phase asks for it.
    fn enter(&mut self, index: usize, phase: &PlannedPhase) -> Result<()> {
        if phase.phase.sort_channels {
            let trained = self.plan.trained_before(&self.space, index);
            sort_channels(&self.space, &mut self.weights, &trained)?;
        }
        let Plan { momentum, weight_decay, .. } = self.plan;
        self.optimizer = Sgd::new(&self.weights, momentum, weight_decay, self.config.kernels)?;
        Ok(())
    }

    fn take_step(
        &mut self,
        phase: &PlannedPhase,
        batch: &Batch,
        watch: &mut Stopwatch,
    ) -> Result<StepRecord> {
        let step = self.step;
        let lr = phase.lr(step);
        let losses = self.learn(phase, step, batch)?;
        match phase.phase.head_only {
            true => self.optimizer.step_head(&self.weights, &self.gradients, lr)?,
            false => self.optimizer.step(&self.weights, &self.gradients, lr)?,
        }
        // read last: a GPU is given the whole step before it is asked for anything. What a bad loss has spoilt is not saved
        let loss = self.mean(step, &losses)?;
        self.step += 1;
        let resolution = batch.images.dim(3)?;
        let ms = watch.lap().as_secs_f64() * 1e3;
        Ok(StepRecord { step, phase: phase.phase.name.clone(), loss, lr, resolution, ms })
    }

    /// Sums the gradients of the step's sub-networks and returns each one's loss.
    fn learn(&self, phase: &PlannedPhase, step: u64, batch: &Batch) -> Result<Vec<(Arch, Loss)>> {
        let pupil = Pupil { space: &self.space, weights: &self.weights, kernels: self.config.kernels };
        let archs = self.plan.archs(&self.space, phase, step)?;
        let teacher = self.soft_labels(phase, &batch.images)?;
        let (labels, smoothing) = (&batch.labels, self.plan.label_smoothing);
        let class_weights = self.plan.class_weights.as_deref();
        let target = Target { labels, smoothing, teacher: teacher.as_ref(), class_weights };
        let mut losses = Vec::with_capacity(archs.len());
        for (index, arch) in archs.iter().enumerate() {
            let place = [step, index as u64];
            let dropout = dropout_mask(&self.space, arch, batch.len(), self.config.seed, place)?;
            let loss = pupil.learn(arch, &batch.images, &target, dropout, &self.gradients)?;
            losses.push((arch.clone(), loss));
        }
        Ok(losses)
    }

    /// The mean of a step's losses, if none has exploded.
    fn mean(&self, step: u64, losses: &[(Arch, Loss)]) -> Result<f32> {
        let mut total = 0.0;
        for (arch, loss) in losses {
            let loss = loss.read()?;
            if loss.is_nan() || loss > most_loss(self.space.classes()) {
                return Err(self.diverged(step, format!("the loss is {loss}"), arch.to_string()));
            }
            total += loss;
        }
        Ok(total / losses.len() as f32)
    }

    /// The teacher's logits; before there is a teacher (in a timing) the network that will become it answers.
    fn soft_labels(&self, phase: &PlannedPhase, images: &Tensor) -> Result<Option<Tensor>> {
        if !phase.phase.distill {
            return Ok(None);
        }
        let weights = self.teacher.as_ref().map_or(&self.weights, |teacher| &teacher.weights);
        let teacher = Pupil { space: &self.space, weights, kernels: self.config.kernels };
        let largest = sampler::largest(&self.space).at(images.dim(3)?);
        teacher.teach(&largest, images).map(Some)
    }
}

/// Weights to begin with.
struct Started {
    weights: SharedWeights,
    from: StartedFrom,
}

/// A trainer at work on one of its phases.
struct InPhase<'a> {
    trainer: &'a mut Trainer,
    phase: &'a PlannedPhase,
    index: usize,
}

impl Learner for InPhase<'_> {
    fn next_step(&self) -> u64 {
        self.trainer.step
    }

    fn take_step(&mut self, batch: &Batch, watch: &mut Stopwatch) -> Result<StepRecord> {
        self.trainer.take_step(self.phase, batch, watch)
    }

    fn pause(&mut self, stop: &AtomicBool, told: &mut dyn FnMut(&LogLine)) -> Result<Pause> {
        self.trainer.validate_if_due(self.index, stop, told)
    }

    fn save(&mut self) -> Result<()> {
        self.trainer.save()
    }

    fn folder(&mut self) -> &mut RunFolder {
        &mut self.trainer.folder
    }
}

/// The data set as it is seen, or where that has other channels than the space, as it is best seen for the space.
fn with_channels_of(space: &SearchSpace, dataset: Arc<Dataset>) -> Result<Arc<Dataset>> {
    if dataset.channels() == space.input_channels() {
        return Ok(dataset);
    }
    Ok(Arc::new(dataset.seen_as(dataset.preprocess_for(space)?)?))
}

/// Whether the data fit the space, and a batch can be filled.
fn check_fit(space: &SearchSpace, dataset: &Dataset, recipe: &Recipe) -> Result<()> {
    dataset.check_fits(space)?;
    let images = dataset.train().len();
    if images < recipe.batch {
        let (place, wanted) =
            (format!("data {}", dataset.name()), format!("at least a batch of {}", recipe.batch));
        return Err(
            Error::invalid(place, "training images", wanted, images).and_then_do("take a smaller batch")
        );
    }
    Ok(())
}
