//! The whole job on digits that come with the toolkit: train, measure, search, export, verify, classify.
//!
//! `cargo run --release --example quickstart` runs for 40 s, longer on a busy machine, and leaves its files in `target/quickstart`.

use std::{path::Path, sync::Arc, time::Duration};

use extract::{AccuracyEstimator, Exported, FitConfig, LATENCY, LatencyTable, Limits, MeasureConfig};
use extract::{NativeEngine, NormStatistics, Request, export, find_best, measure_network, measure_space};
use supernet::{Backend, Dataset, Evaluator, OnPhase, PlannedPhase, Recipe, SampleConfig, Split};
use supernet::{preset, sample, sampler, train};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // keeps buffers: 2 to 3 times faster training

fn main() -> anyhow::Result<()> {
    rayon::scope(|_| quickstart()) // on a thread of the pool, where small kernels start fastest
}

fn quickstart() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/quickstart");
    let _ = std::fs::remove_dir_all(&folder); // there is none the first time
    let space = preset("tiny")?;
    let dataset = Arc::new(Dataset::open("digits")?);
    println!("training {} sub-networks at once", space.subnetworks());
    let recipe = Recipe::progressive().scaled(0.15); // a sixth of its epochs
    let mut printer = OnPhase(|phase: &PlannedPhase| println!("  {phase}"));
    let supernet = train(&space, &dataset, &recipe, &folder.join("run"), &mut printer)?;

    println!("measuring this machine");
    let backend = Backend::detect();
    let engine = NativeEngine::new(&backend, 1, 1); // one thread, one image at once
    let table = measure_space(&space, &engine, &MeasureConfig::within(Duration::from_secs(20)))?;
    table.write(&folder.join("table.json"))?;

    println!("sampling accuracies and fitting an estimator");
    let rows = sample(&supernet, &dataset, &SampleConfig { count: 150, ..SampleConfig::default() })?;
    let estimator = AccuracyEstimator::fit(&rows, &FitConfig::default())?;

    println!("searching, exporting and verifying\n");
    let limit_us = 0.5 * table.latency(&space, &sampler::largest(&space))?.high_us;
    let evaluator = Evaluator::new(&supernet, &dataset, &backend);
    let found = find_best(&table, &Limits::on(LATENCY, limit_us), &estimator, &evaluator)?;
    let best = &found.report.best;
    let request = Request::new(&supernet, &best.arch, NormStatistics::calibrated(&dataset));
    let exported = export(&request.expecting(best, found.selected_on()), &folder.join("model"))?;
    report(&exported, &dataset, &table, limit_us)?;
    println!("files         {}", folder.display());
    Ok(())
}

/// Prints the accuracy and latency of the exported network, predicted and measured.
fn report(exported: &Exported, dataset: &Dataset, table: &LatencyTable, limit_us: f64) -> anyhow::Result<()> {
    let backend = Backend::detect();
    let engine = NativeEngine::new(&backend, 1, 1);
    let config = &exported.model.config;
    let val = exported.model.evaluate(dataset, Split::Val, &backend)?.accuracy().top1();
    let test = exported.model.evaluate(dataset, Split::Test, &backend)?;
    let within = MeasureConfig::within(Duration::from_secs(5));
    let took = measure_network(table, &config.space, &config.arch, &engine, &within)?.took;
    let expected = config.origin.predicted_top1.unwrap_or_default();
    println!("sub-network   {}\n               predicted   measured", config.arch);
    println!("val top-1     {:>9.2}% {:>9.2}%", 100.0 * expected, 100.0 * val);
    println!("test top-1    {:>20.2}%  (chosen without these images)", 100.0 * test.accuracy().top1());
    let expected_ms = config.origin.predicted_latency_ms.unwrap_or_default();
    println!("latency ms    {expected_ms:>10.4} {:>10.4}  (limit {:.4})", took.us / 1e3, limit_us / 1e3);
    let verdict = match took.keeps(limit_us) {
        Some(true) => "kept",
        Some(false) => "broken",
        None => "not known: the machine was too disturbed to tell",
    };
    let share = 100.0 * table.fast_share().unwrap_or_default();
    let typical = took.typical_us / 1e3;
    println!(
        "limit         {verdict}; machine undisturbed {share:.0} % of the time (typical: {typical:.4} ms)"
    );
    println!("verified      {} images, logits equal bit for bit", exported.verification.inputs);
    let (classes, truth): (Vec<_>, Vec<_>) = test.predicted().zip(test.labels()).take(8).unzip();
    println!("classified    {classes:?}, truth {truth:?}");
    Ok(())
}
