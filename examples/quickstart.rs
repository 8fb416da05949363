//! The whole job on digits that come with the toolkit: train, measure, search, export, verify, classify.
//!
//! `cargo run --release --example quickstart` runs for 40 s, longer beside busy neighbours, and leaves its files in `target/quickstart`.

use std::collections::{BTreeMap, BTreeSet};
use std::{path::Path, sync::Arc, sync::atomic::AtomicBool, time::Duration};

use base::random::rng_for;
use extract::accuracy::{AccuracyEstimator, FitConfig};
use extract::export::{NormStatistics, Request, export};
use extract::latency::{
    Bench, Conditions, DeviceFacts, Engine, LatencyKind, LatencyModel, LatencyTable, MeasureConfig,
    MonotonicStopwatch, NativeEngine, Plan, Row, RowsLog, Session, carry_out, compare,
};
use extract::search::{
    Candidate, CostIndex, LATENCY, Limits, Problem, SearchConfig, ValidationPlan, cost_index,
    search_validated,
};
use kernels::Kernels;
use network::accuracy_file::{AccuracyFile, AccuracyRow};
use network::checkpoint::Supernet;
use network::data::{Dataset, Split, eval_batches};
use network::eval::{Accuracy, Calibration, Judge, accuracy, best};
use network::model_folder::{ModelFolder, SelectedOn};
use network::nn::Pass;
use space::{Arch, SearchSpace, preset, sampler};
use supernet::train::{Draw, Observer, PlannedPhase, Recipe, RunFolder, StepRecord, TrainConfig, Trainer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // keeps buffers: 2 to 3 times faster training

struct Printer;

impl Observer for Printer {
    fn phase(&mut self, phase: &PlannedPhase, _: u64) {
        println!(
            "  {:<8} {:>4} steps of {} sub-networks",
            phase.phase.name,
            phase.steps,
            Draw::count(&phase.phase.draw)
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
    let supernet = train(&folder, &space, &dataset, &kernels)?;

    println!("measuring this machine");
    let engine = NativeEngine::new(&kernels, 1, 1); // one thread, one image at once
    let table = measure(&space, &engine)?;
    table.write(&folder.join("table.json"))?;

    println!("sampling accuracies and fitting an estimator");
    let estimator = AccuracyEstimator::fit(&sample(&supernet, &dataset, &kernels)?, &FitConfig::default())?;

    println!("searching, exporting and verifying\n");
    let slowest =
        LatencyModel::new(&table, &space).network(&space.lower(&sampler::largest(&space))?)?.high_us;
    let limits = Limits::on(LATENCY, 0.5 * slowest);
    let index = cost_index(&space, &table, LatencyKind::Undisturbed)?;
    let found = search(&index, &limits, &estimator, judge(&supernet, &dataset, &kernels))?;
    let (predicted_top1, predicted_latency_ms) = (Some(found.accuracy()), found.latency_ms());
    let selected_on =
        Some(SelectedOn { split: "val".into(), n: dataset.val().len() as u64, how: "best of 20".into() });
    let (supernet, arch, dataset, formats) = (&supernet, &found.arch, &*dataset, &[]);
    let statistics = NormStatistics::Calibrated { dataset, calibration: Calibration::default() };
    let request = Request {
        supernet,
        arch,
        statistics,
        kernels: kernels.clone(),
        predicted_top1,
        predicted_latency_ms,
        selected_on,
        formats,
    };
    let exported = export(&request, &folder.join("model"), BTreeMap::new())?;
    let top1 = exported.model.config.origin.measured.as_ref().map_or(0.0, |measured| measured.top1);
    let test = test_accuracy(&exported.model, dataset, &kernels)?;
    let (archs, mut clock) = ([arch.clone()], MonotonicStopwatch::new());
    let mut bench = Bench { engine: &engine, stopwatch: &mut clock, conditions: Conditions::now };
    let config = (&MeasureConfig { budget: CHECKING, ..MeasureConfig::default() }, Session::default());
    let whole = compare((&table, &space), &archs, &mut bench, config, &mut |_| (), &stop)?;

    println!("sub-network   {arch}\n{:<14}{:>10} {:>10}", "", "predicted", "measured");
    println!("{:<14}{:>9.2}% {:>9.2}%", "val top-1", 100.0 * found.accuracy(), 100.0 * top1);
    println!("{:<14}{:>10} {:>9.2}%  (chosen without these images)", "test top-1", "", 100.0 * test.top1());
    report_latency(&table, found.latency_ms().unwrap_or_default(), 0.5e-3 * slowest, &whole.networks[0].took);
    println!("verified      {} images, logits equal bit for bit", exported.verification.inputs);
    classify(&folder.join("model"), dataset, &kernels)?;
    println!("files         {}", folder.display());
    Ok(())
}

/// The latency that was predicted and the one that was measured, in milliseconds, and how steady the machine was.
fn report_latency(table: &LatencyTable, predicted: f64, limit: f64, took: &Row) {
    let measured = took.us / 1e3;
    println!("{:<14}{predicted:>10.4} {measured:>10.4}  (limit {limit:.4})", "latency ms");
    let verdict = match (took.accepted, measured <= limit) {
        (false, _) => "not known: the machine was too disturbed to tell",
        (true, true) => "kept",
        (true, false) => "broken",
    };
    let steady: Vec<f64> = table.sessions().values().filter_map(|session| session.fast_share).collect();
    let share = 100.0 * steady.iter().sum::<f64>() / steady.len().max(1) as f64;
    let typical = took.typical_us / 1e3;
    println!(
        "limit         {verdict}; machine undisturbed {share:.0} % of the time (typical: {typical:.4} ms)"
    );
}

/// Most time for measuring layers and sub-networks, of which half is spent in any case, and the one that was found.
const MEASURING: Duration = Duration::from_secs(20);
const CHECKING: Duration = Duration::from_secs(5);

/// Every layer, and some whole sub-networks to learn from what sums of layers miss.
fn measure(space: &SearchSpace, engine: &dyn Engine) -> anyhow::Result<LatencyTable> {
    let config = MeasureConfig { budget: MEASURING, ..MeasureConfig::default() };
    let plan = Plan::new(space, &engine.describe(), &config, 24, None)?;
    let mut log = RowsLog::in_memory(plan.setting(&DeviceFacts::this_machine(None), engine));
    let (mut clock, stop) = (MonotonicStopwatch::new(), AtomicBool::new(false));
    let mut bench = Bench { engine, stopwatch: &mut clock, conditions: Conditions::now };
    carry_out(&plan, &mut bench, &mut log, &mut |_| (), &stop)?;
    Ok(LatencyTable::from_rows("quickstart", log.rows(), plan.half_width, Some(space))?)
}

/// Progressive shrinking, a sixth of the recipe's epochs.
fn train(
    folder: &Path,
    space: &SearchSpace,
    dataset: &Arc<Dataset>,
    kernels: &Kernels,
) -> anyhow::Result<Supernet> {
    let config = TrainConfig { seed: 0, checkpoint_every: Duration::from_secs(60), kernels: kernels.clone() };
    let run = RunFolder::open(&folder.join("run"), false)?;
    let recipe = Recipe::progressive().scaled(0.15);
    let mut trainer = Trainer::new(space.clone(), dataset.clone(), &recipe, run, config)?;
    trainer.run(&AtomicBool::new(false), &mut Printer)?;
    Ok(Supernet::read(&trainer.folder().supernet())?)
}

/// Accuracies of random sub-networks on validation images.
fn sample(supernet: &Supernet, dataset: &Dataset, kernels: &Kernels) -> anyhow::Result<AccuracyFile> {
    let (Supernet { space, hash, .. }, judge) = (supernet, judge(supernet, dataset, kernels));
    let mut rng = rng_for("quickstart", 0, &[]);
    let archs: BTreeSet<Arch> = (0..150).map(|_| sampler::random(space, &mut rng)).collect();
    let row = |arch: Arch| {
        let accuracy = judge.accuracy(&arch, Split::Val)?;
        Ok(AccuracyRow { arch, top1: accuracy.top1(), split: Split::Val, n: accuracy.n as u64 })
    };
    let rows = archs.into_iter().map(row).collect::<network::Result<_>>()?;
    let (space, supernet, data) = (space.clone(), hash.clone(), dataset.hash().to_string());
    Ok(AccuracyFile { space, supernet, data, calibration: judge.calibration, rows })
}

/// What evaluates sub-networks.
fn judge<'a>(supernet: &'a Supernet, dataset: &'a Dataset, kernels: &Kernels) -> Judge<'a> {
    let Supernet { space, weights, .. } = supernet;
    Judge { space, weights, dataset, calibration: Calibration::default(), kernels: kernels.clone() }
}

/// Evaluates the 20 that the estimator expects most of on validation images, and chooses by both.
fn search(
    index: &CostIndex,
    limits: &Limits,
    estimator: &AccuracyEstimator,
    judge: Judge<'_>,
) -> anyhow::Result<Candidate> {
    let (config, stop) = (SearchConfig::default(), AtomicBool::new(false));
    let problem = Problem { index, limits, config: &config, least_top1: None, stop: &stop };
    let plan = ValidationPlan { candidates: 20, rounds: 1, rows: None, fit: FitConfig::default() };
    let mut evaluate = |arch: &Arch| Ok(judge.hits_unless(&stop, arch, Split::Val)?);
    Ok(search_validated(&problem, estimator, &plan, &mut evaluate)?.report.best)
}

/// The exported network on images that nothing was trained on or chosen by.
fn test_accuracy(model: &ModelFolder, dataset: &Dataset, kernels: &Kernels) -> anyhow::Result<Accuracy> {
    let (dataset, side) = (model.see(dataset)?, model.config.input.resolution);
    let batches = eval_batches(dataset.split(Split::Test)?, dataset.preprocess(), side, 200);
    Ok(accuracy(&model.network(kernels)?, batches)?)
}

/// Eight test images through the exported folder, which needs nothing else.
fn classify(folder: &Path, dataset: &Dataset, kernels: &Kernels) -> anyhow::Result<()> {
    let model = ModelFolder::read(folder)?;
    let (dataset, side) = (model.see(dataset)?, model.config.input.resolution);
    let batch = eval_batches(dataset.split(Split::Test)?, dataset.preprocess(), side, 8).next();
    let batch = batch.ok_or_else(|| anyhow::anyhow!("the test split is empty"))??;
    let logits = model.network(kernels)?.forward(&batch.inputs, Pass::Inference)?.to_vec2::<f32>()?;
    let best =
        |scores: &Vec<f32>| best(scores).ok_or_else(|| anyhow::anyhow!("logits are no numbers: {scores:?}"));
    let classes = logits.iter().map(best).collect::<anyhow::Result<Vec<_>>>()?;
    println!("classified    {classes:?}, truth {:?}", batch.targets.classes());
    Ok(())
}
