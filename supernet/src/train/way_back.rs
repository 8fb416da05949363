//! From where a run goes on that has diverged. A checkpoint saved within the phase that did may be finite and worthless, so
//! that the run goes back to where the phase began.

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

/// From where it goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Beginning,
    PhaseEnd,
    /// The checkpoint, for it holds the end of a phase itself, or none was kept.
    Checkpoint,
}

impl WayBack {
    /// The state that a run is taken up with, if there is one, and the way back where its log tells of a divergence. Nothing
    /// is changed yet.
    ///
    /// # Errors
    /// If a file of the folder cannot be read.
    pub(super) fn taken_up(folder: &RunFolder) -> Result<(Option<Checkpoint>, Option<Self>)> {
        let path = folder.checkpoint();
        let saved = path.exists().then(|| Checkpoint::read(&path)).transpose()?;
        let Some(divergence) = folder.divergence()? else { return Ok((saved, None)) };
        let first_step = divergence.first_step;
        let Some(checkpoint) = saved else {
            let begins_anew = (first_step == 0).then_some(Self { divergence, to: Place::Beginning });
            return Ok((None, begins_anew));
        };
        if divergence.step + 1 < checkpoint.training.step {
            // another checkpoint than that of the run that diverged was put there
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

    /// Goes there: what the phase left behind is replaced or removed.
    ///
    /// # Errors
    /// If the folder cannot be written; the way back is then still known.
    pub(super) fn go(&self, folder: &mut RunFolder) -> Result<()> {
        match self.to {
            Place::Beginning => folder.begin_anew(),
            Place::PhaseEnd => folder.take_back_phase_end(),
            Place::Checkpoint => Ok(()),
        }
    }

    /// What is said of it: `step` steps are taken, under `plan` what follows.
    pub(super) fn in_words(&self, plan: &TrainingPlan, step: u64) -> String {
        let Divergence { step: at, phase, .. } = &self.divergence;
        let ended = plan.phases.iter().find(|phase| phase.end() == step);
        let from = match (self.to, ended) {
            (Place::Beginning, _) => "it begins anew".to_string(),
            (_, Some(ended)) => {
                format!("it goes on from the end of phase {} (step {step})", ended.phase.name)
            }
            (_, None) => format!("the end of the phase before is not kept, so it goes on from step {step}"),
        };
        format!("the run diverged at step {at} of phase {phase}; {from}")
    }
}
