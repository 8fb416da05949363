//! `extract fit`: an accuracy estimator from evaluated sub-networks.

use std::path::PathBuf;

use extract::accuracy::{AccuracyEstimator, Estimate, FitConfig, FitReport, Model};
use serde_json::json;
use supernet::accuracy_file;
use supernet::timing::Stopwatch;

use super::{Common, Outcome, Output, kernels, not_an_input};

/// Fit an accuracy estimator; reports its error on held-out rows
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract fit --accuracy accuracy.jsonl --out estimator.safetensors")]
pub struct Arguments {
    /// Evaluated sub-networks, as `supernet sample` writes them
    #[arg(long, value_name = "FILE")]
    accuracy: PathBuf,
    /// The estimator's file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Decides which rows are held out, and first weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    not_an_input(&arguments.out, &[&arguments.accuracy])?;
    let file = accuracy_file::read(&arguments.accuracy)?;
    output.say(format_args!("{} rows of space {}", file.rows.len(), file.space.name()));
    let started = Stopwatch::start();
    let config = FitConfig { seed: arguments.seed, kernels: kernels()?, ..FitConfig::default() };
    let estimator = AccuracyEstimator::fit(&file, &config)?;
    let seconds = started.elapsed_ms().round() / 1e3;
    estimator.write(&arguments.out)?;
    output.wrote(&arguments.out);
    let report = estimator.report().expect("it was fitted just now");
    let document = json!({
        "model": report.model, "n": report.n, "held_out": report.held_out, "split": report.split,
        "rmse": report.rmse.value, "rmse_interval": [report.rmse.low, report.rmse.high],
        "spearman": report.spearman.value,
        "spearman_interval": [report.spearman.low, report.spearman.high],
        "kendall": report.kendall.value, "kendall_interval": [report.kendall.low, report.kendall.high],
        "inner_rmse": { "linear": report.inner_rmse_linear, "mlp": report.inner_rmse_mlp },
        "seconds": seconds, "estimator": arguments.out.display().to_string(),
    });
    output.result(describe(report), &document)?;
    Ok(Outcome::Done)
}

fn describe(report: &FitReport) -> String {
    let model = match report.model {
        Model::Linear => "linear (ridge regression)",
        Model::Mlp => "multi-layer perceptron",
    };
    let line = |name: &str, scale: f64, unit: &str, Estimate { value, low, high }: Estimate| {
        format!("{name:<12} {:.3}{unit}  [{:.3}, {:.3}]", scale * value, scale * low, scale * high)
    };
    [
        format!("model        {model}"),
        format!(
            "             chosen by error on inner validation rows: linear {:.3} %, perceptron {:.3} %",
            100.0 * report.inner_rmse_linear,
            100.0 * report.inner_rmse_mlp
        ),
        format!("rows         {} on {}, of which {} held out", report.n, report.split, report.held_out),
        line("RMSE", 100.0, " %", report.rmse),
        line("Spearman", 1.0, "", report.spearman),
        line("Kendall", 1.0, "", report.kendall),
        "             (held-out rows, 95 % bootstrap intervals)".to_string(),
    ]
    .join("\n")
}
