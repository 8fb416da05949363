//! Checkpoints of a supernet's training: saving, restoring, and their checks.

use std::path::Path;

use network::checkpoint::{self, Checkpoint, DescribedWeights, Interface, Provenance, Supernet, Training};
use space::Arch;

use super::Trainer;
use crate::error::{Error, Result};
use crate::train::draw::Candidates;
use crate::train::history::History;
use crate::train::resumed::Resumed;

impl Trainer {
    pub(super) fn restore(&mut self, saved: Checkpoint) -> Result<()> {
        let path = self.folder.checkpoint();
        let Checkpoint { supernet, training, mut optimizer } = saved;
        let place = &path.display();
        let check = |field: &str, expected: &str, got: &str| {
            if expected == got {
                return Ok(());
            }
            Err(Error::invalid(place, field, expected, got)
                .and_then_do("resume with the flags the run was started with, or choose another folder"))
        };
        check("space", &supernet.space.fingerprint(), &self.space.fingerprint())?;
        if !training.trained_on(&self.dataset) {
            check("data", &training.data, &self.dataset.identity())?;
        }
        if supernet.interface != self.interface {
            let said = |interface: &Interface| serde_json::json!(interface.preprocess).to_string();
            check("preprocess", &said(&supernet.interface), &said(&self.interface))?;
            check("classes", &format!("{:?}", supernet.classes()), &format!("{:?}", self.interface.classes))?;
        }
        let (history, other_plan) =
            History::resumed(&self.folder, &training.plan, training.step, &self.plan)?;
        self.history = history;
        if let Some(hash) = &training.teacher {
            self.teacher = Some(read_teacher(&self.folder.teacher(), hash)?.on(&self.config.backend)?);
        }
        self.validated = training.validation.or(self.validated);
        self.saved_best = self.best_step();
        self.step = training.step;
        self.saved = Some(self.step);
        let resumed = Resumed::new(self.step, &training.backend);
        let mut resumed = match self.step < self.plan.steps() {
            true => resumed.compared(&self.folder, &self.config.backend, &training.tool),
            false => resumed,
        };
        resumed.other_plan = other_plan;
        self.resumed = Some(resumed);
        self.weights = supernet.weights.on(&self.config.backend)?;
        if let Some(average) = self.average.take() {
            let restored = average.restored(&self.space, &mut optimizer);
            self.average = Some(restored.map_err(|error| error.in_place(place))?);
        }
        if let Some(pupil) = self.pupil.take() {
            let restored = pupil.restored(&mut optimizer);
            self.pupil = Some(restored.map_err(|error| error.in_place(place))?);
        }
        if let Some(logits) = self.logits.take() {
            let restored = logits.restored(&mut optimizer);
            self.logits = Some(restored.map_err(|error| error.in_place(place))?);
        }
        self.optimizer = self.resting()?;
        self.optimizer.restore(optimizer).map_err(|error| error.in_place(place))?;
        Ok(())
    }

    pub(super) fn training(&self) -> Training {
        Training {
            tool: env!("CARGO_PKG_VERSION").to_string(),
            backend: Resumed::backend(self.resumed.as_ref(), &self.config.backend),
            seed: self.config.seed,
            data: self.data.clone(),
            plan: self.history.hash(),
            step: self.step,
            teacher: self.teacher.as_ref().map(|teacher| teacher.hash.clone()),
            start: self.started.clone(),
            validation: None,
        }
    }

    /// Saves the state, unless a value is not finite: then the last good checkpoint must remain.
    pub(super) fn save(&mut self) -> Result<()> {
        self.check_sound()?;
        self.folder.sync_log()?;
        let mut state = self.optimizer.state()?;
        self.average.iter().try_for_each(|average| average.add_to(&mut state))?;
        self.logits.iter().try_for_each(|logits| logits.add_to(&mut state))?;
        self.pupil.iter().try_for_each(|pupil| pupil.add_to(&mut state))?;
        let path = self.folder.checkpoint();
        let Self { space, interface, weights, .. } = &*self;
        let training = Training { validation: self.validated, ..self.training() };
        let described = DescribedWeights { space, interface, weights };
        checkpoint::write_checkpoint(&path, described, &state, training)?;
        self.saved = Some(self.step);
        self.folder.note_checkpoint(self.step)?;
        self.saved_best = self.best_step();
        self.forget_other_best()
    }

    /// Checks that all weights and all of the optimizer's state are finite.
    pub(super) fn check_sound(&self) -> Result<()> {
        let weights = self.weights.arena();
        let mut bad = weights.unsound()?.map_or_else(|| self.optimizer.unsound(), |name| Ok(Some(name)))?;
        if self.logits.as_ref().is_some_and(|logits| !logits.is_sound()) {
            bad = bad.or(Some("a logit of the architecture"));
        }
        let Some(name) = bad else { return Ok(()) };
        let step = self.step.saturating_sub(1);
        Err(self.diverged(step, format!("{name} is no longer finite"), self.archs_of(step)?))
    }

    /// Whether the finished weights are already written; a resume then leaves their file unchanged.
    pub(super) fn is_written(&self) -> bool {
        let path = self.folder.supernet();
        path.exists()
            && Supernet::read(&path).is_ok_and(|written| match written.provenance {
                Provenance::Trained(Training { plan, step, .. }) => {
                    (plan, step) == (self.history.hash(), self.step)
                }
                Provenance::Imported(_) => false,
            })
    }

    fn archs_of(&self, step: u64) -> Result<String> {
        let Some((_, phase)) = self.plan.phase_at(step) else { return Ok(String::new()) };
        let candidates = self.plan.candidates(&self.space, phase, step, self.drawn_by())?;
        let one_of = |of: &Candidates| of.archs.iter().map(Arch::to_string).collect::<Vec<_>>().join(" or ");
        Ok(candidates.iter().map(one_of).collect::<Vec<_>>().join(" and "))
    }

    pub(super) fn diverged(&self, step: u64, what: String, archs: String) -> Error {
        let at = self.plan.phase_at(step);
        let phase = at.map_or_else(String::new, |(_, phase)| phase.phase.name.clone());
        let next = match at {
            Some((0, _)) => {
                "lower the phase's lr in the recipe (or --lr) and continue with --resume, which starts over, or train in another \
                 folder"
            }
            _ => {
                "lower the phase's lr in the recipe and continue with --resume, which goes back to the end of the previous phase, \
                 or train in another folder"
            }
        };
        Error::Diverged { step, phase, what, archs, checkpoint: self.saved, next }
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
