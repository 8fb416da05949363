//! The gradients of a step: its sub-networks, chosen among candidates, each on every part of the batch.

use candle_core::Tensor;
use network::data::Batch;
use space::{Arch, sampler};

use super::Trainer;
use crate::error::Result;
use crate::train::draw::{Candidates, DrawnBy, Keep};
use crate::train::loss::{Loss, Target, loss};
use crate::train::plan::PlannedPhase;
use crate::train::recipe::Phase;
use crate::train::step::{Student, dropout_mask};
use crate::train::teacher::{Dropout, Teacher};

/// A part of a step's batch: its first image in the batch, and its share of the step's gradient.
struct Part<'a> {
    batch: &'a Batch,
    first: usize,
    share: f32,
}

/// The labels of a batch, as they are.
pub(super) fn judged(batch: &Batch) -> Target<'_> {
    Target { labels: batch.targets.classes(), partners: batch.targets.partners(), ..Target::default() }
}

impl Trainer {
    /// Sums the gradients of the step's sub-networks and returns each one's losses, part by part of the batch.
    pub(super) fn learn(&self, phase: &PlannedPhase, step: u64, batch: &Batch) -> Result<Vec<(Arch, Loss)>> {
        let parts = self.plan.accumulation;
        if parts == 1 {
            let archs = self.archs(phase, step, batch)?;
            return self.learn_part(phase, &archs, step, &Part { batch, first: 0, share: 1.0 });
        }
        let images = batch.len() / parts;
        let archs = self.archs(phase, step, &batch.part(0, images)?)?;
        let mut losses = Vec::with_capacity(parts * archs.len());
        for first in (0..parts).map(|part| part * images) {
            let batch = &batch.part(first, images)?;
            let part = Part { batch, first, share: 1.0 / parts as f32 };
            losses.extend(self.learn_part(phase, &archs, step, &part)?);
        }
        Ok(losses)
    }

    /// Sums the gradients of sub-networks on a part of a step's batch.
    fn learn_part(
        &self,
        phase: &PlannedPhase,
        archs: &[Arch],
        step: u64,
        part: &Part,
    ) -> Result<Vec<(Arch, Loss)>> {
        let student = self.student();
        let Part { batch, first, share } = *part;
        let mut teacher = self.soft_labels(phase, &batch.inputs)?;
        let taught = Target { share, ..self.taught(batch) };
        if self.mixes(phase) {
            return self.learn_mixture(batch, &taught);
        }
        let mut losses = Vec::with_capacity(archs.len());
        let Phase { allowed, teacher: of_phase, dropout, .. } = &phase.phase;
        let distillation = phase.phase.distillation;
        let has_dropout = |arch: &Arch| match dropout {
            Dropout::All => true,
            Dropout::Largest => arch.choices() == sampler::largest(&allowed.of(&self.space)).choices(),
        };
        for (index, arch) in archs.iter().enumerate() {
            // the parts of a batch have different masks
            let place = [step, (first * archs.len() + index) as u64];
            let mask = match has_dropout(arch) {
                true => dropout_mask(&self.space, arch, batch.len(), self.config.seed, place)?,
                false => None,
            };
            let target = Target { teacher: teacher.as_ref(), distillation, ..taught };
            let learned = student.learn(arch, &batch.inputs, &target, mask, &self.gradients)?;
            losses.push((arch.clone(), learned.loss));
            if index == 0 && *of_phase == Teacher::First {
                teacher = Some(learned.logits);
            }
        }
        Ok(losses)
    }

    /// The sub-networks of a step: of several candidates, that with the least or greatest loss on these images.
    pub(super) fn archs(&self, phase: &PlannedPhase, step: u64, batch: &Batch) -> Result<Vec<Arch>> {
        let drawn = self.plan.candidates(&self.space, phase, step, self.drawn_by())?;
        drawn.into_iter().map(|candidates| self.chosen(candidates, batch)).collect()
    }

    fn chosen(&self, candidates: Candidates, batch: &Batch) -> Result<Arch> {
        let Candidates { mut archs, keep } = candidates;
        if archs.len() == 1 {
            return Ok(archs.remove(0));
        }
        let student = self.student();
        let target = judged(batch);
        let losses = archs.iter().map(|arch| {
            let logits = student.teach(arch, &batch.inputs)?;
            loss(&logits, &target, &self.config.backend)?.0.read()
        });
        let losses: Vec<f32> = losses.collect::<Result<_>>()?;
        let order = |one: &usize, other: &usize| losses[*one].total_cmp(&losses[*other]);
        let indices = 0..losses.len();
        let chosen = match keep {
            Keep::Best => indices.min_by(order),
            // of equal ones the first, as of the best
            Keep::Worst => indices.rev().max_by(order),
        };
        Ok(archs.swap_remove(chosen.unwrap_or_default()))
    }

    /// What a step of weights learns from a batch.
    pub(super) fn taught<'a>(&'a self, batch: &'a Batch) -> Target<'a> {
        Target {
            labels: batch.targets.classes(),
            partners: batch.targets.partners(),
            smoothing: self.plan.label_smoothing,
            class_weights: self.plan.class_weights.as_deref(),
            ..Target::default()
        }
    }

    /// What decides about sub-networks beside chance.
    pub(super) fn drawn_by(&self) -> DrawnBy<'_> {
        DrawnBy { cost: &self.cost, pupil: self.pupil.as_ref(), logits: self.logits.as_ref() }
    }

    pub(super) fn student(&self) -> Student<'_> {
        Student { space: &self.space, weights: &self.weights, backend: self.config.backend.clone() }
    }

    /// Logits of a teacher from outside the step: a file, or an earlier phase.
    fn soft_labels(&self, phase: &PlannedPhase, images: &Tensor) -> Result<Option<Tensor>> {
        match (&phase.phase.teacher, &self.teacher_file) {
            (Teacher::File, Some(teacher)) => teacher.teach(images, &self.config.backend).map(Some),
            (Teacher::Phase(_), _) => self.largest_labels(images).map(Some),
            _ => Ok(None),
        }
    }

    /// Logits of the run's own teacher; before there is one (when timing), of the network that will become it.
    fn largest_labels(&self, images: &Tensor) -> Result<Tensor> {
        let weights = self.teacher.as_ref().map_or(&self.weights, |teacher| &teacher.weights);
        let teacher = Student { space: &self.space, weights, backend: self.config.backend.clone() };
        let largest = sampler::largest(&self.space).at(images.dim(3)?);
        teacher.teach(&largest, images)
    }
}
