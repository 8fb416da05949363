//! The training loop: phases in order, one step at a time, with checkpoints (`state`); the start of a run
//! (`prepare`), the end of a phase (`phase_ends`), validation within a phase (`validation`), what learns to draw sub-networks
//! (`controller`, `architecture` and its second order `unrolled`) and chooses one at the end (`derived`), and a run with default
//! settings (`whole`).
//!
//! A step's images are a function of seed and step, and its sub-networks of these and of what learns to draw them, whose state
//! is in the checkpoint; so a run that was killed and resumed from its last checkpoint ends with the same bytes.
//!
//! A checkpoint is written before the evaluations that end a phase; a resumed run adds the evaluations that its log
//! lacks. No checkpoint is written once a weight or an optimizer value is no longer finite. Each phase begins with a
//! fresh optimizer, as in the authors' code. Losses are read after the whole step, optimizer included, is launched:
//! reading them is the only wait in a step, but for `distillation = "alpha"`, which reads logits.

mod architecture;
mod conflict;
mod controller;
mod derived;
mod learn;
mod phase_ends;
mod prepare;
mod state;
mod trial;
mod unrolled;
mod validation;
mod whole;

pub use prepare::TrainTask;
pub use trial::PhaseTrial;
pub use whole::train;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::timing::Stopwatch;
use kernels::Backend;
use network::checkpoint::{
    self, DescribedWeights, Interface, Kind, StartedFrom, Supernet, ValidationProgress,
};
use network::data::{Augmentation, Batch, Dataset, LoaderConfig, TrainLoader};
use network::elastic::{Gradients, SharedWeights, sort_channels};
use network::eval::{Calibration, Evaluator};
use space::{Arch, Extent, SearchSpace, sampler};

use super::architecture::Logits;
use super::average::Average;
use super::controller::Pupil;
use super::cost_axis::CostAxis;
use super::events::Points;
use super::exchange::Exchange;
use super::history::History;
use super::loss::Loss;
use super::observer::{Observer, notify};
use super::optimizer::Optimizer;
use super::plan::{PlannedPhase, TrainingPlan};
use super::prefetcher::Prefetcher;
use super::record::{Divergence, LogLine, StepRecord};
use super::resumed::{Resumed, log_beginning};
use super::run_folder::RunFolder;
use super::step::most_loss;
use super::steps::{Learner, Pace, Pause, Taken, take_steps};
use super::teacher::TeacherFile;
use crate::error::{Error, Result};

/// Settings of a run other than space, data and recipe.
#[derive(Clone, Debug)]
pub struct TrainConfig {
    /// Seed of all random draws.
    pub seed: u64,
    /// Time between checkpoints within a phase.
    pub checkpoint_every: Duration,
    /// The backend that computes.
    pub backend: Backend,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// All steps are taken and the supernet is written.
    Finished,
    /// The run was stopped; the state is saved.
    Interrupted {
        /// The next step.
        step: u64,
    },
}

/// A training run, between two steps.
pub struct Trainer {
    space: SearchSpace,
    dataset: Arc<Dataset>,
    plan: TrainingPlan,
    /// The plans of the steps so far, the current one last.
    history: History,
    config: TrainConfig,
    /// Preprocessing and classes, as written to files of weights.
    interface: Interface,
    /// Name and hash of the images, as in the run's first file.
    data: String,
    /// The weights that the run started from, unless they were fresh.
    started: Option<StartedFrom>,
    /// The processes that train together.
    exchange: Box<dyn Exchange + Send>,
    folder: RunFolder,
    weights: SharedWeights,
    gradients: Gradients,
    optimizer: Box<dyn Optimizer>,
    /// The moving average of the weights, if the plan has one.
    average: Option<Average>,
    /// The controller that draws sub-networks, if the plan has one.
    pupil: Option<Pupil>,
    /// The architecture parameters, if the plan has some.
    logits: Option<Logits>,
    teacher: Option<Supernet>,
    /// The teacher of phases with `teacher = "file"`.
    teacher_file: Option<TeacherFile>,
    /// The cost by which attentive draws compare.
    cost: CostAxis,
    step: u64,
    resumed: Option<Resumed>,
    /// Where the run continues after a divergence, in words.
    went_back: Option<String>,
    /// Steps taken at the checkpoint in the folder.
    saved: Option<u64>,
    /// Whether the checkpoint at the end of each phase is kept permanently.
    keeps_checkpoints: bool,
    /// Steps between two reports on conflicts within a phase, if there are reports.
    conflicts_every: Option<u64>,
    /// Progress of validation within the phase, if phases are validated.
    validated: Option<ValidationProgress>,
    /// Steps taken at the best validation that the checkpoint in the folder refers to.
    saved_best: Option<u64>,
    /// Images of validations within a phase.
    validation_set: Arc<Dataset>,
}

impl Trainer {
    /// The plan of the run.
    pub fn plan(&self) -> &TrainingPlan {
        &self.plan
    }

    /// Writes `plan.json`, with the plans of earlier steps; `run` holds what may differ between equal runs, such as
    /// dates and estimates.
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

    /// Also writes the log as TensorBoard events, to `tensorboard` in the run's folder. The first failure is logged
    /// and ends these files, not the run.
    pub fn write_events(&mut self) {
        let largest = Some(sampler::largest(&self.space));
        self.folder.write_events(Points { batch: self.plan.batch, largest });
    }

    /// The space that is trained.
    pub fn space(&self) -> &SearchSpace {
        &self.space
    }

    /// Steps taken so far, before a resume included.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// Evaluates sub-networks with the weights of now, or their average if there is one, on the images of the run.
    pub fn evaluator(&self) -> Evaluator<'_> {
        Evaluator {
            space: &self.space,
            weights: self.result(),
            dataset: &self.dataset,
            calibration: Calibration::default(),
            backend: self.config.backend.unrecorded(),
        }
    }

    /// How the run was resumed, if it was.
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// Where the run continues after a divergence, in words, if it diverged.
    pub fn went_back(&self) -> Option<&str> {
        self.went_back.as_deref()
    }

    /// Milliseconds per step of each phase, timed on one step each, with its share of what teaches the controller or the architecture parameters; the state does not change. Setting `stop` leaves
    /// out the remaining phases.
    ///
    /// # Errors
    /// If a step fails.
    pub fn time_phases(&self, stop: &AtomicBool) -> Result<Vec<f64>> {
        let loader = self.loader()?;
        let mut times = Vec::new();
        for phase in self.plan.phases.iter().take_while(|_| !stop.load(Ordering::Relaxed)) {
            let step = phase.first_step;
            let batch =
                loader.batch_at(step, self.plan.resolution(&self.space, step))?.on(&self.config.backend)?;
            // the values of the losses do not matter here: later phases are timed on the weights of now
            let learn =
                || self.learn(phase, step, &batch)?.iter().try_for_each(|(_, loss)| loss.read().map(drop));
            if times.is_empty() {
                learn()?;
            }
            let watch = Stopwatch::start();
            learn()?;
            let step_ms = watch.elapsed_ms();
            let side = self.plan.resolution(&self.space, step);
            times.push(step_ms + self.lesson_ms(phase)? + self.logits_ms(phase, side)?);
        }
        self.gradients.clear(&self.config.backend)?;
        Ok(times)
    }

    fn loader(&self) -> Result<TrainLoader> {
        let config = LoaderConfig {
            batch: self.plan.batch,
            seed: self.config.seed,
            augmentation: self.plan.augmentation.unwrap_or_else(|| Augmentation::unsaid(&self.dataset)),
            sampling: self.plan.sampling,
        };
        let plan = self.plan.clone();
        let space = self.space.clone();
        Ok(TrainLoader::new(self.dataset.clone(), config, self.step, move |step| {
            plan.resolution(&space, step)
        })?)
    }

    /// Trains until all steps are taken or `stop` is set, whichever comes first.
    ///
    /// # Errors
    /// If the run diverges ([`Error::Diverged`]), or an image or a file cannot be read or written; the last good
    /// checkpoint then remains.
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<RunOutcome> {
        let ended = self.take_phases(stop, observer);
        if let Err(Error::Diverged { step, phase, what, .. }) = &ended {
            let first_step = self.plan.phase_at(*step).map_or(0, |(_, phase)| phase.first_step);
            let phase = phase.clone();
            let what = what.clone();
            self.folder.note_divergence(Divergence { step: *step, phase, first_step, what });
        }
        ended
    }

    fn take_phases(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<RunOutcome> {
        // a checkpoint whose plan is not in plan.json could only be resumed under that plan
        if self.folder.history().as_ref() != Some(&self.history) {
            self.write_plan(&serde_json::json!({}))?;
        }
        log_beginning(&mut self.folder, self.resumed.as_ref(), &self.dataset)?;
        // a kill between a phase's last checkpoint and its evaluations loses none of them
        let ended = self.plan.phases.iter().position(|phase| self.step > 0 && phase.end() == self.step);
        if let Some(index) = ended {
            let done = match self.is_settled() && !self.lesson_is_due() {
                true => self.conclude(index, stop, observer)?,
                false => self.leave(index, stop, observer)?,
            };
            if !done {
                return Ok(RunOutcome::Interrupted { step: self.step });
            }
        }
        self.exchange.broadcast(&self.weights)?;
        let mut batches = self.batches()?;
        while let Some((index, phase)) = self.plan.phase_at(self.step) {
            let phase = phase.clone();
            if stop.load(Ordering::Relaxed) {
                self.save()?;
                return Ok(RunOutcome::Interrupted { step: self.step });
            }
            if self.step == phase.first_step {
                self.enter(index, &phase)?;
            }
            observer.phase(&phase, self.step);
            let pace =
                Pace { steps: phase.first_step..phase.end(), every: self.config.checkpoint_every, stop };
            let learner = &mut InPhase { trainer: self, phase: &phase, index };
            let taken = take_steps(learner, &pace, &mut batches, &mut |line| notify(observer, line))?;
            if taken == Taken::Enough {
                self.end_early(index, &mut |line| notify(observer, line))?;
                batches = self.batches()?;
            }
            if taken == Taken::Stopped || !self.leave(index, stop, observer)? {
                return Ok(RunOutcome::Interrupted { step: self.step });
            }
        }
        self.forget_other_best()?;
        if self.derive(stop, observer)?.is_none() {
            return Ok(RunOutcome::Interrupted { step: self.step });
        }
        if !self.is_written() {
            let path = self.folder.supernet();
            self.write_weights(&path, Kind::Supernet)?;
        }
        if !self.keeps_checkpoints {
            self.folder.forget_phase_end()?;
        }
        Ok(RunOutcome::Finished)
    }

    /// Batches from the next step on.
    fn batches(&self) -> Result<Prefetcher> {
        let side = self.space.greatest_resolution();
        let values = self.plan.batch * self.space.input_channels() * side.plane();
        Prefetcher::new(self.loader()?, &self.config.backend, values)
    }

    fn write_weights(&self, path: &Path, kind: Kind) -> Result<()> {
        let Self { space, interface, .. } = self;
        let weights = self.result();
        let described = DescribedWeights { space, interface, weights };
        Ok(checkpoint::write_weights(path, kind, described, self.training())?)
    }

    /// The weights that are evaluated and written: the average, if there is one.
    fn result(&self) -> &SharedWeights {
        self.average.as_ref().map_or(&self.weights, Average::weights)
    }

    /// Begins a phase: sorts channels where the phase has `sort_channels`, and resets the optimizer and the average.
    fn enter(&mut self, index: usize, phase: &PlannedPhase) -> Result<()> {
        if phase.phase.sort_channels {
            let trained = self.plan.trained_before(&self.space, index);
            sort_channels(&self.space, &mut self.weights, &trained)?;
        }
        self.optimizer = self.resting()?;
        self.average = self.fresh_average()?;
        Ok(())
    }

    /// An average that begins with the weights of now, if the plan has one.
    fn fresh_average(&self) -> Result<Option<Average>> {
        let begin = |decay| Average::begin(&self.weights, decay, &self.config.backend);
        self.plan.ema_decay.map(begin).transpose()
    }

    /// A fresh optimizer, as at the start of each phase.
    fn resting(&self) -> Result<Box<dyn Optimizer>> {
        let TrainingPlan { optimizer, weight_decay, .. } = self.plan;
        optimizer.at_rest(self.weights.arena(), weight_decay, &self.config.backend)
    }

    fn take_step(
        &mut self,
        phase: &PlannedPhase,
        batch: &Batch,
        watch: &mut Stopwatch,
    ) -> Result<StepRecord> {
        let lr = phase.lr(self.step);
        self.take_step_at(lr, phase, batch, watch)
    }

    /// Takes a step at this learning rate.
    fn take_step_at(
        &mut self,
        lr: f32,
        phase: &PlannedPhase,
        batch: &Batch,
        watch: &mut Stopwatch,
    ) -> Result<StepRecord> {
        let step = self.step;
        let (_, _, height, width) = batch.inputs.dims4()?;
        let resolution = Extent { height, width };
        self.step_logits_if_due(phase, batch)?;
        let losses = self.learn(phase, step, batch)?;
        self.exchange.sum(&self.gradients)?;
        if let Some(most) = self.plan.gradient_clip {
            self.config.backend.for_layer("optimizer").clamp(self.gradients.arena().values(), most)?;
        }
        match phase.phase.head_only {
            true => self.optimizer.step_head(&self.weights, &self.gradients, lr)?,
            false => self.optimizer.step(&self.weights, &self.gradients, lr)?,
        }
        if let Some(average) = &self.average {
            average.follow(&self.weights, step + 1 - phase.first_step)?;
        }
        // read last: the whole step is launched on a GPU before anything waits for it. Weights after a bad loss are
        // not saved
        let loss = self.mean(step, &losses)?;
        self.step += 1;
        let ms = watch.lap().as_secs_f64() * 1e3;
        Ok(StepRecord { step, phase: phase.phase.name.clone(), loss, lr, resolution, ms })
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
}

/// A trainer within one of its phases.
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

    fn pause(&mut self, stop: &AtomicBool, report: &mut dyn FnMut(&LogLine)) -> Result<Pause> {
        let pause = self.trainer.validate_if_due(self.index, stop, report)?;
        if matches!(pause, Pause::Enough | Pause::Stopped) {
            return Ok(pause);
        }
        let Some(reported) = self.trainer.report_conflict_if_due(self.index, stop, report)? else {
            return Ok(Pause::Stopped);
        };
        let Some(taught) = self.trainer.give_lesson_if_due(self.index, stop, report)? else {
            return Ok(Pause::Stopped);
        };
        let searched = self.trainer.report_logits_if_due(self.index, report)?;
        Ok(if reported || taught || searched { Pause::Done } else { pause })
    }

    fn save(&mut self) -> Result<()> {
        self.trainer.save()
    }

    fn folder(&mut self) -> &mut RunFolder {
        &mut self.trainer.folder
    }
}

#[cfg(test)]
mod tests;
