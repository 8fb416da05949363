//! The report on conflicts between sub-networks, within a phase and at its end.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use base::random::rng_for;
use space::{Arch, SearchSpace, cost, sampler};

use super::Trainer;
use crate::error::Result;
use crate::train::conflict::{ConflictRecord, cosines};
use crate::train::record::{LogLine, SubnetValidation};
use crate::train::step::Student;

/// Sub-networks between the ends whose accuracy is reported.
const BETWEEN: usize = 12;
/// Random sub-networks drawn for each of them.
const DRAWN: usize = 20;

impl Trainer {
    /// Reports on conflicts every so many epochs within a phase, and at the end of each phase.
    #[must_use]
    pub fn reporting_conflicts(self, every_epochs: f64) -> Self {
        let steps = (every_epochs * self.plan.steps_per_epoch as f64).round() as u64;
        Self { conflicts_every: Some(steps.max(1)), ..self }
    }

    /// Reports if a report is due and not in the log; whether it did, or `None` if `stop` was set first.
    pub(super) fn report_conflict_if_due(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<Option<bool>> {
        let Some(every) = self.conflicts_every else { return Ok(Some(false)) };
        let phase = &self.plan.phases[index];
        let taken = self.step.saturating_sub(phase.first_step);
        let is_due = taken > 0 && taken.is_multiple_of(every) || self.step == phase.end();
        if !is_due || self.has_happened(|line| matches!(line, LogLine::Conflict(_))) {
            return Ok(Some(false));
        }
        let Some(record) = self.conflict(index, stop)? else { return Ok(None) };
        let line = LogLine::Conflict(record);
        self.folder.log(&line)?;
        report(&line);
        Ok(Some(true))
    }

    fn conflict(&self, index: usize, stop: &AtomicBool) -> Result<Option<ConflictRecord>> {
        let phase = &self.plan.phases[index].phase;
        let allowed = phase.allowed.of(&self.space);
        let side = allowed.greatest_resolution();
        let batch = self.loader()?.batch_at(self.step, side)?.on(&self.config.backend)?;
        // no more images at once than in a step
        let batch = batch.part(0, batch.len() / self.plan.accumulation)?;
        let backend = self.config.backend.unrecorded();
        let student = Student { space: &self.space, weights: self.result(), backend };
        let (stages, cosine) = cosines(&student, &allowed, &batch.inputs, &self.taught(&batch))?;
        let mut subnetworks = Vec::with_capacity(BETWEEN + 2);
        for arch in stratified(&allowed, self.config.seed)? {
            let Some(accuracy) = self.accuracy_unless(stop, &self.validation_set, &arch)? else {
                return Ok(None);
            };
            subnetworks.push(SubnetValidation { arch, top1: accuracy.top1(), accuracy });
        }
        let phase = phase.name.clone();
        Ok(Some(ConflictRecord { step: self.step, phase, cosine, stages, subnetworks }))
    }
}

/// The smallest and the largest sub-network, and between them the middles of equal shares by multiply-accumulates of random
/// ones, all at the highest resolution; each once.
fn stratified(allowed: &SearchSpace, seed: u64) -> Result<Vec<Arch>> {
    let side = allowed.greatest_resolution();
    let mut rng = rng_for("conflict", seed, &[]);
    let mut drawn = Vec::with_capacity(BETWEEN * DRAWN);
    for _ in 0..BETWEEN * DRAWN {
        let arch = sampler::random(allowed, &mut rng).at(side);
        drawn.push((cost(&allowed.lower(&arch)?).macs, arch));
    }
    drawn.sort_by_key(|(macs, _)| *macs);
    let mut archs = vec![sampler::smallest(allowed).at(side)];
    archs.extend((0..BETWEEN).map(|share| drawn[share * DRAWN + DRAWN / 2].1.clone()));
    archs.push(sampler::largest(allowed).at(side));
    let mut seen = HashSet::new();
    archs.retain(|arch| seen.insert(arch.clone()));
    Ok(archs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use space::preset;

    #[test]
    fn what_is_reported_rises_from_end_to_end() {
        let space = preset("fashion").expect("a preset");
        let archs = stratified(&space, 3).expect("lowered");
        let macs: Vec<u64> =
            archs.iter().map(|arch| cost(&space.lower(arch).expect("in the space")).macs).collect();
        assert_eq!(archs.len(), 14);
        assert!(macs.is_sorted(), "{macs:?}");
        assert_eq!(archs, stratified(&space, 3).expect("lowered"));
        let only = space.only(&sampler::largest(&space)).expect("in the space");
        assert_eq!(stratified(&only, 3).expect("lowered").len(), 1);
    }
}
