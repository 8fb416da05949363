//! The whole job on digits that come with the toolkit: train, measure, search, export, verify, classify.
//!
//! `cargo run --release --example quickstart` runs for less than half a minute and leaves its files in `target/quickstart`.

use std::collections::BTreeMap;
use std::{path::Path, sync::Arc, sync::atomic::AtomicBool, time::Duration};

use extract::accuracy::{AccuracyEstimator, FitConfig};
use extract::export::{Request, export};
use extract::latency::{
    self, DeviceFacts, Engine, LatencyTable, MeasureConfig, MonotonicStopwatch, NativeEngine,
};
use extract::predict::Classifier;
use extract::search::{CostIndex, Limits, SearchConfig, evolve};
use supernet::accuracy_file::{AccuracyFile, AccuracyRow};
use supernet::checkpoint::Supernet;
use supernet::data::{Dataset, Split, eval_batches};
use supernet::eval::{Accuracy, Calibration, Judge, best};
use supernet::nn::Pass;
use supernet::space::{Arch, preset, sampler};
use supernet::train::{Observer, PlannedPhase, Recipe, RunFolder, StepRecord, TrainConfig, Trainer};
use supernet::{kernels::Kernels, random::rng_for};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // keeps buffers: 2 to 3 times faster training

struct Printer;

impl Observer for Printer {
    fn phase(&mut self, phase: &PlannedPhase, _: u64) {
        println!(
            "  {:<8} {:>4} steps of {} sub-networks",
            phase.phase.name, phase.steps, phase.phase.subnetworks
        );
    }
    fn step(&mut self, _: &StepRecord) {}
    fn evaluated(&mut self, _: &Arch, _: Accuracy) {}
}

fn main() -> anyhow::Result<()> {
    let mut result = Ok(());
    rayon::scope(|_| result = quickstart()); // on a thread of the pool, where small kernels start fastest
    result
}

fn quickstart() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/quickstart");
    let _ = std::fs::remove_dir_all(&folder); // there is none the first time
    let (kernels, stop) = (Kernels::detect(), AtomicBool::new(false));
    let (space, dataset) = (preset("tiny")?, Arc::new(Dataset::open("digits")?));

    println!("training {} sub-networks at once", space.subnetworks());
    let config = TrainConfig { seed: 0, checkpoint_every: Duration::from_secs(60), kernels };
    let run = RunFolder::open(&folder.join("run"), false)?;
    let mut trainer =
        Trainer::new(space.clone(), dataset.clone(), &Recipe::progressive().scaled(0.15), run, config)?;
    trainer.run(&stop, &mut Printer)?;
    let supernet = Supernet::read(&trainer.folder().supernet())?;

    println!("measuring this machine");
    let (engine, mut clock) =
        (NativeEngine::new(kernels, rayon::current_num_threads()), MonotonicStopwatch::new());
    let (measuring, layers) = (MeasureConfig::default(), latency::single(latency::space_layers(&space)?));
    let rows = latency::measure(&layers, &engine, &mut clock, &measuring, &mut |_| {}, &stop)?.rows;
    let device = DeviceFacts::this_machine(None);
    let table = LatencyTable::new("quickstart", device, engine.describe(), &measuring.describe(), rows)?;
    table.write(&folder.join("table.json"))?;

    println!("sampling accuracies and fitting an estimator");
    let (weights, calibration) = (&supernet.weights, Calibration::default());
    let judge = Judge { space: &space, weights, dataset: &dataset, calibration, kernels };
    let mut rng = rng_for("quickstart", 0, &[]);
    let archs: std::collections::BTreeSet<Arch> =
        (0..150).map(|_| sampler::random(&space, &mut rng)).collect();
    let row = |arch: Arch| {
        let accuracy = judge.accuracy(&arch, Split::Val)?;
        Ok(AccuracyRow { arch, top1: accuracy.top1(), split: Split::Val, n: accuracy.n as u64 })
    };
    let rows = archs.into_iter().map(row).collect::<supernet::Result<_>>()?;
    let accuracies = AccuracyFile { space: space.clone(), supernet: supernet.hash.clone(), rows };
    let estimator = AccuracyEstimator::fit(&accuracies, &FitConfig::default())?;

    println!("searching, exporting and verifying\n");
    let slowest = table.network_latency(&space.lower(&sampler::largest(&space))?)?.high_us;
    let limits = Limits { latency_us: Some(0.5 * slowest), ..Limits::default() };
    let found =
        evolve(&CostIndex::new(&space, &table)?, &estimator, &limits, &SearchConfig::default(), &stop)?.best;
    let (predicted_top1, predicted_latency_ms) = (Some(found.accuracy), Some(found.latency_ms));
    let (supernet, arch, dataset) = (&supernet, &found.arch, &*dataset);
    let request =
        Request { supernet, arch, dataset, calibration, kernels, predicted_top1, predicted_latency_ms };
    let exported = export(&request, &folder.join("model"), BTreeMap::new())?;

    let measured = latency::validate(
        (&table, &space),
        std::slice::from_ref(arch),
        (&engine, &mut clock),
        &measuring,
        &mut |_| {},
        &stop,
    )?;
    let model = Classifier::load(&folder.join("model"), kernels)?.model().network(kernels)?;
    let mut images = eval_batches(dataset.split(Split::Test)?, dataset.normalisation(), arch.resolution, 8);
    let batch = images.next().ok_or_else(|| anyhow::anyhow!("the test split is empty"))??;
    let logits = model.forward(&batch.images, Pass::Inference)?.to_vec2::<f32>()?;
    let top1 = exported.model.config.origin.measured.as_ref().map_or(0.0, |measured| measured.top1);
    let classes: Vec<_> = logits.iter().map(|scores| best(scores) as u32).collect();
    println!("sub-network   {arch}\n{:<14}{:>10} {:>10}", "", "predicted", "measured");
    println!("{:<14}{:>9.2}% {:>9.2}%", "val top-1", 100.0 * found.accuracy, 100.0 * top1);
    println!(
        "{:<14}{:>10.4} {:>10.4}  (limit {:.4})",
        "latency ms",
        found.latency_ms,
        measured.networks[0].measured_ms,
        slowest / 2e3
    );
    println!("verified      {} images, logits equal bit for bit", exported.verification.inputs);
    println!("classified    {classes:?}, truth {:?}\nfiles         {}", batch.labels, folder.display());
    Ok(())
}
