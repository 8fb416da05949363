//! Second-order slopes of architecture parameters (Liu et al. 2019, DARTS, section 2.3): those of the validation loss after the
//! weights' next step, whose dependence on the logits counts too. The product with the mixed second derivatives is a central
//! difference of the training loss's slopes, as in the authors' code; the step ahead is one of the run's own optimizer, which moves
//! weights in proportion to their gradient: Nesterov's.

use candle_core::Tensor;
use network::data::Batch;
use network::elastic::SharedWeights;

use super::Trainer;
use super::architecture::Running;
use super::learn::judged;
use crate::error::Result;
use crate::train::loss::Loss;
use crate::train::optimizer::OptimizerSettings;

/// Length of the way to both sides in the central difference (the authors' code).
const WAY: f64 = 0.01;

impl Trainer {
    /// The slopes of the loss on validation images by the logits, at the weights after a step at this rate on training images.
    pub(super) fn unrolled(
        &self,
        running: Running,
        train: &Batch,
        val: &Batch,
        lr: f32,
    ) -> Result<(Loss, Vec<f64>)> {
        let Running { logits, mixed, .. } = running;
        let backend = &self.config.backend;
        let ahead = self.ahead(running, train, lr)?;
        let (loss, gates) = self.pass(Running { weights: &ahead, ..running }, val, &judged(val))?;
        let mut slopes = logits.slopes(mixed, &self.space, &gates);
        let direction = self.gradients.arena().values().copy()?;
        self.gradients.clear(backend)?;
        let length = f64::from(direction.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
        // what a gradient moves the weights by: Nesterov's velocity counts it once more
        let moves = match self.plan.optimizer {
            OptimizerSettings::Nesterov { momentum } => f64::from(lr * (1.0 + momentum)),
            OptimizerSettings::AdamW { .. } => f64::from(lr),
        };
        if length > 0.0 {
            let way = WAY / length;
            let up = self.slopes_along(running, train, &direction.affine(way, 0.0)?)?;
            let down = self.slopes_along(running, train, &direction.affine(-way, 0.0)?)?;
            for (slope, (up, down)) in slopes.iter_mut().zip(up.into_iter().zip(down)) {
                *slope -= moves * (up - down) / (2.0 * way);
            }
        }
        Ok((loss, slopes))
    }

    /// The weights after a step at this rate on training images; those of the run stay.
    pub(super) fn ahead(&self, running: Running, train: &Batch, lr: f32) -> Result<SharedWeights> {
        self.pass(running, train, &self.taught(train))?;
        if let Some(most) = self.plan.gradient_clip {
            self.config.backend.for_layer("optimizer").clamp(self.gradients.arena().values(), most)?;
        }
        let ahead = running.weights.detached()?;
        let mut optimizer = self.resting()?;
        optimizer.restore(self.optimizer.state()?)?;
        optimizer.step(&ahead, &self.gradients, lr)?;
        Ok(ahead)
    }

    /// The slopes of the training loss by the logits, at weights moved by this much.
    fn slopes_along(&self, running: Running, train: &Batch, by: &Tensor) -> Result<Vec<f64>> {
        let moved = running.weights.detached()?;
        self.config.backend.add_assign(moved.arena().values(), by)?;
        let (_, gates) = self.pass(Running { weights: &moved, ..running }, train, &self.taught(train))?;
        self.gradients.clear(&self.config.backend)?;
        Ok(running.logits.slopes(running.mixed, &self.space, &gates))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::train::architecture::Logits;
    use crate::train::{Recipe, RunFolder, TrainConfig};
    use kernels::Backend;
    use network::data::{Dataset, val_minibatch};
    use space::{Extent, preset};

    /// A rate at which the weights' dependence on the logits counts.
    const LR: f32 = 0.3;

    /// By central differences of the loss on validation images after a step of the weights, over the logits. The portable
    /// kernels have the same kinks on every machine.
    #[test]
    fn slopes_are_those_of_the_loss_after_a_step() {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = Backend::named("portable").expect("on every machine");
        let config = TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend };
        let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
        let recipe = Recipe::open("darts").expect("built in").scaled(0.02);
        let run = RunFolder::open(folder.path(), true).expect("a folder");
        let trainer =
            Trainer::new(preset("tiny-cell").expect("a preset"), dataset.clone(), &recipe, run, config)
                .expect("it fits");
        let mut logits = trainer.logits.clone().expect("of the recipe");
        logits.spread(1);
        let side = Extent::from(8);
        let batch = |number| val_minibatch(&dataset, number, 120, side, 5).expect("images");
        let space = &trainer.space;
        let weights = &trainer.weights;
        let after_step = |logits: &Logits, train: &Batch, val: &Batch| {
            let mixed = &logits.all(space);
            let running = Running { weights, logits, mixed };
            let ahead = trainer.ahead(running, train, LR).expect("a step");
            let ahead = Running { weights: &ahead, ..running };
            let (loss, gates) = trainer.pass(ahead, val, &judged(val)).expect("a pass");
            trainer.gradients.clear(&trainer.config.backend).expect("cleared");
            (f64::from(loss.read().expect("a number")), logits.slopes(mixed, space, &gates))
        };
        let mut errors = [0.0, 0.0];
        let mut products = [0.0, 0.0, 0.0];
        for pair in 0..3 {
            let [train, val] = [0, 1].map(|of| batch(3 * pair + of));
            let (_, first) = after_step(&logits, &train, &val);
            let running = Running { weights, logits: &logits, mixed: &logits.all(space) };
            let (_, second) = trainer.unrolled(running, &train, &val, LR).expect("slopes");
            for at in 0..first.len() {
                let loss = |by: f64| after_step(&logits.moved(at, by), &train, &val).0;
                let expected = (loss(0.05) - loss(-0.05)) / 0.1;
                errors[0] += (first[at] - expected).powi(2);
                errors[1] += (second[at] - expected).powi(2);
                // what the second order adds, beside what the first lacks
                let [added, lacking] = [second[at] - first[at], expected - first[at]];
                products[0] += added * lacking;
                products[1] += added * added;
                products[2] += lacking * lacking;
            }
        }
        let correlation = products[0] / f64::sqrt(products[1] * products[2]);
        let [first, second] = errors.map(f64::sqrt);
        // both have noise: the factor between their sizes
        let factor = f64::sqrt(products[2] / products[1]);
        // the loss has a kink at each rectifier, so that no difference of it is exact
        let found = format!("{first} {second}, correlation {correlation}, factor {factor}");
        assert!(second < first && correlation > 0.5 && (0.5..1.3).contains(&factor), "{found}");
    }
}
