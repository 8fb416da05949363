//! Fields of a recipe that change a step: the average of the weights, a batch in parts, candidates of equal cost.

use super::*;
use crate::train::loss::loss;
use crate::train::{Attentive, CostKind, Draw, Keep, Target, ValidationSettings};

fn values(weights: &SharedWeights) -> Vec<f32> {
    weights.arena().values().to_vec1::<f32>().expect("f32 on the CPU")
}

fn attentive(keep: Keep) -> Recipe {
    let mut recipe = recipe(0.1);
    let of = Attentive { networks: 2, candidates: 3, keep, bins: 4, by: CostKind::Macs };
    recipe.phases[1].draw = vec![Draw::Largest, Draw::Attentive(of)];
    recipe
}

/// All of them at once.
fn with_everything() -> Recipe {
    Recipe { ema_decay: Some(0.9), accumulation: 2, gradient_clip: Some(1.0), ..attentive(Keep::Worst) }
}

#[test]
fn the_average_follows_the_weights_and_ends_the_phase() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = Recipe { ema_decay: Some(0.6), ..recipe(0.1) };
    let mut trainer = trainer(&folder.path().join("run"), &recipe);
    let phase = trainer.plan.phases[0].clone();
    trainer.enter(0, &phase).expect("room");
    let mut expected = values(&trainer.weights);
    for step in 0..4u16 {
        let resolution = trainer.plan.resolution(&trainer.space, step.into());
        let batch = trainer.loader().and_then(|loader| Ok(loader.batch_at(step.into(), resolution)?));
        trainer.take_step(&phase, &batch.expect("a batch"), &mut Stopwatch::start()).expect("a step");
        let taken = f32::from(step + 1);
        let kept = 0.6f32.min((1.0 + taken) / (10.0 + taken));
        for (average, weight) in expected.iter_mut().zip(values(&trainer.weights)) {
            *average = kept * *average + (1.0 - kept) * weight;
        }
        let close =
            values(trainer.result()).iter().zip(&expected).all(|(one, other)| (one - other).abs() < 1e-5);
        assert!(close, "after {taken} steps");
    }
    assert_ne!(values(trainer.result()), values(&trainer.weights));
    let stop = AtomicBool::new(false);
    assert!(trainer.leave(0, &stop, &mut ()).expect("sound"));
    assert_eq!(values(&trainer.weights), values(trainer.result()), "the next phase begins with the average");
    let teacher = Supernet::read(&trainer.folder.teacher()).expect("written");
    assert_eq!(values(&teacher.weights), values(&trainer.weights));
}

/// Each part by itself, with statistics of its own, and half of each gradient.
#[test]
fn a_batch_in_parts_is_the_mean_of_its_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = Recipe { accumulation: 2, ..recipe(0.1) };
    let trainer = trainer(&folder.path().join("run"), &recipe);
    let phase = &trainer.plan.phases[0];
    let side = trainer.plan.resolution(&trainer.space, 0);
    let batch = trainer.loader().and_then(|loader| Ok(loader.batch_at(0, side)?)).expect("a batch");
    let losses = trainer.learn(phase, 0, &batch).expect("it fits");
    assert_eq!(losses.len(), 2);
    let got = trainer.gradients.arena().values().to_vec1::<f32>().expect("f32");
    let mut expected = vec![0.0f32; got.len()];
    for (part, (_, of_part)) in losses.iter().enumerate() {
        let half = batch.part(16 * part, 16).expect("half of it");
        let gradients = Gradients::new(&trainer.weights).expect("room");
        let target = Target { labels: half.targets.classes(), smoothing: 0.1, ..Target::default() };
        let arch = sampler::largest(&trainer.space).at(side);
        let learned =
            trainer.student().learn(&arch, &half.inputs, &target, None, &gradients).expect("it fits");
        assert_eq!(learned.loss.read().expect("known"), of_part.read().expect("known"));
        let of_part = gradients.arena().values().to_vec1::<f32>().expect("f32");
        expected.iter_mut().zip(of_part).for_each(|(sum, gradient)| *sum += 0.5 * gradient);
    }
    let scale = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let apart = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-5 * scale, "{apart} of {scale}");
}

#[test]
fn the_best_or_the_worst_candidate_is_trained() {
    let folder = tempfile::tempdir().expect("a folder");
    for keep in [Keep::Best, Keep::Worst] {
        let trainer = trainer(&folder.path().join(format!("{keep:?}")), &attentive(keep));
        let phase = &trainer.plan.phases[1];
        let mut contests = 0;
        for step in phase.first_step..phase.end() {
            let side = trainer.plan.resolution(&trainer.space, step);
            let batch =
                trainer.loader().and_then(|loader| Ok(loader.batch_at(step, side)?)).expect("a batch");
            let drawn =
                trainer.plan.candidates(&trainer.space, phase, step, trainer.drawn_by()).expect("drawn");
            let chosen = trainer.archs(phase, step, &batch).expect("chosen");
            for (candidates, chosen) in drawn.iter().zip(&chosen).skip(1) {
                let loss_of = |arch: &Arch| {
                    let logits = trainer.student().teach(arch, &batch.inputs).expect("logits");
                    let target = Target { labels: batch.targets.classes(), ..Target::default() };
                    let (loss, _) = loss(&logits, &target, &Backend::detect()).expect("sizes fit");
                    loss.read().expect("known")
                };
                let own = loss_of(chosen);
                let others = candidates.archs.iter().map(loss_of);
                assert!(match keep {
                    Keep::Best => others.fold(f32::INFINITY, f32::min) == own,
                    Keep::Worst => others.fold(0.0, f32::max) == own,
                });
                contests += usize::from(candidates.archs.len() > 1);
            }
        }
        assert!(contests > 0, "there was something to choose");
    }
}

#[test]
fn a_run_with_all_of_them_that_is_stopped_ends_with_the_same_bytes() {
    assert_stops_change_nothing(&with_everything(), None, &[1, 2, 2]);
}

#[test]
fn so_does_one_by_adamw_whose_phases_are_validated() {
    let validation = ValidationSettings {
        every_epochs: 0.03125,
        images: Some(100),
        subnetworks: crate::train::Validated::Corners,
        patience: None,
    };
    let recipe = Recipe { ema_decay: Some(0.9), validation: Some(validation), ..adamw(0.002) };
    assert_stops_change_nothing(&recipe, None, &[1, 2, 2]);
}

#[test]
fn a_smaller_batch_keeps_the_size_of_its_parts() {
    let recipe = Recipe { accumulation: 4, ..recipe(0.1) };
    let parts = |batch| recipe.with_batch(batch).accumulation;
    // parts of at most 8 images
    assert_eq!([32, 64, 30, 5, 7, 11].map(parts), [4, 8, 5, 1, 1, 11]);
    assert_eq!(super::recipe(0.1).with_batch(30).accumulation, 1);
}

#[test]
fn a_checkpoint_without_the_average_cannot_go_on_with_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("run");
    go_on(&at, &recipe(0.1), None, 2).expect("sound");
    let averaged = Recipe { ema_decay: Some(0.9), ..recipe(0.1) };
    let error = go_on(&at, &averaged, None, ALL).expect_err("none").to_string();
    assert!(error.contains("plan.ema_decay"), "{error}");
    go_on(&at, &recipe(0.1), None, ALL).expect("its own");
}

#[test]
fn conflicts_are_reported_once_and_change_no_weight() {
    let folder = tempfile::tempdir().expect("a folder");
    let recipe = recipe(0.1);
    let stop = AtomicBool::new(false);
    let mut plain = trainer(&folder.path().join("plain"), &recipe);
    let mut reporting = trainer(&folder.path().join("reporting"), &recipe).reporting_conflicts(0.0625);
    for trainer in [&mut plain, &mut reporting] {
        assert_eq!(trainer.run(&stop, &mut ()).expect("sound"), RunOutcome::Finished);
    }
    assert_eq!(values(&plain.weights), values(&reporting.weights));
    let log = std::fs::read_to_string(reporting.folder.log_path()).expect("a log");
    let reports: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a line"))
        .filter(|line| line["event"] == "conflict")
        .collect();
    let steps: Vec<_> = reports.iter().map(|line| line["step"].as_u64().expect("a step")).collect();
    assert_eq!(steps, [2, 4, 6], "within a phase and at its end");
    assert_eq!(reports[0]["subnetworks"].as_array().map(Vec::len), Some(1), "the full phase has one network");
    assert!(reports[2]["subnetworks"].as_array().is_some_and(|found| found.len() > 8));
    assert!(reports[2]["cosine"].as_f64().is_some_and(|cosine| cosine.abs() < 1.0));
}

#[test]
fn a_trial_times_each_phase() {
    let folder = tempfile::tempdir().expect("a folder");
    let trainer = trainer(&folder.path().join("run"), &recipe(0.1));
    let trials = trainer.trial(3, &AtomicBool::new(false), None).expect("sound");
    let phases: Vec<_> = trials.iter().map(|trial| (&*trial.phase.phase.name, trial.phase.steps)).collect();
    assert_eq!(phases, [("full", 4), ("sandwich", 2)]);
    assert!(trials.iter().all(|trial| trial.mean_ms > 0.0 && trial.waiting_ms <= trial.mean_ms));
    assert!(trials.iter().all(|trial| trial.passes_ms.is_none() && trial.share_beside().is_none()));
    assert!(!folder.path().join("run/checkpoint.safetensors").exists());
}
