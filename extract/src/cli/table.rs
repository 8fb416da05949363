//! `extract table`: what a latency table holds, how much of a space it covers, and whether it holds true.

use std::fmt::Write;
use std::path::PathBuf;

use extract::latency::correction::Form;
use extract::latency::fitted::validation;
use extract::latency::{
    Compared, Coverage, DeviceFacts, LatencyTable, MeasureConfig, NetworkRow, Progress, SpaceFit, Validation,
    compare, ofa_exchange, stopwatch_of,
};
use serde_json::json;
use supernet::random::rng_for;
use supernet::space::{self, Arch, SearchSpace, arch_file, sampler};

use super::engine::{EngineChoice, show};
use super::{Common, OnDevice, Outcome, Output, interrupt_flag};

/// Show a latency table, which layers of a space it lacks, and how well it predicts whole sub-networks
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract table table.json --space fashion --validate 20")]
pub struct Arguments {
    /// The table that `extract measure` wrote
    #[arg(value_name = "TABLE.json")]
    table: PathBuf,
    /// Preset name or TOML file: say which of its layers the table lacks
    #[arg(long)]
    space: Option<String>,
    /// Only these of the space's input resolutions
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', requires = "space")]
    resolutions: Vec<usize>,
    /// Measure this many random whole sub-networks on this machine, and compare them with what the table expects
    #[arg(long, value_name = "N", requires = "space", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    validate: u32,
    /// Measure these whole sub-networks too: found.json, canonical text, `largest`, …
    #[arg(long, requires = "space", num_args = 1..)]
    arch: Vec<String>,
    /// What runs them: native, or onnxruntime:LIB with its shared library
    #[arg(long, default_value = "native")]
    engine: EngineChoice,
    #[command(flatten)]
    on: OnDevice,
    /// Write the space's layers as latency tables of PyTorch's ofa too, a YAML file a resolution
    #[arg(long, value_name = "FOLDER", requires = "space")]
    export_ofa: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

/// A space, at some of its resolutions or at all.
pub fn space_at(name: &str, resolutions: &[usize]) -> anyhow::Result<SearchSpace> {
    let space = space::open(name)?;
    Ok(if resolutions.is_empty() { space } else { space.at_resolutions(resolutions)? })
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let table = LatencyTable::read(&arguments.table)?;
    let space = arguments.space.as_deref().map(|name| space_at(name, &arguments.resolutions)).transpose()?;
    let coverage = space.as_ref().map(|space| table.coverage(space)).transpose()?;
    let compared = match &space {
        Some(space) if arguments.validate > 0 || !arguments.arch.is_empty() => {
            Some(measured(arguments, &output, &table, space)?)
        }
        _ => None,
    };
    if let (Some(folder), Some(space)) = (&arguments.export_ofa, &space) {
        let tables = ofa_exchange::export(&table, space)?;
        std::fs::create_dir_all(folder).map_err(supernet::Error::io("create", folder))?;
        for (resolution, ofa) in tables {
            let path = folder.join(format!("{resolution}_lookup_table.yaml"));
            ofa.write(&path)?;
            output.wrote(&path);
        }
    }
    let fits: Vec<_> = table
        .fits()
        .map(|fit| json!({ "space": fit.name, "resolutions": fit.resolutions, "correction": fit.correction, "validation": fit.validation() }))
        .collect();
    let document = json!({
        "entries": table.rows().len(), "unconverged": table.unconverged(), "device": table.device,
        "engine": table.engine, "hash": table.hash(), "rows": table.rows(), "coverage": coverage,
        "validation": compared.as_ref().map(summary),
        "networks": compared.as_ref().map(|compared| &compared.networks), "spaces": fits,
    });
    let text = match &compared {
        Some(compared) => describe_networks(&compared.networks, &summary(compared)),
        None => describe(&table, coverage.as_ref()),
    };
    output.result(text, &document)?;
    let interrupted = compared.is_some_and(|compared| compared.interrupted);
    Ok(if interrupted { Outcome::Interrupted } else { Outcome::Done })
}

fn summary(compared: &Compared) -> Validation {
    validation(&compared.networks.iter().collect::<Vec<_>>(), &[])
}

/// Measures whole sub-networks of this machine.
fn measured(
    arguments: &Arguments,
    output: &Output,
    table: &LatencyTable,
    space: &SearchSpace,
) -> anyhow::Result<Compared> {
    let archs = archs(arguments, space)?;
    let kernels = arguments.on.kernels(table.engine.dtype.parse().unwrap_or_default())?;
    let engine = &*arguments.engine.open(kernels, table.engine.batch)?;
    let device = DeviceFacts::this_machine(Some(&table.device.name)).computing_with(kernels, false);
    table.check_same_setting(&device, &engine.describe())?;
    let (mut stopwatch, stop) = (stopwatch_of(kernels), interrupt_flag()?);
    let bar = output.bar(archs.len() as u64);
    let mut progress = |progress: Progress<'_>| show(&bar, &progress);
    let config = MeasureConfig::default();
    let compared = compare((table, space), &archs, (engine, &mut *stopwatch), &config, &mut progress, &stop)?;
    bar.finish_and_clear();
    if compared.networks.len() < archs.len() {
        output.say(format_args!("{} sub-networks were not measured", archs.len() - compared.networks.len()));
    }
    Ok(compared)
}

/// Those that were named, and random ones.
fn archs(arguments: &Arguments, space: &SearchSpace) -> anyhow::Result<Vec<Arch>> {
    let read = |text: &String| arch_file::read(space, text);
    let mut archs = arguments.arch.iter().map(read).collect::<supernet::Result<Vec<_>>>()?;
    let mut rng = rng_for("validation", 0, &[]);
    archs.extend((0..arguments.validate).map(|_| sampler::random(space, &mut rng)));
    archs.sort();
    archs.dedup();
    Ok(archs)
}

fn describe_networks(networks: &[NetworkRow], validation: &Validation) -> String {
    let mut text = format!("{:>12} {:>12} {:>8}  sub-network\n", "predicted ms", "measured ms", "error");
    for network in networks {
        let (predicted, measured) = (network.predicted_us / 1e3, network.measured_us() / 1e3);
        let error = 100.0 * network.relative_error();
        // writing to a string cannot fail
        let _ = writeln!(text, "{predicted:>12.4} {measured:>12.4} {error:>+7.1}%  {}", network.arch);
    }
    text + "\n" + &describe_validation(validation)
}

fn describe_validation(validation: &Validation) -> String {
    let per_cent = |share: f64| 100.0 * share;
    let mut text = format!(
        "{} sub-networks: mean error {:.1} % (of plain sums {:.1} %), {:.0} % within 5 %, {:.0} % within 10 %, Spearman {:.3}, Kendall {:.3}",
        validation.n,
        per_cent(validation.mape),
        per_cent(validation.mape_of_sums),
        per_cent(validation.within_5pct),
        per_cent(validation.within_10pct),
        validation.spearman,
        validation.kendall
    );
    let [low, high] = validation.residual_band;
    let level = per_cent(validation.band_level);
    let _ = write!(text, "; measured is {low:.3} to {high:.3} times predicted ({level:.0} %)");
    if let Some(repeatability) = validation.repeatability {
        let _ = write!(text, "; measured twice they differ by {:.1} %", per_cent(repeatability));
    }
    if let Some(kept) = validation.limits_kept {
        let (limits, count) = (validation.limits, (kept * validation.limits as f64).round());
        let _ = write!(text, "; {count} of {limits} searched sub-networks kept their limit");
    }
    text
}

/// What a table knows of the sub-networks of a space, in words.
pub fn describe_fit(fit: &SpaceFit) -> String {
    let terms = match fit.correction.form {
        Form::Sum => "the sum of layers".to_string(),
        form => format!("the sum of layers, corrected ({})", json!(form).as_str().unwrap_or_default()),
    };
    format!(
        "{}: {terms}; of sub-networks that had no part in it:\n  {}",
        fit.name,
        describe_validation(&fit.validation())
    )
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
    if let Some(sentinel) = &table.sentinel {
        let _ = writeln!(text, "sentinel  {:.3} us for {}", sentinel.usual_us, sentinel.name);
    }
    for fit in table.fits() {
        let _ = writeln!(text, "{}", describe_fit(fit));
    }
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
