use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use space::preset;

use super::*;
use crate::train::Recipe;

struct Nobody;

impl Observer for Nobody {
    fn phase(&mut self, _: &PlannedPhase, _: u64) {}
    fn step(&mut self, _: &StepRecord) {}
    fn evaluated(&mut self, _: &Arch, _: Accuracy) {}
}

/// Four steps of the largest network, and two of a sandwich in which it teaches.
fn recipe(lr: f64) -> Recipe {
    let text = format!(
        "version = 2\nname = \"short\"\nbatch = 32\nlr_batch = 32\nmomentum = 0.9\nweight_decay = 0.0\nlabel_smoothing = 0.1\n\
         [[phases]]\nname = \"full\"\ndraw = [\"largest\"]\nepochs = 0.125\nlr = {lr}\n\
         [[phases]]\nname = \"sandwich\"\nallowed = {{ kernel = 9, depth = 9, expand = 9 }}\n\
         draw = [\"largest\", \"smallest\"]\nepochs = 0.0625\nlr = {lr}\nteacher = \"first\"\n"
    );
    Recipe::from_toml("short", &text).expect("a recipe")
}

fn trainer(at: &Path, recipe: &Recipe) -> Trainer {
    let config =
        TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), kernels: Kernels::detect() };
    let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
    let folder = RunFolder::open(at, false).expect("a folder");
    Trainer::new(preset("tiny").expect("a preset"), dataset, recipe, folder, config).expect("it fits")
}

/// As many processes that see the same images: each gradient counts twice.
#[derive(Clone, Default)]
struct Twins {
    sums: Arc<AtomicUsize>,
    broadcasts: Arc<AtomicUsize>,
}

impl Exchange for Twins {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        2
    }

    fn sum(&self, gradients: &Gradients) -> Result<()> {
        self.sums.fetch_add(1, Ordering::Relaxed);
        for name in gradients.touched() {
            let gradient = gradients.get(&name)?;
            Kernels::detect().add_assign(gradient, &gradient.copy()?)?;
        }
        Ok(())
    }

    fn broadcast(&self, _: &SharedWeights) -> Result<()> {
        self.broadcasts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Without decay a step is linear in its gradients, and a factor of two leaves all bits but the exponent.
#[test]
fn twins_at_half_the_rate_train_as_one_does_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = AtomicBool::new(false);
    let twins = Twins::default();
    let mut together = trainer(&folder.path().join("twins"), &recipe(0.05)).exchanging(twins.clone());
    let mut alone = trainer(&folder.path().join("alone"), &recipe(0.1));
    for trainer in [&mut together, &mut alone] {
        assert_eq!(trainer.run(&stop, &mut Nobody).expect("sound"), Outcome::Finished);
    }
    let steps = alone.plan().steps() as usize;
    let counts = [&twins.sums, &twins.broadcasts].map(|count| count.load(Ordering::Relaxed));
    assert_eq!((counts, steps), ([steps, 1], 6));
    for (name, tensor) in alone.weights.tensors() {
        let values =
            |tensor: &Tensor| tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("f32");
        assert_eq!(values(tensor), values(together.weights.get(name).expect("a weight")), "{name}");
    }
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let sum: f64 = row.iter().map(|value| f64::from(*value).exp()).sum();
    row.iter().map(|value| f64::from(*value) - sum.ln()).collect()
}

/// Mean over the images of the cross-entropy with smoothed labels, and with the teacher's probabilities.
fn loss_by_hand(logits: &Tensor, labels: &[u32], teacher: Option<&Tensor>) -> f64 {
    let rows = |tensor: &Tensor| tensor.to_vec2::<f32>().expect("logits");
    let (own, teacher) = (rows(logits), teacher.map(rows));
    let mut total = 0.0;
    for (image, label) in labels.iter().enumerate() {
        let log = log_softmax(&own[image]);
        total -= 0.9 * log[*label as usize] + 0.1 * log.iter().sum::<f64>() / log.len() as f64;
        for (class, soft) in teacher.iter().flat_map(|rows| log_softmax(&rows[image])).enumerate() {
            total -= soft.exp() * log[class];
        }
    }
    total / labels.len() as f64
}

#[test]
fn the_first_network_of_a_step_teaches_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let trainer = trainer(&folder.path().join("run"), &recipe(0.1));
    let phase = &trainer.plan.phases[1];
    let step = phase.first_step;
    let resolution = trainer.plan.resolution(&trainer.space, step);
    let batch = trainer.loader().and_then(|loader| Ok(loader.batch_at(step, resolution)?)).expect("a batch");
    let losses = trainer.learn(phase, step, &batch).expect("it fits");
    let pupil = Pupil { space: &trainer.space, weights: &trainer.weights, kernels: Kernels::detect() };
    assert_eq!(trainer.space.dropout(), 0.0, "training and teaching see the same");
    let logits: Vec<_> =
        losses.iter().map(|(arch, _)| pupil.teach(arch, &batch.inputs).expect("logits")).collect();
    let expected = [
        loss_by_hand(&logits[0], batch.targets.classes(), None),
        loss_by_hand(&logits[1], batch.targets.classes(), Some(&logits[0])),
    ];
    for ((arch, loss), expected) in losses.iter().zip(expected) {
        let loss = f64::from(loss.read().expect("known"));
        assert!((loss - expected).abs() < 1e-5 * expected, "{arch}: {loss}, by hand {expected}");
    }
    assert!(expected[1] > expected[0] + 1.0, "{expected:?}: the second has two parts");
}
