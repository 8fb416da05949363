//! The end of a phase: the teacher, the checkpoint, evaluations, and the copy to go back to after a divergence.

use std::sync::atomic::AtomicBool;

use network::checkpoint::{Kind, Supernet};
use network::data::{Dataset, Split};
use network::eval::{Accuracy, Evaluator};
use space::{Arch, sampler};

use super::{Observer, Trainer, notify};
use crate::error::Result;
use crate::train::record::LogLine;

impl Trainer {
    /// After the last step of a phase: takes the weights of its best validation (if phases are validated), makes the
    /// network the teacher (after the first phase that trains all of it), saves the state, and concludes the phase.
    /// False if `stop` was set first.
    pub(super) fn leave(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        self.check_sound()?;
        if let Some(average) = &self.average {
            self.weights = average.weights().detached()?;
        }
        if !self.settle(index, stop, &mut |line| notify(observer, line))? {
            self.save()?;
            return Ok(false);
        }
        if self.give_lesson_if_due(index, stop, &mut |line| notify(observer, line))?.is_none() {
            self.save()?;
            return Ok(false);
        }
        self.report_logits_if_due(index, &mut |line| notify(observer, line))?;
        if index == self.plan.teaching() && self.teacher.is_none() {
            let path = self.folder.teacher();
            self.write_weights(&path, Kind::Teacher)?;
            self.teacher = Some(Supernet::read(&path)?.on(&self.config.backend)?);
        }
        self.save()?;
        self.conclude(index, stop, observer)
    }

    /// Evaluates a phase that has ended and is saved, and keeps its checkpoint to go back to. False if `stop` was set
    /// first.
    pub(super) fn conclude(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        if !self.evaluate(index, stop, observer)? {
            return Ok(false);
        }
        if self.report_conflict_if_due(index, stop, &mut |line| notify(observer, line))?.is_none() {
            return Ok(false);
        }
        if self.keeps_checkpoints {
            self.folder.keep_checkpoint(index + 1, &self.plan.phases[index].phase.name)?;
        }
        if self.step < self.plan.steps() {
            self.folder.keep_phase_end()?;
        }
        Ok(true)
    }

    /// The largest and the smallest sub-network of a phase, at the highest resolution.
    pub(super) fn outermost(&self, index: usize) -> Vec<Arch> {
        let allowed = self.plan.phases[index].phase.allowed.of(&self.space);
        let high = sampler::largest(&self.space).resolution;
        let mut archs = vec![sampler::largest(&allowed), sampler::smallest(&allowed).at(high)];
        archs.dedup();
        archs
    }

    /// Evaluates the largest and the smallest sub-network of a phase that has ended, unless the log has them.
    fn evaluate(&mut self, index: usize, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<bool> {
        let phase = self.plan.phases[index].phase.name.clone();
        let mut archs = self.outermost(index);
        let known = self.resumed.as_ref().filter(|resumed| resumed.from_step == self.step);
        archs.retain(|arch| known.is_none_or(|resumed| !resumed.evaluated.contains(arch)));
        for arch in archs {
            let Some(accuracy) = self.accuracy_unless(stop, &self.dataset, &arch)? else { return Ok(false) };
            observer.evaluated(&arch, accuracy);
            self.folder.log(&LogLine::Evaluation {
                step: self.step,
                phase: phase.clone(),
                arch,
                split: Split::Val.to_string(),
                top1: accuracy.top1(),
                accuracy,
            })?;
        }
        Ok(true)
    }

    /// Current accuracy of a sub-network on the validation images of `dataset`; `None` if `stop` is set meanwhile. A
    /// sub-network without an accuracy means that the run has diverged.
    pub(super) fn accuracy_unless(
        &self,
        stop: &AtomicBool,
        dataset: &Dataset,
        arch: &Arch,
    ) -> Result<Option<Accuracy>> {
        let evaluator = Evaluator { dataset, ..self.evaluator() };
        evaluator.accuracy_unless(stop, arch, Split::Val).map_err(|error| match error {
            network::Error::NoAccuracy { field, got, .. } => {
                let what = format!("an evaluation finds {field} of {got}");
                self.diverged(self.step.saturating_sub(1), what, arch.to_string())
            }
            error => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::train::{Recipe, RunFolder, RunOutcome, TrainConfig};
    use kernels::Backend;
    use network::elastic::SharedWeights;
    use space::preset;

    fn trainer(at: &Path) -> Trainer {
        let config =
            TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
        let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
        let recipe = Recipe::progressive().scaled(0.0007);
        let folder = RunFolder::open(at, true).expect("a folder");
        Trainer::new(preset("tiny").expect("a preset"), dataset, &recipe, folder, config).expect("it fits")
    }

    #[test]
    fn an_evaluation_without_numbers_is_a_divergence() {
        let folder = tempfile::tempdir().expect("a folder");
        let stop = AtomicBool::new(false);
        let mut first = trainer(folder.path());
        let mut tensors = first.weights.tensors().clone();
        let scale = tensors.get_mut("final_expand_layer.bn.weight").expect("a batch norm");
        *scale = Tensor::full(3e38f32, scale.dims(), &Device::Cpu).expect("a tensor");
        first.weights = SharedWeights::from_tensors(&first.space, tensors, "test").expect("finite");
        first.step = first.plan.phases[0].end();
        let last = first.step - 1;
        first.save().expect("finite");
        let error = first.run(&stop, &mut ()).expect_err("no accuracy");
        assert!(matches!(error, crate::Error::Diverged { step, .. } if step == last), "{error}");
        assert!(error.to_string().contains("an evaluation finds logits of image 1 of "), "{error}");
        drop(first);
        let mut second = trainer(folder.path());
        let message = format!("the run diverged at step {last} of phase full; it starts over");
        assert_eq!((second.went_back(), second.step), (Some(message.as_str()), 0));
        assert_eq!(second.run(&stop, &mut ()).expect("sound"), RunOutcome::Finished);
    }
}
