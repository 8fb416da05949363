//! Where a run continues after a divergence. A checkpoint saved within the diverged phase may be finite and
//! worthless, so the run goes back to the start of the phase.

use network::checkpoint::Checkpoint;

use super::plan::TrainingPlan;
use super::record::Divergence;
use super::run_folder::RunFolder;
use crate::error::Result;

/// The way back of a run that has diverged.
pub(super) struct WayBack {
    divergence: Divergence,
    to: Place,
}

/// Where the run continues.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Beginning,
    PhaseEnd,
    /// At the checkpoint, because it is itself the end of a phase, or because no phase end was kept.
    Checkpoint,
}

impl WayBack {
    /// The state to resume from, if there is one, and the way back if the log records a divergence. Nothing is
    /// changed yet.
    ///
    /// # Errors
    /// If a file of the folder cannot be read.
    pub(super) fn find(folder: &RunFolder) -> Result<(Option<Checkpoint>, Option<Self>)> {
        let path = folder.checkpoint();
        let saved = path.exists().then(|| Checkpoint::read(&path)).transpose()?;
        let Some(divergence) = folder.divergence()? else { return Ok((saved, None)) };
        let first_step = divergence.first_step;
        let Some(checkpoint) = saved else {
            let starts_over = (first_step == 0).then_some(Self { divergence, to: Place::Beginning });
            return Ok((None, starts_over));
        };
        if divergence.step + 1 < checkpoint.training.step {
            // the checkpoint was replaced after the run diverged
            return Ok((Some(checkpoint), None));
        }
        if checkpoint.training.step <= first_step {
            return Ok((Some(checkpoint), Some(Self { divergence, to: Place::Checkpoint })));
        }
        if first_step == 0 {
            return Ok((None, Some(Self { divergence, to: Place::Beginning })));
        }
        let kept = folder.phase_end();
        if kept.exists() {
            let phase_end = Checkpoint::read(&kept)
                .map_err(|error| error.or_do("remove it to go on from the checkpoint"))?;
            if phase_end.training.step == first_step {
                return Ok((Some(phase_end), Some(Self { divergence, to: Place::PhaseEnd })));
            }
        }
        Ok((Some(checkpoint), Some(Self { divergence, to: Place::Checkpoint })))
    }

    /// Goes back: replaces or removes the files of the phase.
    ///
    /// # Errors
    /// If the folder cannot be written; the way back can then still be found.
    pub(super) fn go(&self, folder: &mut RunFolder) -> Result<()> {
        match self.to {
            Place::Beginning => folder.start_over(),
            Place::PhaseEnd => folder.take_back_phase_end(),
            Place::Checkpoint => Ok(()),
        }
    }

    /// The way back in words; the run continues from step `step` of `plan`.
    pub(super) fn in_words(&self, plan: &TrainingPlan, step: u64) -> String {
        let Divergence { step: at, phase, .. } = &self.divergence;
        let ended = plan.phases.iter().find(|phase| phase.end() == step);
        let from = match (self.to, ended) {
            (Place::Beginning, _) => "it starts over".to_string(),
            (_, Some(ended)) => {
                format!("it continues from the end of phase {} (step {step})", ended.phase.name)
            }
            (_, None) => {
                format!("the end of the previous phase was not kept, so it continues from step {step}")
            }
        };
        format!("the run diverged at step {at} of phase {phase}; {from}")
    }
}
