//! `extract table`: what a latency table holds, and how much of a space it covers.

use std::fmt::Write;
use std::path::PathBuf;

use extract::latency::{
    Coverage, DeviceFacts, Engine, LatencyTable, MeasureConfig, MonotonicStopwatch, NativeEngine, Progress,
    Validation, validate,
};
use serde_json::json;
use supernet::random::rng_for;
use supernet::space::{self, arch_file, sampler};

use super::{Common, Outcome, Output, interrupt_flag, kernels};

/// Show a latency table, and which layers of a space it lacks
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract table table.json --space fashion --validate 20")]
pub struct Arguments {
    /// The table that `extract measure` wrote
    #[arg(value_name = "TABLE.json")]
    table: PathBuf,
    /// Preset name or TOML file: say which of its layers the table lacks
    #[arg(long)]
    space: Option<String>,
    /// Measure this many random whole sub-networks on this machine, and compare them with the table's sums
    #[arg(long, value_name = "N", requires = "space", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    validate: u32,
    /// Measure these whole sub-networks too: found.json, canonical text, `largest`, …
    #[arg(long, requires = "space", num_args = 1..)]
    arch: Vec<String>,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let table = LatencyTable::read(&arguments.table)?;
    let coverage = match &arguments.space {
        Some(space) => Some(table.coverage(&space::open(space)?)?),
        None => None,
    };
    let validation = compare(arguments, &output, &table)?;
    let document = json!({
        "entries": table.rows().len(), "unconverged": table.unconverged(), "device": table.device,
        "engine": table.engine, "hash": table.hash(), "rows": table.rows(), "coverage": coverage,
        "validation": validation,
    });
    let text = match &validation {
        Some(validation) => describe_validation(validation),
        None => describe(&table, coverage.as_ref()),
    };
    output.result(text, &document)?;
    Ok(Outcome::Done)
}

/// Measures whole sub-networks, where some were asked for.
fn compare(
    arguments: &Arguments,
    output: &Output,
    table: &LatencyTable,
) -> anyhow::Result<Option<Validation>> {
    let Some(space) =
        arguments.space.as_deref().filter(|_| arguments.validate > 0 || !arguments.arch.is_empty())
    else {
        return Ok(None);
    };
    let space = space::open(space)?;
    let mut archs = arguments
        .arch
        .iter()
        .map(|text| arch_file::read(&space, text))
        .collect::<supernet::Result<Vec<_>>>()?;
    let mut rng = rng_for("validation", 0, &[]);
    archs.extend((0..arguments.validate).map(|_| sampler::random(&space, &mut rng)));
    archs.sort();
    archs.dedup();
    let engine = NativeEngine::new(kernels()?, rayon::current_num_threads());
    table.check_same_setting(&DeviceFacts::this_machine(Some(&table.device.name)), &engine.describe())?;
    let (config, stop) = (MeasureConfig::default(), interrupt_flag()?);
    let bar = output.bar(archs.len() as u64);
    let mut progress = |progress: Progress<'_>| {
        bar.set_position(progress.finished as u64);
        Ok(())
    };
    let mut stopwatch = MonotonicStopwatch::new();
    let validation =
        validate((table, &space), &archs, (&engine, &mut stopwatch), &config, &mut progress, &stop)?;
    bar.finish_and_clear();
    Ok(Some(validation))
}

fn describe_validation(validation: &Validation) -> String {
    let mut text = format!("{:>12} {:>12} {:>8}  sub-network\n", "predicted ms", "measured ms", "error");
    for network in &validation.networks {
        let (predicted, measured) = (network.predicted_ms, network.measured_ms);
        let error = 100.0 * network.relative_error();
        // writing to a string cannot fail
        let _ = writeln!(text, "{predicted:>12.4} {measured:>12.4} {error:>+7.1}%  {}", network.arch);
    }
    let _ = write!(
        text,
        "\n{} networks: mean error {:.1} %, {:.0} % within 5 %, {:.0} % within 10 %, Spearman {:.3}, Kendall {:.3}",
        validation.n,
        100.0 * validation.mape,
        100.0 * validation.within_5pct,
        100.0 * validation.within_10pct,
        validation.spearman,
        validation.kendall
    );
    text
}

fn describe(table: &LatencyTable, coverage: Option<&Coverage>) -> String {
    let (device, engine) = (&table.device, &table.engine);
    let mut text = format!(
        "device    {} ({}, {} {}, {} cores)\nengine    {} {}, {} threads, {}, batch {}\nprotocol  {}\nentries   {}, of which {} unconverged\n",
        device.name,
        device.cpu,
        device.os,
        device.arch,
        device.cores,
        engine.engine,
        engine.engine_version,
        engine.threads,
        engine.dtype,
        engine.batch,
        table.protocol,
        table.rows().len(),
        table.unconverged(),
    );
    // writing to a string cannot fail
    let _ = writeln!(text, "\n{:>12}  {:>23}  {:>7}  layer", "median us", "95 % interval", "samples");
    for (key, row) in table.rows() {
        let interval = format!("[{:.3}, {:.3}]", row.low_us, row.high_us);
        let mark = if row.converged { "" } else { "  (unconverged)" };
        let _ = writeln!(text, "{:>12.3}  {interval:>23}  {:>7}  {key}{mark}", row.median_us, row.samples);
    }
    if let Some(Coverage { layers, missing }) = coverage {
        let _ = writeln!(text, "\ncovers {} of {layers} layers of the space", layers - missing.len());
        for key in missing {
            let _ = writeln!(text, "missing  {key}");
        }
    }
    text.trim_end().to_string()
}
