//! Validation within a phase: the best weights so far are saved in the run's folder, and the phase ends with them.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use network::checkpoint::{BestValidation, Kind, Provenance, Supernet, ValidationProgress};

use super::Trainer;
use crate::error::{Error, Result};
use crate::train::record::{EarlyEnd, LogLine, SubnetValidation, ValidationRecord};
use crate::train::steps::Pause;

impl Trainer {
    /// Between two steps of a phase: validates it if a validation is due and not done.
    pub(super) fn validate_if_due(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<Pause> {
        let phase = &self.plan.phases[index];
        let is_due = self.plan.validation.is_some_and(|validation| validation.is_due(phase, self.step));
        if !is_due || self.validated.is_some_and(|validated| validated.step == self.step) {
            return Ok(Pause::Nothing);
        }
        if !self.validate(index, stop, report)? {
            return Ok(Pause::Stopped);
        }
        let patience = self.plan.validation.and_then(|validation| validation.settings.patience);
        let not_better = self.validated.map_or(0, |validated| validated.not_better);
        Ok(match patience.is_some_and(|patience| not_better >= patience) {
            true => Pause::Enough,
            false => Pause::Done,
        })
    }

    /// Validates sub-networks of a phase, by default the largest and the smallest; false if `stop` was set first.
    fn validate(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<bool> {
        let mut subnetworks = Vec::new();
        let allowed = self.plan.phases[index].phase.allowed.of(&self.space);
        let validated = self.plan.validation.map(|validation| validation.settings.subnetworks);
        for arch in validated.unwrap_or_default().archs(&allowed) {
            let Some(accuracy) = self.accuracy_unless(stop, &self.validation_set, &arch)? else {
                return Ok(false);
            };
            subnetworks.push(SubnetValidation { arch, top1: accuracy.top1(), accuracy });
        }
        let correct = subnetworks.iter().map(|subnetwork| subnetwork.accuracy.correct).sum();
        let phase = &self.plan.phases[index];
        let is_end = self.step == phase.end();
        let ValidationProgress { best, not_better, .. } = self.validated.unwrap_or_default();
        let is_best = best.is_none_or(|best| correct > best.correct || is_end && correct == best.correct);
        let top1 =
            subnetworks.iter().map(|subnetwork| subnetwork.top1).sum::<f64>() / subnetworks.len() as f64;
        let phase = phase.phase.name.clone();
        let line =
            LogLine::Validation(ValidationRecord { step: self.step, phase, top1, is_best, subnetworks });
        self.validated = Some(match is_best {
            true => {
                let best = Some(BestValidation { step: self.step, correct });
                ValidationProgress { step: self.step, best, not_better: 0 }
            }
            false => ValidationProgress { step: self.step, best, not_better: not_better + 1 },
        });
        if is_best && !is_end {
            self.write_weights(&self.folder.best(self.step), Kind::Supernet)?;
            self.forget_other_best()?;
        }
        if !self.has_happened(|line| matches!(line, LogLine::Validation(_))) {
            self.folder.log(&line)?;
        }
        report(&line);
        Ok(true)
    }

    /// Whether the log already has such a line at this step, because the run was resumed here.
    pub(super) fn has_happened(&self, is_such: fn(&LogLine) -> bool) -> bool {
        let resumed = self.resumed.as_ref().filter(|resumed| resumed.from_step == self.step);
        resumed.is_some_and(|resumed| resumed.happened.iter().any(is_such))
    }

    /// Ends a phase before its last step, and moves the run to the first step of the next phase.
    pub(super) fn end_early(&mut self, index: usize, report: &mut dyn FnMut(&LogLine)) -> Result<()> {
        let step = self.step;
        let next_step = self.plan.phases[index].end();
        let phase = self.plan.phases[index].phase.name.clone();
        let best_step = self.best_step().unwrap_or(step);
        let line = LogLine::EndedEarly(EarlyEnd { step, phase, best_step, next_step });
        if !self.has_happened(|line| matches!(line, LogLine::EndedEarly(_))) {
            self.folder.log(&line)?;
        }
        report(&line);
        self.step = next_step;
        self.validated = self.validated.map(|validated| ValidationProgress { step: next_step, ..validated });
        Ok(())
    }

    /// At the end of a phase: validates it and takes the weights of its best validation. False if `stop` was set
    /// before the end was validated.
    pub(super) fn settle(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<bool> {
        if self.plan.validation.is_none() {
            return Ok(true);
        }
        if let Pause::Stopped = self.validate_if_due(index, stop, report)? {
            return Ok(false);
        }
        if let Some(best) = self.best_step().filter(|best| *best != self.step) {
            let supernet = read_best(self.folder.best(best), best)?;
            self.weights = supernet.weights.on(&self.config.backend)?;
            self.average = self.fresh_average()?;
        }
        self.validated = Some(ValidationProgress { step: self.step, ..ValidationProgress::default() });
        Ok(true)
    }

    /// Whether the phase that ends here has the weights of its best validation, or is not validated.
    pub(super) fn is_settled(&self) -> bool {
        self.plan.validation.is_none() || self.validated.is_some_and(|validated| validated.step == self.step)
    }

    /// Steps taken at the phase's best validation so far.
    pub(super) fn best_step(&self) -> Option<u64> {
        self.validated.and_then(|validated| validated.best).map(|best| best.step)
    }

    /// Removes the best weights of earlier validations, except those that the checkpoint in the folder refers to.
    pub(super) fn forget_other_best(&self) -> Result<()> {
        match self.plan.validation {
            Some(_) => self.folder.keep_only_best([self.best_step(), self.saved_best]),
            None => Ok(()),
        }
    }
}

fn read_best(path: PathBuf, step: u64) -> Result<Supernet> {
    let expected = format!("the best weights of the phase, which this run wrote after {step} steps");
    let advice = "put it back, or go back to the end of a phase";
    if !path.exists() {
        return Err(Error::invalid(path.display(), "file", expected, "none").and_then_do(advice));
    }
    let supernet = Supernet::read(&path)?;
    match &supernet.provenance {
        Provenance::Trained(training) if training.step == step => Ok(supernet),
        _ => Err(Error::invalid(path.display(), "provenance", expected, "others").and_then_do(advice)),
    }
}
