//! Compares whole networks and trainings on an emulated GPU, whose kernels run on the host, with the CPU's kernels.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use candle_core::Tensor;

use base::random::rng_for;
use kernels::{Backend, Precision, emulated_gpu};
use network::checkpoint::{Checkpoint, Supernet};
use network::data::{Dataset, Partners};
use network::eval::Accuracy;
use space::{Arch, SearchSpace, preset, sampler};
use supernet::agreement::{apart, diamond, of_layer, of_layers, of_network};
use supernet::train::{
    Distillation, Observer, OptimizerSettings, PlannedPhase, Recipe, RunFolder, RunOutcome, StepRecord,
    Target, TrainConfig, Trainer, loss,
};

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|flat| flat.to_vec1()).expect("f32")
}

/// Compares every layer of the small spaces' sub-networks, forward and backward.
#[test]
fn layers_by_themselves() {
    let precisions = [(Precision::F32, 1e-5), (Precision::Bf16, 0.1)];
    for (precision, bound) in precisions {
        let Some(gpu) = emulated_gpu(precision) else { return };
        let mut compared = 0;
        let mut worst = 0.0f64;
        for name in [
            "tiny",
            "tiny-resnet",
            "tiny-spectrogram",
            "tiny-cell",
            "tiny-macro",
            "nas-bench-201",
            "enas-macro",
            "fashion",
        ] {
            let space = preset(name).expect("a preset");
            // in bf16 the maxima of overlapping windows tie, and one sign that turns is much of a map of 4x4
            let is_coarse = name.ends_with("-macro") && precision == Precision::Bf16;
            let bound = if is_coarse { 1.5 * bound } else { bound };
            let archs = ["largest", "smallest", "random"].map(|arch| named(&space, arch, 3));
            let layers = archs.iter().flat_map(|arch| space.lower(arch).expect("legal"));
            let layers: BTreeMap<_, _> = layers.map(|layer| (layer.key(), layer)).collect();
            for (key, layer) in layers {
                for (what, apart) in of_layer(&layer, &gpu, &Backend::detect()).expect("it runs") {
                    assert!(apart <= bound, "{key}: {what} {apart:.1e} apart, expected at most {bound:.0e}");
                    (compared, worst) = (compared + 1, worst.max(apart));
                }
            }
        }
        println!("layers, {precision}: {compared} comparisons, worst difference {worst:.1e}");
    }
}

/// Losses of images that are mixed from two, with and without a teacher and weights of classes.
#[test]
fn losses_of_mixtures() {
    let Some(gpu) = emulated_gpu(Precision::F32) else { return };
    let cpu = Backend::detect();
    let rows = [[0.3f32, -1.2, 2.0], [0.1, 0.0, -0.5]];
    let logits = Tensor::new(&rows, &cpu.device()).expect("a tensor");
    let teacher = Tensor::new(&[[1.0f32, 0.0, -1.0], [0.5, 2.0, 0.0]], &cpu.device()).expect("a tensor");
    let partners = Partners { classes: vec![1, 0], share: 0.7 };
    let labels = &[2, 0];
    for teacher in [None, Some(&teacher)] {
        for (class_weights, share) in [(None, 1.0), (Some(&[0.5, 1.0, 4.0][..]), 1.0), (None, 0.25)] {
            let partners = Some(&partners);
            let distillation = Distillation::Added;
            let smoothing = 0.1;
            let target = Target { labels, partners, smoothing, teacher, class_weights, distillation, share };
            let value = |backend: &Backend| {
                let (loss, gradient) = loss(&logits, &target, backend).expect("sizes fit");
                (loss.read().expect("computed"), flat(&gradient))
            };
            let (expected, slopes) = value(&cpu);
            let (got, gradient) = value(&gpu);
            assert!((got - expected).abs() < 1e-5, "{got} for {expected}");
            assert!(apart(&gradient, &slopes) < 1e-5, "{gradient:?} for {slopes:?}");
        }
    }
}

/// Layers that several others read, and sums of them.
#[test]
fn a_diamond_of_layers() {
    for (precision, bound) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.1)] {
        let Some(gpu) = emulated_gpu(precision) else { return };
        for (what, apart) in of_layers(&diamond().expect("keys"), &gpu, &Backend::detect()).expect("it runs")
        {
            println!("diamond, {precision}: {what} {apart:.1e} apart");
            assert!(apart <= bound, "{precision}: {what} {apart:.1e} apart, expected at most {bound:.0e}");
        }
    }
}

/// The smallest space of each family, and the larger spaces at a small resolution: sub-networks whose gradients do
/// not change by a rounding at a corner of an activation, as an input that is larger by a millionth can cause.
const CASES: [(&str, usize, &[&str]); 7] = [
    ("tiny", 12, &["largest", "random"]),
    ("tiny-resnet", 16, &["largest", "random"]),
    ("tiny-spectrogram", 21, &["largest", "random"]),
    ("fashion", 28, &["largest", "random"]),
    ("ofa-mbv3-w1.0", 64, &["smallest"]),
    // at 64 px a deep network's statistics are of few values, and a rounding on some processor changes its logits by
    // 2 %
    ("ofa-mbv3-w1.0", 128, &["random"]),
    ("ofa-proxyless-w1.3", 64, &["smallest"]),
];

fn named(space: &SearchSpace, name: &str, seed: u64) -> Arch {
    match name {
        "largest" => sampler::largest(space),
        "smallest" => sampler::smallest(space),
        _ => sampler::random(space, &mut rng_for("arch", seed, &[])),
    }
}

/// Random sub-networks per case, of which one may fail: on some processor a rounding changes one of them at a corner.
const RANDOM: u64 = 3;

/// The first difference of a sub-network beyond its bound; if there is none, updates `worst` with the differences.
fn too_far(
    space: &SearchSpace,
    arch: &Arch,
    gpu: &Backend,
    bounds: [f64; 6],
    worst: &mut [f64; 6],
) -> Option<String> {
    let differences = of_network(space, arch, gpu, &Backend::detect()).expect("it runs");
    for ((what, apart), bound) in differences.iter().zip(bounds) {
        if *apart > bound || apart.is_nan() {
            return Some(format!("{arch}: {what} {apart:.1e} apart, expected at most {bound:.0e}"));
        }
    }
    for (worst, (_, apart)) in worst.iter_mut().zip(differences) {
        *worst = worst.max(apart);
    }
    None
}

fn compare(precision: Precision, cases: &[(&str, usize, &[&str])], bounds: [f64; 6]) {
    let Some(gpu) = emulated_gpu(precision) else { return };
    let mut worst = [0.0f64; 6];
    for &(name, resolution, archs) in cases {
        let space = preset(name).expect("a preset");
        for which in archs {
            let random = *which == "random";
            let seeds = if random { 3..3 + RANDOM } else { 3..4 };
            let archs = seeds.map(|seed| named(&space, which, seed).at(resolution));
            let faults: Vec<String> =
                archs.filter_map(|arch| too_far(&space, &arch, &gpu, bounds, &mut worst)).collect();
            assert!(faults.len() <= usize::from(random), "{name} {which}: {faults:?}");
            for fault in faults {
                println!("at a corner: {name} {fault}");
            }
        }
    }
    println!(
        "whole networks, {}: loss, logits, folded, statistics, gradients, weights {}",
        precision.name(),
        worst.map(|apart| format!("{apart:.1e}")).join(" ")
    );
}

#[test]
fn whole_networks_in_f32() {
    compare(Precision::F32, &CASES, [1e-6, 1e-3, 1e-3, 1e-4, 1e-4, 1e-6]);
}

/// bfloat16 has 8 bits of mantissa, and a network rounds at every layer; a wrong result is 1 apart or more.
#[test]
fn whole_networks_in_bfloat16() {
    let shallow: Vec<_> = CASES.into_iter().filter(|(name, ..)| ["tiny", "fashion"].contains(name)).collect();
    compare(Precision::Bf16, &shallow, [1e-3, 0.1, 0.1, 0.05, 0.2, 1e-3]);
    compare(Precision::Bf16, &CASES, [1e-2, f64::MAX, f64::MAX, f64::MAX, f64::MAX, 5e-2]);
}

/// Losses of the steps, as they are taken; stops after some.
struct Losses<'a> {
    seen: Vec<f32>,
    stop: &'a AtomicBool,
    after: usize,
}

impl Observer for Losses<'_> {
    fn phase(&mut self, _: &PlannedPhase, _: u64) {}

    fn step(&mut self, record: &StepRecord) {
        self.seen.push(record.loss);
        if self.seen.len() == self.after {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn evaluated(&mut self, _: &Arch, _: Accuracy) {}
}

fn train(folder: &Path, backend: &Backend, steps: usize) -> (RunOutcome, Vec<f32>) {
    let mut recipe = Recipe::progressive().scaled(0.002);
    // the whole network, then all that shrinks
    recipe.phases.drain(1..recipe.phases.len() - 1);
    train_by(&recipe, folder, backend, steps)
}

fn train_by(recipe: &Recipe, folder: &Path, backend: &Backend, steps: usize) -> (RunOutcome, Vec<f32>) {
    let config =
        TrainConfig { seed: 2, checkpoint_every: Duration::from_secs(3600), backend: backend.clone() };
    let space = preset("tiny").expect("a preset");
    let dataset = Dataset::open("digits").expect("embedded");
    let run = RunFolder::open(folder, true).expect("a folder");
    let mut trainer = Trainer::new(space, Arc::new(dataset), recipe, run, config).expect("it fits");
    let stop = AtomicBool::new(false);
    let mut losses = Losses { seen: Vec::new(), stop: &stop, after: steps };
    let outcome = trainer.run(&stop, &mut losses).expect("no errors");
    (outcome, losses.seen)
}

/// Training by AdamW with an average of the weights and batches in parts, whose state goes from one backend to the other and back. Rounding moves weights with a slope
/// near 0 either way, unless epsilon is above the slope.
#[test]
fn trainings_by_adamw_follow_the_cpu() {
    let Some(gpu) = emulated_gpu(Precision::F32) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let optimizer = OptimizerSettings::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-3 };
    let mut recipe = Recipe { optimizer, weight_decay: 0.01, ..Recipe::progressive().scaled(0.002) };
    recipe.phases.drain(1..recipe.phases.len() - 1);
    recipe.phases.iter_mut().for_each(|phase| phase.lr = 0.032);
    (recipe.ema_decay, recipe.accumulation) = (Some(0.9), 2);
    let cpu = Backend::detect();
    let all = usize::MAX;
    let (outcome, expected) = train_by(&recipe, &at("cpu"), &cpu, all);
    assert_eq!(outcome, RunOutcome::Finished);
    let third = expected.len() / 3;
    let mut losses = Vec::new();
    for (backend, steps) in [(gpu.clone(), third), (cpu, third), (gpu, all)] {
        losses.extend(train_by(&recipe, &at("changing"), &backend, steps).1);
    }
    let apart = losses.iter().zip(&expected).map(|(loss, expected)| (loss - expected).abs() / expected);
    let worst = apart.fold(0.0f32, f32::max);
    println!("{} steps of training by AdamW: losses at most {worst:.1e} apart", expected.len());
    assert!(worst < 5e-3 && losses.len() == expected.len(), "{losses:?} for {expected:?}");
}

/// The losses of a GPU's run follow the CPU's, and a run that goes from one to the other and back ends as either does.
#[test]
fn trainings_follow_the_cpu_and_change_places() {
    let Some(gpu) = emulated_gpu(Precision::F32) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let cpu = Backend::detect();
    let all = usize::MAX;
    let (outcome, expected) = train(&at("cpu"), &cpu, all);
    assert_eq!(outcome, RunOutcome::Finished);
    let (outcome, losses) = train(&at("gpu"), &gpu, all);
    assert_eq!((outcome, losses.len()), (RunOutcome::Finished, expected.len()));
    let third = expected.len() / 3;
    let mut changing = Vec::new();
    for (backend, steps) in [(cpu.clone(), third), (gpu, third), (cpu, all)] {
        changing.extend(train(&at("changing"), &backend, steps).1);
    }
    let mut worst = 0.0f32;
    for (step, expected) in expected.iter().enumerate() {
        for loss in [losses[step], changing[step]] {
            worst = worst.max((loss - expected).abs() / expected);
        }
    }
    println!("{} steps of training: losses at most {worst:.1e} apart", expected.len());
    // roundings grow from step to step
    assert!(worst < 5e-3, "{losses:?} and {changing:?} for {expected:?}");
    let weights = |name: &str| {
        let supernet = Supernet::read(&at(name).join("supernet.safetensors")).expect("weights");
        supernet.weights.tensors().values().flat_map(flat).collect::<Vec<_>>()
    };
    for name in ["gpu", "changing"] {
        let apart = apart(&weights(name), &weights("cpu"));
        println!("{name}: weights {apart:.1e} apart");
        assert!(apart < 1e-2, "{name}: weights {apart} apart");
    }
    let Some(rounding) = emulated_gpu(Precision::Bf16) else { return };
    for (loss, expected) in train(&at("bf16"), &rounding, third).1.iter().zip(&expected) {
        assert!((loss - expected).abs() / expected < 0.05, "{loss} for {expected} in bfloat16");
    }
    let kept = Checkpoint::read(&at("changing").join("checkpoint.safetensors")).expect("a checkpoint");
    assert!(kept.training.backend.contains("cuda-f32"), "{}", kept.training.backend);
}
