//! `extract measure`: times every layer of a space on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use extract::latency::{
    DeviceFacts, Engine, Journal, LatencyTable, MeasureConfig, MonotonicStopwatch, NativeEngine, Progress,
    measure::Measured, single, space_layers,
};
use serde_json::json;
use supernet::space::{self, LayerSpec};

use supernet::timing::unix_seconds;

use super::{Common, Outcome, Output, interrupt_flag, kernels};

/// Measure every layer of a space on this machine into a latency table
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract measure --space fashion --threads 1 --out table.json\n\nWhat is sampled goes to TABLE.json.samples at once: after a kill or Ctrl-C the same command goes on with it."
)]
pub struct Arguments {
    /// Preset name or TOML file
    #[arg(long)]
    space: String,
    /// The table
    #[arg(long, value_name = "TABLE.json")]
    out: PathBuf,
    /// What runs the layers
    #[arg(long, default_value = "native", value_parser = ["native"])]
    engine: String,
    /// Add only the layers that the table lacks
    #[arg(long)]
    missing: bool,
    /// What to call this machine [default: its processor's name]
    #[arg(long, value_name = "NAME", value_parser = name)]
    device_name: Option<String>,
    /// Seconds of measuring after which no further sample is begun
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    budget: u64,
    /// How well each median must be known: half of its 95 % interval, in per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = per_cent)]
    precision: f64,
    /// Decides the order in which layers are visited
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    pub common: Common,
}

fn name(text: &str) -> Result<String, String> {
    let fit = !text.trim().is_empty() && !text.chars().any(char::is_control);
    fit.then(|| text.to_string()).ok_or_else(|| "some text without control characters".to_string())
}

fn per_cent(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.01..=50.0).contains(value));
    value.ok_or_else(|| "a number from 0.01 to 50".to_string())
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    if arguments.out.is_dir() {
        anyhow::bail!("--out {}: expected a file, got a folder", arguments.out.display());
    }
    let stop = interrupt_flag()?;
    let engine = NativeEngine::new(kernels()?, rayon::current_num_threads());
    let device = DeviceFacts::this_machine(arguments.device_name.as_deref());
    let mut config = MeasureConfig {
        half_width: arguments.precision / 100.0,
        budget: Duration::from_secs(arguments.budget),
        seed: arguments.seed,
        ..MeasureConfig::default()
    };
    let mut layers = space_layers(&space::open(&arguments.space)?)?;
    let present = present_table(arguments, &device, &engine)?;
    if let Some(table) = &present {
        layers.retain(|key, _| !table.rows().contains_key(key));
    }
    let config = &mut config;
    let mut journal = journal(arguments, &output, (&device, &engine), config)?;
    let measured = measure_with_bar(&output, &layers, &engine, (config, &mut journal), &stop)?;
    let spent = measured.spent.as_secs_f64();
    if measured.interrupted {
        output.say("interrupted; what was sampled is saved, and the same command goes on with it");
        let document = json!({ "finished": false, "entries": measured.rows.len(), "seconds": spent });
        output.result(format_args!("{} layers sampled so far", measured.rows.len()), &document)?;
        return Ok(Outcome::Interrupted);
    }
    if !measured.unmeasured.is_empty() {
        let (missing, all) = (measured.unmeasured.len(), layers.len());
        anyhow::bail!(
            "--budget: {missing} of {all} layers are not measured yet, and no table is written; what was sampled is \
             saved, and the same command goes on with it"
        );
    }
    let mut table = match present {
        Some(mut table) => {
            table.extend(&device, &engine.describe(), measured.rows)?;
            table
        }
        None => {
            let place = arguments.out.display().to_string();
            LatencyTable::new(&place, device, engine.describe(), &config.describe(), measured.rows)?
        }
    };
    table.run.insert("unix_seconds".to_string(), json!(unix_seconds()));
    table.run.insert("seconds".to_string(), json!(spent.round()));
    table.write(&arguments.out)?;
    journal.remove()?;
    output.wrote(&arguments.out);
    summarize(&output, &table, spent)?;
    Ok(Outcome::Done)
}

/// The table to add to, with `--missing`.
fn present_table(
    arguments: &Arguments,
    device: &DeviceFacts,
    engine: &dyn Engine,
) -> anyhow::Result<Option<LatencyTable>> {
    if !arguments.missing || !arguments.out.exists() {
        return Ok(None);
    }
    let table = LatencyTable::read(&arguments.out)?;
    table.check_same_setting(device, &engine.describe())?;
    Ok(Some(table))
}

/// What is sampled goes to a file beside the table, where a run that was killed may have left some.
fn journal(
    arguments: &Arguments,
    output: &Output,
    (device, engine): (&DeviceFacts, &dyn Engine),
    config: &mut MeasureConfig,
) -> anyhow::Result<Journal> {
    let mut name = arguments.out.clone().into_os_string();
    name.push(".samples");
    let (journal, taken) = Journal::open(name.as_ref(), device, &engine.describe(), &config.describe())?;
    if !taken.is_empty() {
        output.say(format_args!("going on with what was sampled of {} layers", taken.len()));
    }
    config.taken = taken;
    Ok(journal)
}

fn measure_with_bar(
    output: &Output,
    layers: &BTreeMap<String, LayerSpec>,
    engine: &dyn Engine,
    (config, journal): (&MeasureConfig, &mut Journal),
    stop: &std::sync::atomic::AtomicBool,
) -> anyhow::Result<Measured> {
    let bar = output.bar(layers.len() as u64);
    let mut progress = |progress: Progress<'_>| {
        bar.set_position(progress.finished as u64);
        bar.set_message(format!("round {}", progress.round));
        journal.append(progress.key, progress.inner, progress.samples)
    };
    let mut stopwatch = MonotonicStopwatch::new();
    let measured = extract::latency::measure(
        &single(layers.clone()),
        engine,
        &mut stopwatch,
        config,
        &mut progress,
        stop,
    )?;
    bar.finish_and_clear();
    Ok(measured)
}

fn summarize(output: &Output, table: &LatencyTable, spent: f64) -> anyhow::Result<()> {
    let (entries, unconverged) = (table.rows().len(), table.unconverged());
    if unconverged > 0 {
        output
            .say(format_args!("{unconverged} layers are known less well than asked for: give more --budget"));
    }
    let document = json!({
        "entries": entries, "unconverged": unconverged, "seconds": spent,
        "hash": table.hash(), "finished": true,
    });
    output.result(
        format_args!("{entries} layers in {spent:.1} s of measuring, {unconverged} of them unconverged"),
        &document,
    )
}
