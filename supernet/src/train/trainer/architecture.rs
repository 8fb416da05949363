//! Steps of architecture parameters between steps of weights.

use std::collections::BTreeMap;

use base::random::rng_for;
use base::timing::Stopwatch;
use network::data::{Batch, val_minibatch};
use network::elastic::SharedWeights;
use space::{Arch, Extent, GeneId};

use super::Trainer;
use super::learn::judged;
use crate::error::Result;
use crate::train::architecture::{ArchitectureRule, GateSlopes, Logits, Mixed};
use crate::train::draw::Draw;
use crate::train::loss::{Loss, Target};
use crate::train::plan::PlannedPhase;
use crate::train::record::{ArchitectureRecord, LogLine};
use crate::train::step::{MixedStudent, Student};

/// Mean probability of skips above which a search is said to collapse.
const COLLAPSED: f64 = 0.5;

/// A mixture with weights that it runs with.
#[derive(Clone, Copy)]
pub(super) struct Running<'a> {
    pub weights: &'a SharedWeights,
    pub logits: &'a Logits,
    pub mixed: &'a Mixed,
}

impl Trainer {
    /// Whether a phase's steps train all values of each choice at once.
    pub(super) fn mixes(&self, phase: &PlannedPhase) -> bool {
        let of_phase = Draw::by_architecture(&phase.phase.draw);
        of_phase && self.logits.as_ref().is_some_and(|logits| logits.recipe.by == ArchitectureRule::Darts)
    }

    /// Adds the gradients of a mixture of all values on a part of a step's batch.
    pub(super) fn learn_mixture(&self, batch: &Batch, target: &Target) -> Result<Vec<(Arch, Loss)>> {
        let Some(logits) = &self.logits else { return Ok(Vec::new()) };
        let mixed = logits.all(&self.space);
        let (loss, _) =
            self.pass(Running { weights: &self.weights, logits, mixed: &mixed }, batch, target)?;
        Ok(vec![(logits.derived(&self.space).0, loss)])
    }

    /// A training pass over a mixture, which adds to the run's gradients: its loss, and the slopes by the
    /// weights of each choice's values.
    pub(super) fn pass(
        &self,
        running: Running,
        batch: &Batch,
        target: &Target,
    ) -> Result<(Loss, BTreeMap<GeneId, GateSlopes>)> {
        let Running { weights, logits, mixed } = running;
        let (_, _, height, width) = batch.inputs.dims4()?;
        let mixture = self.space.mixture(&mixed.values, Extent { height, width })?;
        let of_mix = |mix: &space::Mix| {
            let own = mix.values.iter().map(|value| logits.weight(mixed, &self.space, mix.gene, *value));
            own.collect()
        };
        let shares: Vec<Vec<f32>> = mixture.mixes.iter().map(of_mix).collect();
        let student = Student { weights, ..self.student() };
        let student = MixedStudent { student, mixture: &mixture, weights: &shares };
        let (loss, slopes) = student.learn(&batch.inputs, target, &self.gradients)?;
        let mut gates: BTreeMap<GeneId, GateSlopes> = BTreeMap::new();
        for (mix, slopes) in mixture.mixes.iter().zip(slopes) {
            let own = gates.entry(mix.gene).or_default();
            for (value, slope) in mix.values.iter().zip(&slopes) {
                *own.values.entry(*value).or_default() += f64::from(*slope);
            }
            own.ones += slopes.last().copied().map_or(0.0, f64::from);
            own.places += 1;
        }
        Ok((loss, gates))
    }

    /// Milliseconds of a step of the logits as a share of each step of a phase, timed on one; 0 where they do not draw.
    pub(super) fn logits_ms(&self, phase: &PlannedPhase, side: Extent) -> Result<f64> {
        let drawn = Draw::by_architecture(&phase.phase.draw);
        let Some(logits) = self.logits.as_ref().filter(|_| drawn) else { return Ok(0.0) };
        let batch = self.logits_batch(side)?;
        let mixed = logits.trial(&self.space, 0.0, &mut rng_for("architecture step", self.config.seed, &[0]));
        let running = Running { weights: &self.weights, logits, mixed: &mixed };
        // the first pass is slower than those after it
        self.pass(running, &batch, &judged(&batch))?;
        let watch = Stopwatch::start();
        self.pass(running, &batch, &judged(&batch))?;
        // one of second order has four passes
        let passes = if logits.recipe.order == 2 { 4.0 } else { 1.0 };
        let share = phase.steps.saturating_sub(self.logits_warmup()) as f64 / phase.steps as f64;
        Ok(passes * watch.elapsed_ms() * share / logits.recipe.every_steps as f64)
    }

    /// Steps of a phase before the first one of the logits.
    pub(super) fn logits_warmup(&self) -> u64 {
        let steps = |logits: &Logits| logits.recipe.warmup_epochs * self.plan.steps_per_epoch as f64;
        self.logits.as_ref().map_or(0, |logits| steps(logits).round() as u64)
    }

    /// The minibatch of validation images of this step.
    fn logits_batch(&self, side: Extent) -> Result<Batch> {
        let images = self.plan.batch / self.plan.accumulation;
        let batch = val_minibatch(&self.dataset, self.step, images, side, self.config.seed)?;
        Ok(batch.on(&self.config.backend)?)
    }

    /// Takes a step of the logits, if one is due before a step of weights: on a minibatch of validation images, whose gradients
    /// of weights are dropped; of second order with the step's training images too.
    pub(super) fn step_logits_if_due(&mut self, phase: &PlannedPhase, train: &Batch) -> Result<()> {
        let taken = self.step - phase.first_step;
        let Some(logits) = self.logits.as_ref().filter(|_| Draw::by_architecture(&phase.phase.draw)) else {
            return Ok(());
        };
        let warmup = self.logits_warmup();
        if taken < warmup || !(taken - warmup).is_multiple_of(logits.recipe.every_steps) {
            return Ok(());
        }
        let (_, _, height, width) = train.inputs.dims4()?;
        let batch = self.logits_batch(Extent { height, width })?;
        let mut rng = rng_for("architecture step", self.config.seed, &[self.step]);
        let progress = (taken - warmup) as f64 / (phase.steps - warmup).max(2).saturating_sub(1) as f64;
        let mixed = logits.trial(&self.space, progress.min(1.0), &mut rng);
        let running = Running { weights: &self.weights, logits, mixed: &mixed };
        let (loss, slopes) = if logits.recipe.order == 2 {
            // no more images at once than in a step
            let part = train.part(0, train.len() / self.plan.accumulation)?;
            self.unrolled(running, &part, &batch, phase.lr(self.step))?
        } else {
            let (loss, gates) = self.pass(running, &batch, &judged(&batch))?;
            self.gradients.clear(&self.config.backend)?;
            (loss, logits.slopes(&mixed, &self.space, &gates))
        };
        let arch = logits.derived(&self.space).0;
        // an exploded loss ends the run before its slopes count
        self.mean(self.step, &[(arch, loss)])?;
        if let Some(logits) = &mut self.logits {
            logits.step(&mixed, &slopes);
        }
        Ok(())
    }

    /// Reports on the logits after each epoch, and at the end of a phase, unless the log has it; whether it did.
    pub(super) fn report_logits_if_due(
        &mut self,
        index: usize,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<bool> {
        let phase = &self.plan.phases[index];
        let taken = self.step.saturating_sub(phase.first_step);
        let is_due = taken > 0 && taken.is_multiple_of(self.plan.steps_per_epoch) || self.step == phase.end();
        let drawn = Draw::by_architecture(&phase.phase.draw);
        let Some(logits) = self.logits.as_ref().filter(|_| drawn && is_due) else { return Ok(false) };
        if self.has_happened(|line| matches!(line, LogLine::Architecture(_))) {
            return Ok(false);
        }
        let [entropy, skips] = logits.summary(&self.space);
        let (arch, derived_skips) = logits.derived(&self.space);
        let phase = phase.phase.name.clone();
        let collapsed = skips > COLLAPSED;
        let record =
            ArchitectureRecord { step: self.step, phase, entropy, skips, derived_skips, collapsed, arch };
        let line = LogLine::Architecture(record);
        self.folder.log(&line)?;
        report(&line);
        Ok(true)
    }
}
