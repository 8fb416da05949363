//! Lessons of the controller between steps.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

use base::random::rng_for;
use base::timing::Stopwatch;
use network::data::{Batch, val_minibatch};
use network::eval::{Accuracy, best};
use space::{Arch, Extent, GeneRow, NodeRole};

use super::Trainer;
use crate::error::Result;
use crate::train::controller::Pupil;
use crate::train::draw::Draw;
use crate::train::plan::PlannedPhase;
use crate::train::record::{ControllerRecord, LogLine};

/// Samples by which a lesson is timed.
const TIMED: u32 = 8;

/// Sums over the samples of a lesson.
#[derive(Default)]
struct Sums {
    reward: f64,
    accuracy: f64,
    entropy: f64,
    links: [usize; 2],
}

impl Trainer {
    /// Lessons that the controller has had after as many steps as are taken: one each so many steps of a phase that it
    /// draws for.
    fn lessons_due(&self) -> u64 {
        let Some(every) = self.plan.lesson_steps() else { return 0 };
        let drawn = self.plan.phases.iter().filter(|phase| Draw::by_controller(&phase.phase.draw));
        drawn
            .map(|phase| self.step.clamp(phase.first_step, phase.end()) - phase.first_step)
            .map(|taken| taken / every)
            .sum()
    }

    /// Whether the controller has a lesson before the next step.
    pub(super) fn lesson_is_due(&self) -> bool {
        self.pupil.as_ref().is_some_and(|pupil| pupil.lessons < self.lessons_due())
    }

    /// Gives the lesson that is due, if one is; whether there was one, or `None` if `stop` was set first.
    pub(super) fn give_lesson_if_due(
        &mut self,
        index: usize,
        stop: &AtomicBool,
        report: &mut dyn FnMut(&LogLine),
    ) -> Result<Option<bool>> {
        if !self.lesson_is_due() {
            return Ok(Some(false));
        }
        let Some(mut pupil) = self.pupil.clone() else { return Ok(Some(false)) };
        let Some(record) = self.lesson(&mut pupil, index, stop)? else { return Ok(None) };
        // a phase that ended early leaves several due, which are one
        pupil.lessons = self.lessons_due();
        self.pupil = Some(pupil);
        let line = LogLine::Controller(record);
        if !self.has_happened(|line| matches!(line, LogLine::Controller(_))) {
            self.folder.log(&line)?;
        }
        report(&line);
        Ok(Some(true))
    }

    /// Milliseconds of a lesson as a share of each step of a phase, timed on some samples; 0 where the controller does not draw.
    pub(super) fn lesson_ms(&self, phase: &PlannedPhase) -> Result<f64> {
        let drawn = Draw::by_controller(&phase.phase.draw);
        let Some((pupil, every)) = self.pupil.as_ref().zip(self.plan.lesson_steps()).filter(|_| drawn) else {
            return Ok(0.0);
        };
        let arch = pupil.draw(&self.space, &mut rng_for("controller lesson", self.config.seed, &[0]));
        // the first pass is slower than those after it, and the images are read once for all samples of an update
        let mut batches = BTreeMap::new();
        self.scored(&arch, 0, &mut batches)?;
        let watch = Stopwatch::start();
        for _ in 0..TIMED {
            self.scored(&arch, 0, &mut batches)?;
        }
        let samples = (pupil.recipe.updates * pupil.recipe.samples) as f64;
        Ok(watch.elapsed_ms() / f64::from(TIMED) * samples / every as f64)
    }

    /// All updates of a lesson; `None` if `stop` was set before the last.
    fn lesson(&self, pupil: &mut Pupil, index: usize, stop: &AtomicBool) -> Result<Option<ControllerRecord>> {
        let genome = self.space.genome();
        let recipe = pupil.recipe;
        let mut sums = Sums::default();
        for update in 0..recipe.updates as u64 {
            let number = pupil.lessons * recipe.updates as u64 + update;
            let mut rng = rng_for("controller lesson", self.config.seed, &[number]);
            let mut batches = BTreeMap::new();
            let mut rewarded = Vec::with_capacity(recipe.samples);
            for _ in 0..recipe.samples {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let row = pupil.controller.draw(genome, &mut rng);
                let arch = self.space.arch(&row);
                let accuracy = self.scored(&arch, number, &mut batches)?;
                let reward = recipe.reward(accuracy.top1(), || self.cost.of(&self.space, &arch))?;
                sums.reward += reward;
                sums.accuracy += accuracy.top1();
                sums.entropy += pupil.controller.odds(genome, &row).entropy;
                self.count_links(&row, &mut sums.links);
                rewarded.push((row, reward));
            }
            let lessons = rewarded.iter().map(|(row, reward)| (row.as_slice(), *reward));
            pupil.controller.learn(genome, lessons);
        }
        let samples = (recipe.updates * recipe.samples) as f64;
        let [links, taken] = sums.links;
        Ok(Some(ControllerRecord {
            step: self.step,
            phase: self.plan.phases[index].phase.name.clone(),
            updates: recipe.updates,
            reward: sums.reward / samples,
            top1: sums.accuracy / samples,
            baseline: pupil.controller.baseline().unwrap_or_default(),
            entropy: sums.entropy / samples,
            links: (links > 0).then(|| taken as f64 / links as f64),
        }))
    }

    /// Counts the choices of links that a row makes, and those that it takes.
    fn count_links(&self, row: &GeneRow, [links, taken]: &mut [usize; 2]) {
        let genome = self.space.genome();
        for (gene, of) in genome.genes().iter().enumerate() {
            let is_link = of.of_node.is_some_and(|of| matches!(of.role, NodeRole::Link { .. }));
            if is_link && genome.exists(row, gene) {
                *links += 1;
                *taken += usize::from(row[gene] > 0);
            }
        }
    }

    /// A sub-network's accuracy on one of the minibatches of validation images, by the statistics of that minibatch.
    /// `batches` holds the minibatch at each resolution so far.
    fn scored(&self, arch: &Arch, number: u64, batches: &mut BTreeMap<Extent, Batch>) -> Result<Accuracy> {
        let batch = match batches.entry(arch.resolution) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let images = self.plan.batch / self.plan.accumulation;
                let batch = val_minibatch(&self.dataset, number, images, arch.resolution, self.config.seed)?;
                place.insert(batch.on(&self.config.backend)?)
            }
        };
        self.counted(arch, batch)
    }

    /// A sub-network's accuracy on a batch, by the statistics of that.
    pub(super) fn counted(&self, arch: &Arch, batch: &Batch) -> Result<Accuracy> {
        let logits = self.student().teach(arch, &batch.inputs)?.to_vec2::<f32>()?;
        let labels = batch.targets.classes();
        let hits = logits.iter().zip(labels).filter(|(row, label)| best(row) == Some(**label as usize));
        Ok(Accuracy { correct: hits.count(), n: labels.len() })
    }
}
