//! `extract fit`: an accuracy estimator from evaluated sub-networks.

use std::path::PathBuf;

use base::timing::Stopwatch;
use command::{Common, Ending, not_an_input, result_path, wrote};
use extract::accuracy::{AccuracyEstimator, FitConfig, FitReport, IntervalEstimate, ModelKind};
use network::accuracy_file;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::backend;

/// Fit an accuracy estimator, chosen and judged by cross-validation
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract fit --accuracy accuracy.jsonl --out estimator.safetensors")]
pub struct Arguments {
    /// Evaluated sub-networks, as `supernet sample` writes them
    #[arg(long, value_name = "FILE")]
    accuracy: PathBuf,
    /// The estimator's file
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    /// Seed of the folds and the initial weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the estimator even if it ranks no better than chance
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    not_an_input(&arguments.out, &[&arguments.accuracy])?;
    let file = accuracy_file::read(&arguments.accuracy)?;
    info!("{} rows of space {}", file.rows.len(), file.space.name());
    let started = Stopwatch::start();
    let config = FitConfig { seed: arguments.seed, backend: backend()?, ..FitConfig::default() };
    let estimator = AccuracyEstimator::fit(&file, &config)?;
    let seconds = started.elapsed_ms().round() / 1e3;
    let report = estimator.report().expect("it was fitted just now");
    if !arguments.force {
        report.check_ranks(&arguments.accuracy.display().to_string())?;
    }
    if let Some(warning) = report.warning() {
        warn!("{warning}");
    }
    estimator.write(&arguments.out)?;
    wrote(&arguments.out);
    let names = estimator.unseen(estimator.space());
    let places = names.len();
    let out = arguments.out.display().to_string();
    if let Some(first) = names.first() {
        warn!(
            "no row has {first}{}: search refuses it without --extrapolate",
            if places > 1 { format!(", nor {} other choices", places - 1) } else { String::new() }
        );
    }
    output.print(&document(report, &names, seconds, &out), || describe(report))?;
    Ok(Ending::Done)
}

fn document(report: &FitReport, unseen: &[String], seconds: f64, out: &str) -> Value {
    let interval = |estimate: IntervalEstimate| [estimate.low, estimate.high];
    json!({
        "model": report.model, "n": report.n, "folds": report.folds, "split": report.split,
        "rmse": report.rmse.value, "rmse_interval": interval(report.rmse),
        "spearman": report.spearman.value, "spearman_interval": interval(report.spearman),
        "kendall": report.kendall.value, "kendall_interval": interval(report.kendall),
        "noise_floor": report.noise_floor, "images": report.images,
        "cross_validated_rmse": { "linear": report.rmse_linear, "mlp": report.rmse_mlp },
        "calibration": report.calibration, "unseen": unseen, "seconds": seconds, "estimator": out,
    })
}

fn describe(report: &FitReport) -> String {
    let model = match report.model {
        ModelKind::Linear => "linear (ridge regression)",
        ModelKind::Mlp => "multi-layer perceptron",
    };
    let line =
        |name: &str, scale: f64, unit: &str, IntervalEstimate { value, low, high }: IntervalEstimate| {
            format!("{name:<12} {:.3}{unit}  [{:.3}, {:.3}]", scale * value, scale * low, scale * high)
        };
    let floor = report.noise_floor.map_or_else(String::new, |floor| {
        let images = report.images.unwrap_or_default();
        format!("\nnoise floor  {:.3} %  (binomial deviation of a row, of {images} images)", 100.0 * floor)
    });
    [
        format!("model        {model}"),
        format!(
            "             chosen by cross-validated error: linear {:.3} %, perceptron {:.3} %",
            100.0 * report.rmse_linear,
            100.0 * report.rmse_mlp
        ),
        format!("rows         {} on {}, {} folds", report.n, report.split, report.folds),
        line("RMSE", 100.0, " %", report.rmse) + &floor,
        line("Spearman", 1.0, "", report.spearman),
        line("Kendall", 1.0, "", report.kendall),
        "             (of rows that had no part in a model, 95 % bootstrap intervals)".to_string(),
    ]
    .join("\n")
}
