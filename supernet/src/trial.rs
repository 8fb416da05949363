//! Trials: sub-networks that are evaluated one at a time, each trained alone or with shared weights, at a fidelity; or
//! scored without any training.
//!
//! Training alone at fidelity F takes the first F of the recipe's steps, so that a higher fidelity continues where a lower
//! one ended, and a killed trial continues from its checkpoint; or it takes all steps with a share of the images, or at a
//! share of the resolution. Each sub-network has a folder with its results.

mod results;
mod zero_cost;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::ErrorKind;
use network::checkpoint::Supernet;
use network::data::{Dataset, Resize, Split};
use network::eval::{Calibration, Evaluation, Evaluator};
use serde::{Deserialize, Serialize};
use space::{Arch, Extent, SearchSpace, sampler};

use crate::error::{Error, Result};
use crate::train::{
    Observer, Recipe, RunFolder, RunOutcome, Start, StepRecord, TrainConfig, TrainTask, Trainer,
};
use results::Results;
pub use results::results_from_json;
pub use zero_cost::{ZeroCostScores, ZeroCostTrials};

/// The result of a trial, on validation images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialResult {
    /// Share of everything: of steps, of training images, of the resolution, or of validation images.
    pub fidelity: f64,
    /// Share of validation images whose class was found.
    pub top1: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Number of validation images.
    pub n: usize,
    /// Training steps that were taken in all; absent for shared weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
}

impl TrialResult {
    fn of(evaluation: &Evaluation, fidelity: f64, steps: Option<u64>) -> Self {
        let top1 = evaluation.accuracy().top1();
        Self { fidelity, top1, loss: evaluation.loss(), n: evaluation.images.len(), steps }
    }
}

/// A sub-network to evaluate.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialRequest {
    /// The sub-network.
    pub arch: Arch,
    /// Share of full fidelity, above 0 and at most 1.
    pub fidelity: f64,
    /// Seed of weights and batches.
    pub seed: u64,
}

/// Evaluates sub-networks of a supernet with its shared weights, calibrated; fidelity is the share of validation images.
pub struct SharedTrials {
    /// The supernet, its weights where the kernels compute.
    pub supernet: Supernet,
    /// The images, as the supernet sees them.
    pub dataset: Dataset,
    /// Settings of the calibration.
    pub calibration: Calibration,
    /// The backend.
    pub backend: kernels::Backend,
}

impl SharedTrials {
    /// Evaluates a sub-network; `None` if `stop` was set first.
    ///
    /// # Errors
    /// If it does not lie in the space, or has no accuracy.
    pub fn evaluate(&self, request: &TrialRequest, stop: &AtomicBool) -> Result<Option<TrialResult>> {
        let TrialRequest { arch, fidelity, .. } = request;
        let images = (fidelity * self.dataset.val().len() as f64).ceil() as usize;
        let dataset = self.dataset.with_val_images(images);
        let evaluator = Evaluator::new(&self.supernet, &dataset, &self.backend).calibrating(self.calibration);
        let evaluation = evaluator.evaluate_unless(stop, arch, None, Split::Val)?;
        Ok(evaluation.map(|evaluation| TrialResult::of(&evaluation, *fidelity, None)))
    }
}

/// What a lower fidelity of a training has less of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FidelityOf {
    /// Steps of the recipe; a higher fidelity goes on where a lower one ended.
    #[default]
    Steps,
    /// Training images, so that as many epochs have fewer steps; those of a lower fidelity are some of those of a higher one.
    Images,
    /// Rows and columns of the images, in training and validation.
    Resolution,
}

impl FidelityOf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Steps, Self::Images, Self::Resolution];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Images => "images",
            Self::Resolution => "resolution",
        }
    }
}

/// A training of a sub-network at a fidelity.
struct Run {
    arch: Arch,
    space: SearchSpace,
    dataset: Dataset,
    /// Share of its steps.
    share: f64,
    /// Folders where it may be, the first that is not further than it.
    places: Vec<String>,
}

/// Trains sub-networks alone, each in a folder of its own, at fidelities of one kind.
pub struct AloneTrials {
    /// The space of the sub-networks.
    pub space: SearchSpace,
    /// The images, not preprocessed yet.
    pub dataset: Dataset,
    /// The recipe, of which a single network takes part of the phases.
    pub recipe: Recipe,
    /// File of shared weights that each sub-network begins with; without one it begins with fresh weights.
    pub start: Option<PathBuf>,
    /// Part of an image that is evaluated, where it is not the usual one.
    pub resize: Option<Resize>,
    /// What a lower fidelity has less of.
    pub fidelity_of: FidelityOf,
    /// Settings of the trainings; the seed is the request's.
    pub config: TrainConfig,
    /// The folder of all trials.
    pub folder: PathBuf,
}

impl AloneTrials {
    /// Trains a sub-network up to a fidelity, or goes on with its training, and evaluates it; `None` if `stop` was set
    /// first. A result that its folder has is not computed again.
    ///
    /// # Errors
    /// If the folder holds trials of other settings, or as [`Trainer::run`].
    pub fn evaluate(&self, request: &TrialRequest, stop: &AtomicBool) -> Result<Option<TrialResult>> {
        let TrialRequest { arch, fidelity, .. } = request;
        self.space.check(arch)?;
        let start = self.start.as_deref().map_or(Ok(Start::Fresh), Start::read)?;
        let folder = self.folder_of(request);
        std::fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
        let mut results = Results::read(&folder, self.setting(&start), request)?;
        if let Some(known) = results.of(*fidelity) {
            return Ok(Some(known.clone()));
        }
        let run = self.run(request)?;
        let start = start.only(&run.space, &run.arch, &self.config.backend)?;
        // a training that is further than asked cannot go back
        for place in &run.places {
            let place = folder.join(place);
            let Some(mut trainer) = self.trainer(&run, request.seed, &start, &place, stop)? else {
                return Ok(None);
            };
            let steps = trainer.plan().steps();
            let target = ((run.share * steps as f64).ceil() as u64).clamp(1, steps);
            if trainer.steps_taken() > target {
                continue;
            }
            if !train_until(&mut trainer, target, stop)? {
                return Ok(None);
            }
            let only = sampler::largest(trainer.space());
            let evaluation = trainer.evaluator().evaluate_unless(stop, &only, None, Split::Val)?;
            let Some(evaluation) = evaluation else { return Ok(None) };
            let result = TrialResult::of(&evaluation, *fidelity, Some(target));
            results.add(result.clone())?;
            return Ok(Some(result));
        }
        let got = "two that are further";
        Err(Error::invalid(folder.display(), "training", "one that can go on", got)
            .and_then_do("remove the folder"))
    }

    /// The training that a request asks for.
    fn run(&self, request: &TrialRequest) -> Result<Run> {
        let &TrialRequest { ref arch, fidelity, .. } = request;
        let whole = Run {
            arch: arch.clone(),
            space: self.space.clone(),
            dataset: self.dataset.clone(),
            share: 1.0,
            places: vec!["run".to_string()],
        };
        if fidelity == 1.0 {
            return Ok(whole);
        }
        let own = format!("run-{}-{fidelity}", self.fidelity_of.name());
        Ok(match self.fidelity_of {
            FidelityOf::Steps => {
                let places = vec!["run".to_string(), format!("run-{fidelity}")];
                Run { share: fidelity, places, ..whole }
            }
            FidelityOf::Images => {
                let images = (fidelity * self.dataset.train().len() as f64).ceil() as usize;
                Run { dataset: self.dataset.with_train_images(images), places: vec![own], ..whole }
            }
            FidelityOf::Resolution => {
                let part = |side: usize| ((fidelity * side as f64).round() as usize).max(1);
                let Extent { height, width } = arch.resolution;
                let resolution = Extent { height: part(height), width: part(width) };
                let space = self.space.also_at(resolution)?;
                Run { arch: arch.at(resolution), space, places: vec![own], ..whole }
            }
        })
    }

    /// The folder of a sub-network's trials: its training in `run`, its results in `trial.json`.
    pub fn folder_of(&self, request: &TrialRequest) -> PathBuf {
        let TrialRequest { arch, seed, .. } = request;
        let hash = blake3::hash(format!("{arch} {seed}").as_bytes()).to_hex();
        self.folder.join(&hash.as_str()[..16])
    }

    /// Everything that decides results, apart from the request: names, and hashes of what is long.
    fn setting(&self, start: &Start) -> BTreeMap<String, String> {
        let recipe = serde_json::to_string(&self.recipe).expect("plain data");
        let resize = serde_json::to_string(&self.resize).expect("plain data");
        // files of before have no such field, and are of steps
        let of = (self.fidelity_of != FidelityOf::Steps)
            .then(|| ("fidelity", self.fidelity_of.name().to_string()));
        let setting = [
            ("space", format!("{} ({})", self.space.name(), self.space.fingerprint())),
            ("data", self.dataset.identity()),
            ("recipe", format!("{} {}", self.recipe.name, blake3::hash(recipe.as_bytes()).to_hex())),
            ("start", start.given().map_or_else(|| "none".to_string(), |given| given.hash.clone())),
            ("resize", resize),
            ("kernels", self.config.backend.name().to_string()),
        ];
        setting.into_iter().chain(of).map(|(field, value)| (field.to_string(), value)).collect()
    }

    /// A training in a folder, from its checkpoint if it has one; `None` if `stop` was set while another process held it.
    fn trainer(
        &self,
        run: &Run,
        seed: u64,
        start: &Start,
        place: &Path,
        stop: &AtomicBool,
    ) -> Result<Option<Trainer>> {
        // another process may hold it that is ending: a search that was started again does not wait for its programs
        let folder = loop {
            match RunFolder::open(place, true) {
                Err(error) if error.kind() == ErrorKind::Occupied => {
                    if stop.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                opened => break opened?,
            }
        };
        let space = run.space.only(&run.arch)?;
        let dataset = Arc::new(start.see(&run.dataset, &space, self.resize)?);
        let images = dataset.train().len().min(self.recipe.batch);
        let recipe = &self.recipe.with_batch(images);
        let task = TrainTask { space, dataset, recipe, start, teacher: None, latency_table: None };
        let config = TrainConfig { seed, ..self.config.clone() };
        Ok(Some(Trainer::of(task, folder, config)?))
    }
}

/// Stops a training when it has taken so many steps, or when it is to stop anyway.
struct Until<'a> {
    target: u64,
    stop: &'a AtomicBool,
    ended: &'a AtomicBool,
}

impl Observer for Until<'_> {
    fn step(&mut self, record: &StepRecord) {
        if record.step + 1 >= self.target || self.stop.load(Ordering::Relaxed) {
            self.ended.store(true, Ordering::Relaxed);
        }
    }
}

/// Trains until so many steps are taken in all, or to the end; false if it was stopped before.
fn train_until(trainer: &mut Trainer, target: u64, stop: &AtomicBool) -> Result<bool> {
    if trainer.steps_taken() == target && target < trainer.plan().steps() {
        return Ok(true);
    }
    // the last steps of all end a training by themselves
    let last = target == trainer.plan().steps();
    let ended = &AtomicBool::new(stop.load(Ordering::Relaxed));
    let target_or_end = if last { u64::MAX } else { target };
    let outcome = trainer.run(ended, &mut Until { target: target_or_end, stop, ended })?;
    Ok(match outcome {
        RunOutcome::Finished => true,
        RunOutcome::Interrupted { step } => !last && step >= target,
    })
}

#[cfg(test)]
mod tests;
