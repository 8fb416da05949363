//! A few steps of each phase, timed before a run: what it will cost.

use std::sync::atomic::{AtomicBool, Ordering};

use base::timing::{Spread, Stopwatch, cpu_seconds};
use kernels::Profile;
use serde::Serialize;

use super::Trainer;
use crate::error::Result;
use crate::train::plan::PlannedPhase;

/// Steps before those that are timed.
const UNTIMED: u64 = 2;

/// Kinds of layers in a profile that are neither forward nor backward.
const BESIDE: [&str; 3] = ["loss", "optimizer", "average"];

/// The timed steps of one phase.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseTrial {
    /// The phase.
    pub phase: PlannedPhase,
    /// Milliseconds per step, waiting for images included.
    pub step_ms: Spread,
    /// Mean milliseconds per step.
    pub mean_ms: f64,
    /// Milliseconds of the controller's lessons as a share of each step.
    pub lesson_ms: f64,
    /// Mean milliseconds per step that were spent waiting for images.
    pub waiting_ms: f64,
    /// Mean milliseconds per step in kernels of forward and backward passes, if they were recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passes_ms: Option<f64>,
    /// Seconds of processor time per step, of all threads, if the system reports it.
    pub cpu_seconds: Option<f64>,
}

/// How a phase is tried.
struct Tries<'a> {
    steps: u64,
    stop: &'a AtomicBool,
    profile: Option<&'a Profile>,
}

impl PhaseTrial {
    /// Seconds that the whole phase takes.
    pub fn seconds(&self) -> f64 {
        self.phase.steps as f64 * (self.mean_ms + self.lesson_ms) / 1e3
    }

    /// Seconds of processor time that the whole phase takes.
    pub fn phase_cpu_seconds(&self) -> Option<f64> {
        let with_lessons = 1.0 + self.lesson_ms / self.mean_ms;
        self.cpu_seconds.map(|seconds| seconds * with_lessons * self.phase.steps as f64)
    }

    /// Share of a step that is neither forward nor backward, if kernels were recorded.
    pub fn share_beside(&self) -> Option<f64> {
        self.passes_ms.map(|passes| 1.0 - passes / self.mean_ms)
    }
}

impl Trainer {
    /// Takes this many steps at the beginning of each phase, at a rate of 0, so that no trial diverges; `stop` leaves out the
    /// phase that is tried and those after it. `profile` is that of the backend, if kernels are recorded. Nothing is saved.
    ///
    /// # Errors
    /// If a step fails.
    pub fn trial(
        mut self,
        steps: u64,
        stop: &AtomicBool,
        profile: Option<&Profile>,
    ) -> Result<Vec<PhaseTrial>> {
        let phases = self.plan.phases.clone();
        let mut trials = Vec::with_capacity(phases.len());
        for (index, phase) in phases.into_iter().enumerate() {
            match self.phase_trial(index, phase, &Tries { steps, stop, profile })? {
                Some(trial) => trials.push(trial),
                None => break,
            }
        }
        Ok(trials)
    }

    fn phase_trial(
        &mut self,
        index: usize,
        phase: PlannedPhase,
        tries: &Tries,
    ) -> Result<Option<PhaseTrial>> {
        let Tries { steps, stop, profile } = *tries;
        self.step = phase.first_step;
        self.enter(index, &phase)?;
        // where architecture parameters wait for a warm-up, the steps after it
        let last = phase.end().saturating_sub(UNTIMED + steps).max(phase.first_step);
        self.step = (phase.first_step + self.logits_warmup()).min(last);
        let mut batches = self.batches()?;
        let mut times = Vec::new();
        let mut waiting_ms = 0.0;
        let mut cpu_before = None;
        let mut watch = Stopwatch::start();
        for step in 0..UNTIMED + steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if step == UNTIMED {
                profile.iter().for_each(|profile| profile.clear());
                cpu_before = cpu_seconds();
                watch.lap();
            }
            let waiting = Stopwatch::start();
            let batch = batches.next()?;
            let waited = waiting.elapsed_ms();
            let record = self.take_step_at(0.0, &phase, &batch, &mut watch)?;
            if step >= UNTIMED {
                times.push(record.ms);
                waiting_ms += waited;
            }
        }
        let cpu = cpu_before.zip(cpu_seconds()).map(|(before, after)| (after - before) / steps as f64);
        let passes_ms = profile.map(|profile| {
            let rows = profile.rows().into_iter().filter(|row| !BESIDE.contains(&row.layer));
            rows.map(|row| row.ms).sum::<f64>() / steps as f64
        });
        Ok(Some(PhaseTrial {
            lesson_ms: self.lesson_ms(&phase)?,
            phase,
            step_ms: Spread::of(&times),
            mean_ms: times.iter().sum::<f64>() / steps as f64,
            waiting_ms: waiting_ms / steps as f64,
            passes_ms,
            cpu_seconds: cpu,
        }))
    }
}
