//! What outlives the process: the checkpoint, what it is checked against, and what a resumed run knows of before.

use std::path::Path;

use super::Trainer;
use crate::checkpoint::{self, Checkpoint, Provenance, Supernet, Training};
use crate::elastic::check_finite;
use crate::error::{Error, Result};
use crate::machine;
use crate::space::Arch;
use crate::train::Sgd;

/// What a run was taken up with.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// The next step.
    pub from_step: u64,
    /// In what this machine differs from the one that took the steps before, so that bits may.
    pub differences: Vec<String>,
    /// Kernels that computed the weights so far.
    kernels: String,
    /// Sub-networks whose evaluation after the last step is in the log already.
    pub(super) evaluated: Vec<Arch>,
}

impl Trainer {
    pub(super) fn restore(&mut self) -> Result<()> {
        let path = self.folder.checkpoint();
        let Checkpoint { supernet, training, velocities } = Checkpoint::read(&path)?;
        let place = path.display();
        let differs = |field: &str, wanted: &str, got: &str| {
            if wanted == got {
                return Ok(());
            }
            Err(Error::invalid(&place, field, wanted, got)
                .and_then_do("resume with the flags the run was started with, or choose another folder"))
        };
        differs("space", &supernet.space.fingerprint(), &self.space.fingerprint())?;
        if !training.trained_on(&self.dataset) {
            differs("data", &training.data, &self.dataset.identity())?;
        }
        if self.plan.hash() != training.plan {
            return Err(self.folder.other_plan(&self.plan));
        }
        if let Some(hash) = &training.teacher {
            self.teacher = Some(read_teacher(&self.folder.teacher(), hash)?);
        }
        self.step = training.step;
        self.saved = Some(self.step);
        self.resumed = Some(Resumed {
            from_step: self.step,
            differences: match self.step < self.plan.steps() {
                true => self.differences(&training.kernels),
                false => Vec::new(),
            },
            kernels: training.kernels.clone(),
            evaluated: Vec::new(),
        });
        self.optimizer =
            Sgd::new(&supernet.weights, self.plan.momentum, self.plan.weight_decay, self.config.kernels)?
                .with_velocities(velocities);
        self.weights = supernet.weights;
        Ok(())
    }

    /// In what this machine differs from the one that wrote the checkpoint.
    fn differences(&self, kernels: &str) -> Vec<String> {
        let (cpu, now) = (machine::cpu(), self.config.kernels.name());
        let before = self.folder.planned_cpu().filter(|before| *before != cpu);
        let mut differences: Vec<_> =
            before.iter().map(|before| format!("processor {before} before, {cpu} now")).collect();
        if kernels.rsplit(", then ").next() != Some(now) {
            differences.push(format!("kernels {kernels} before, {now} now"));
        }
        differences
    }

    pub(super) fn training(&self) -> Training {
        let now = self.config.kernels.name();
        let kernels = match &self.resumed {
            Some(Resumed { kernels, .. }) if kernels.rsplit(", then ").next() == Some(now) => kernels.clone(),
            Some(Resumed { kernels, .. }) => format!("{kernels}, then {now}"),
            None => now.to_string(),
        };
        Training {
            tool: env!("CARGO_PKG_VERSION").to_string(),
            kernels,
            seed: self.config.seed,
            data: self.dataset.identity(),
            plan: self.plan.hash(),
            step: self.step,
            teacher: self.teacher.as_ref().map(|teacher| teacher.hash.clone()),
        }
    }

    /// Saves the state, unless it is spoilt: the last good checkpoint must outlive it.
    pub(super) fn save(&mut self) -> Result<()> {
        self.check_sound()?;
        self.folder.sync_log()?;
        let velocities = self.optimizer.velocities();
        let path = self.folder.checkpoint();
        checkpoint::write_checkpoint(&path, &self.space, &self.weights, velocities, self.training())?;
        self.saved = Some(self.step);
        Ok(())
    }

    /// Whether all weights and velocities are finite.
    pub(super) fn check_sound(&self) -> Result<()> {
        for (name, tensor) in self.weights.tensors().iter().chain(self.optimizer.velocities()) {
            if check_finite(tensor, "", name).is_err() {
                let step = self.step.saturating_sub(1);
                let what = format!("{name} is no longer finite");
                return Err(self.diverged(step, what, self.archs_of(step)?));
            }
        }
        Ok(())
    }

    /// Whether the finished weights are there already, so that a resume leaves their file as it is.
    pub(super) fn is_written(&self) -> bool {
        let path = self.folder.supernet();
        path.exists()
            && Supernet::read(&path).is_ok_and(|written| match written.provenance {
                Provenance::Trained(Training { plan, step, .. }) => {
                    (plan, step) == (self.plan.hash(), self.step)
                }
                Provenance::Imported(_) => false,
            })
    }

    fn archs_of(&self, step: u64) -> Result<String> {
        let Some((_, phase)) = self.plan.phase_at(step) else { return Ok(String::new()) };
        let archs = self.plan.archs(&self.space, phase, step)?;
        Ok(archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(" and "))
    }

    pub(super) fn diverged(&self, step: u64, what: String, archs: String) -> Error {
        let phase = self.plan.phase_at(step).map_or_else(String::new, |(_, phase)| phase.phase.name.clone());
        Error::Diverged { step, phase, what, archs, checkpoint: self.saved }
    }
}

fn read_teacher(path: &Path, hash: &str) -> Result<Supernet> {
    if !path.exists() {
        return Err(Error::invalid(path.display(), "file", "the teacher that this run wrote", "none")
            .and_then_do("put it back; without it the run cannot go on"));
    }
    let teacher = Supernet::read(path)?;
    if teacher.hash != hash {
        return Err(Error::invalid(path.display(), "hash", hash, &teacher.hash)
            .and_then_do("put back the file that this run wrote"));
    }
    Ok(teacher)
}
