use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use space::preset;

use super::*;
use crate::train::testing::{digits, model};
use crate::train::{Dropout, OptimizerSettings, Recipe, Student, Teacher};
use candle_core::Tensor;

mod fields;

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
        TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
    let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
    let folder = RunFolder::open(at, false).expect("a folder");
    Trainer::new(preset("tiny").expect("a preset"), dataset, recipe, folder, config).expect("it fits")
}

/// The recipe with AdamW, which needs other learning rates.
fn adamw(lr: f64) -> Recipe {
    let optimizer = OptimizerSettings::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    Recipe { optimizer, weight_decay: 0.01, ..recipe(lr) }
}

/// Both phases taught by a file.
fn taught() -> Recipe {
    let mut recipe = recipe(0.1);
    recipe.phases.iter_mut().for_each(|phase| phase.teacher = Teacher::File);
    recipe
}

/// Losses of the steps, as they are taken; stops after some.
struct Losses<'a> {
    seen: Vec<f32>,
    stop: &'a AtomicBool,
    after: usize,
}

impl Observer for Losses<'_> {
    fn step(&mut self, record: &StepRecord) {
        self.seen.push(record.loss);
        if self.seen.len() == self.after {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Starts or continues a run for `steps` steps; returns their losses.
fn go_on(at: &Path, recipe: &Recipe, teacher: Option<&Path>, steps: usize) -> Result<(RunOutcome, Vec<f32>)> {
    let config =
        TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
    let space = preset("tiny").expect("a preset");
    let dataset = Arc::new(digits());
    let teacher = TeacherFile::for_recipe(teacher, recipe)?;
    let task = TrainTask { teacher, ..TrainTask::fresh(space, dataset, recipe) };
    let mut trainer = Trainer::of(task, RunFolder::open(at, true)?, config)?;
    let stop = AtomicBool::new(false);
    let mut losses = Losses { seen: Vec::new(), stop: &stop, after: steps };
    let outcome = trainer.run(&stop, &mut losses)?;
    Ok((outcome, losses.seen))
}

const ALL: usize = usize::MAX;

/// Checks that a run that is stopped after each of these numbers of steps ends with the same bytes as one that is
/// not.
fn assert_stops_change_nothing(recipe: &Recipe, teacher: Option<&Path>, stops: &[usize]) {
    let folder = tempfile::tempdir().expect("a folder");
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let (outcome, expected) = go_on(&whole, recipe, teacher, ALL).expect("sound");
    let mut losses = Vec::new();
    for steps in stops {
        let (outcome, seen) = go_on(&parts, recipe, teacher, *steps).expect("sound");
        losses.extend(seen);
        assert_eq!(outcome, RunOutcome::Interrupted { step: losses.len() as u64 });
    }
    let (rest, seen) = go_on(&parts, recipe, teacher, ALL).expect("sound");
    losses.extend(seen);
    assert_eq!((outcome, rest), (RunOutcome::Finished, RunOutcome::Finished));
    assert_eq!(losses, expected);
    for file in ["supernet.safetensors", "teacher.safetensors", "checkpoint.safetensors"] {
        let bytes = |at: &Path| std::fs::read(at.join(file)).expect("a file");
        assert!(bytes(&whole) == bytes(&parts), "{file}");
    }
}

#[test]
fn a_run_by_adamw_that_is_stopped_ends_with_the_same_bytes() {
    assert_stops_change_nothing(&adamw(0.002), None, &[1, 2, 2]);
}

#[test]
fn adamw_lowers_the_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut recipe = adamw(0.003);
    recipe.phases.truncate(1);
    recipe.phases[0].epochs = 3.0;
    let (_, losses) = go_on(&folder.path().join("run"), &recipe, None, ALL).expect("sound");
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let [first, last] = [mean(&losses[..10]), mean(&losses[losses.len() - 10..])];
    assert!(last < 0.7 * first, "{first} at first, {last} in the end of {} steps", losses.len());
}

#[test]
fn another_optimizer_cannot_go_on_with_a_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("run");
    go_on(&at, &recipe(0.1), None, 2).expect("sound");
    let error = go_on(&at, &adamw(0.1), None, ALL).expect_err("another").to_string();
    assert!(
        error.contains("plan.optimizer: expected nesterov, got adamw; the state of one optimizer is useless"),
        "{error}"
    );
    assert!(error.contains("--start"), "{error}");
    go_on(&at, &recipe(0.1), None, ALL).expect("its own");
}

#[test]
fn a_file_teaches_and_no_other_takes_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("model")).expect("a folder");
    model().write(&at("model")).expect("written");
    go_on(&at("supernet"), &recipe(0.1), None, ALL).expect("sound");
    for teacher in ["model", "supernet"].map(at) {
        assert_stops_change_nothing(&taught(), Some(&teacher), &[2, 3]);
    }
    let (_, alone) = go_on(&at("alone"), &recipe(0.1), None, 1).expect("sound");
    let (_, losses) = go_on(&at("run"), &taught(), Some(&at("model")), 3).expect("sound");
    assert!(losses[0] > alone[0] + 1.0, "{losses:?} and {alone:?}: a teacher adds its part to the loss");
    let error = go_on(&at("run"), &taught(), Some(&at("supernet")), ALL).expect_err("another").to_string();
    assert!(error.contains("plan.json: plan.teacher: expected \""), "{error}");
    let error = go_on(&at("run"), &taught(), None, ALL).expect_err("none").to_string();
    assert!(error.contains("phases[1] (full).teacher: expected a teacher file, got none"), "{error}");
    let checkpoint = at("run").join("checkpoint.safetensors");
    assert!(TeacherFile::read(&checkpoint).is_err(), "a checkpoint is of no finished network");
    go_on(&at("run"), &taught(), Some(&at("model")), ALL).expect("its own");
}

/// Two processes with the same images: each gradient counts twice.
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
            Backend::detect().add_assign(gradient, &gradient.copy()?)?;
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
        assert_eq!(trainer.run(&stop, &mut ()).expect("sound"), RunOutcome::Finished);
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
    let own = rows(logits);
    let teacher = teacher.map(rows);
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
    let student = Student { space: &trainer.space, weights: &trainer.weights, backend: Backend::detect() };
    assert_eq!(trainer.space.dropout(), 0.0, "training and teaching see the same");
    let logits: Vec<_> =
        losses.iter().map(|(arch, _)| student.teach(arch, &batch.inputs).expect("logits")).collect();
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

/// The largest change of a weight in the first step of a run.
fn largest_change(recipe: &Recipe) -> f32 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut trainer = trainer(&folder.path().join("run"), recipe);
    let values = |trainer: &Trainer| {
        let values = trainer.weights.arena().values();
        values.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).expect("f32 on the CPU")
    };
    let before = values(&trainer);
    let phase = trainer.plan.phases[0].clone();
    let resolution = trainer.plan.resolution(&trainer.space, 0);
    let batch = trainer.loader().and_then(|loader| Ok(loader.batch_at(0, resolution)?)).expect("a batch");
    trainer.take_step(&phase, &batch, &mut Stopwatch::start()).expect("a step");
    let after = values(&trainer);
    before.iter().zip(&after).map(|(before, after)| (after - before).abs()).fold(0.0, f32::max)
}

/// Nesterov's first step is lr (1 + momentum) times the gradient, where nothing decays.
#[test]
fn gradients_are_clipped_before_the_step() {
    let plain = recipe(0.1);
    let clipped = Recipe { gradient_clip: Some(0.001), ..plain.clone() };
    let bound = 0.1 * 1.9 * 0.001;
    assert!(largest_change(&plain) > 10.0 * bound);
    let change = largest_change(&clipped);
    assert!((0.99 * bound..1.01 * bound).contains(&change), "{change}, at most {bound}");
}

#[test]
fn the_smaller_networks_can_go_without_dropout() {
    let text = preset("tiny").expect("a preset").to_toml().replace("dropout = 0.0", "dropout = 0.5");
    let space = SearchSpace::from_toml("x.toml", &text).expect("a space");
    let folder = tempfile::tempdir().expect("a folder");
    for (dropout, is_plain) in [(Dropout::All, [false, false]), (Dropout::Largest, [false, true])] {
        let mut recipe = recipe(0.1);
        recipe.phases[1].teacher = Teacher::None;
        recipe.phases[1].dropout = dropout;
        let config =
            TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: Backend::detect() };
        let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
        let run = RunFolder::open(&folder.path().join(format!("{dropout:?}")), false).expect("a folder");
        let trainer = Trainer::new(space.clone(), dataset, &recipe, run, config).expect("it fits");
        let phase = &trainer.plan.phases[1];
        let step = phase.first_step;
        let resolution = trainer.plan.resolution(&trainer.space, step);
        let batch =
            trainer.loader().and_then(|loader| Ok(loader.batch_at(step, resolution)?)).expect("a batch");
        let losses = trainer.learn(phase, step, &batch).expect("it fits");
        let student =
            Student { space: &trainer.space, weights: &trainer.weights, backend: Backend::detect() };
        for ((arch, loss), is_plain) in losses.iter().zip(is_plain) {
            let logits = student.teach(arch, &batch.inputs).expect("logits");
            let plain = loss_by_hand(&logits, batch.targets.classes(), None);
            let loss = f64::from(loss.read().expect("known"));
            assert_eq!(
                (loss - plain).abs() < 1e-5 * plain,
                is_plain,
                "{dropout:?} {arch}: {loss}, without {plain}"
            );
        }
    }
}
