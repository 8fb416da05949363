//! The sub-network that a controller or architecture parameters choose after the last step.

use std::sync::atomic::{AtomicBool, Ordering};

use base::random::rng_for;
use network::data::val_minibatch;
use network::eval::Accuracy;
use serde_json::json;
use space::Arch;

use super::{Observer, Trainer, notify};
use crate::error::Result;
use crate::train::controller::Pupil;
use crate::train::record::{DerivedRecord, LogLine};

/// Version of the file of a derived sub-network, which `--arch` reads.
const VERSION: u32 = 1;

/// A derived sub-network, its reward if it was chosen by that, and the number of different candidates.
struct Chosen {
    arch: Arch,
    reward: Option<f64>,
    candidates: usize,
}

impl Trainer {
    /// After the last step: writes the sub-network that the controller or the architecture parameters choose. `None` if `stop` was
    /// set first.
    pub(super) fn derive(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Option<()>> {
        let chosen = match (&self.pupil, &self.logits) {
            (Some(pupil), _) => {
                let Some(chosen) = self.best_candidate(pupil, stop)? else { return Ok(None) };
                chosen
            }
            (None, Some(logits)) => {
                Chosen { arch: logits.derived(&self.space).0, reward: None, candidates: 1 }
            }
            (None, None) => return Ok(Some(())),
        };
        let Chosen { arch, reward, candidates } = chosen;
        let Some(accuracy) = self.accuracy_unless(stop, &self.dataset, &arch)? else { return Ok(None) };
        let top1 = accuracy.top1();
        let document = json!({
            "kind": "derived",
            "version": VERSION,
            "arch": arch,
            "space": self.space.name(),
            "reward": reward,
            "candidates": candidates,
            "val": { "top1": top1, "correct": accuracy.correct, "n": accuracy.n },
        });
        let text = base::document::printed(&document);
        base::file::write_atomically(&self.folder.derived(), text.as_bytes())?;
        let line =
            LogLine::Derived(DerivedRecord { step: self.step, arch, reward, candidates, top1, accuracy });
        if !self.has_happened(|line| matches!(line, LogLine::Derived(_))) {
            self.folder.log(&line)?;
        }
        notify(observer, &line);
        Ok(Some(()))
    }

    /// Draws candidates from the controller, and scores each on validation images by their own statistics: the one with the
    /// highest reward, of equal ones the first drawn. `None` if `stop` was set first.
    fn best_candidate(&self, pupil: &Pupil, stop: &AtomicBool) -> Result<Option<Chosen>> {
        let recipe = pupil.recipe;
        let mut rng = rng_for("derived", self.config.seed, &[]);
        let batch = self.plan.batch / self.plan.accumulation;
        let minibatches = (recipe.images.min(self.dataset.val().len()) / batch).max(1);
        let mut drawn: Vec<Arch> = Vec::with_capacity(recipe.candidates);
        for _ in 0..recipe.candidates {
            let arch = pupil.draw(&self.space, &mut rng);
            if !drawn.contains(&arch) {
                drawn.push(arch);
            }
        }
        let candidates = drawn.len();
        let mut found: Option<(f64, Arch)> = None;
        for arch in drawn {
            let mut sum = Accuracy { correct: 0, n: 0 };
            // in random order: images of one class alone would have statistics of their own
            for number in 0..minibatches as u64 {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let batch = val_minibatch(&self.dataset, number, batch, arch.resolution, self.config.seed)?;
                let Accuracy { correct, n } = self.counted(&arch, &batch.on(&self.config.backend)?)?;
                sum = Accuracy { correct: sum.correct + correct, n: sum.n + n };
            }
            let reward = recipe.reward(sum.top1(), || self.cost.of(&self.space, &arch))?;
            if found.as_ref().is_none_or(|(best, _)| reward > *best) {
                found = Some((reward, arch));
            }
        }
        Ok(found.map(|(reward, arch)| Chosen { arch, reward: Some(reward), candidates }))
    }
}
