//! `extract measure`: plans a space's measurements, runs them on this machine, and folds the samples into a table.

mod flags;
mod here;
mod limits;

use std::path::{Path, PathBuf};
use std::time::Duration;

use command::{Common, Ending, not_an_input, result_path, wrote};
use extract::latency::fitted::LEAST_NETWORKS;
use extract::latency::{EngineFacts, LatencyTable, MeasureConfig, MeasurePlan, NETWORKS, Rows};
use kernels::Precision;
use serde_json::json;
use space::{Extent, SearchSpace};
use tracing::{info, warn};

use self::flags::{PrecisionFlag, percent};
use super::OnDevice;
use super::engine::EngineChoice;
use super::table::{describe_fit, describe_machine, space_at};

/// Measure every layer of a space on this machine, and some whole sub-networks, into a latency table
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract measure --space fashion --threads 1 --out table.json\n  extract measure --space fashion --threads 1 --plan-only plan.jsonl\n  extract measure --space fashion --rows rows.jsonl --out board.json\n\nSamples are saved in TABLE.json.rows at once; after a kill or Ctrl-C the same command continues.\nIf the table exists, the new session is added to it, even for another space.\nFor another device: write a plan, run `measure plan.jsonl rows.jsonl` there, and fold the rows here."
)]
pub struct Arguments {
    /// Preset name or TOML file
    #[arg(long)]
    space: String,
    /// Only these of the space's input resolutions
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    resolutions: Vec<Extent>,
    /// Latency table to write or extend
    #[arg(long, value_name = "TABLE.json", value_parser = result_path(), required_unless_present = "plan_only")]
    out: Option<PathBuf>,
    /// Engine that runs the layers: native, or onnxruntime:LIB with its shared library
    #[arg(long, default_value = "native")]
    engine: EngineChoice,
    #[command(flatten)]
    on: OnDevice,
    /// Number type on a GPU: f32; tf32, which rounds the operands of products; or bf16, which also stores activations
    /// rounded [default: f32]
    #[arg(long, value_name = "f32|tf32|bf16")]
    precision: Option<PrecisionFlag>,
    /// The former name of --precision
    #[arg(long, value_name = "f32|tf32|bf16", hide = true)]
    dtype: Option<Precision>,
    /// Images per inference
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Measure only what the table lacks or does not know well
    #[arg(long, requires = "out")]
    missing: bool,
    /// Begin a new table in place of the one that is there
    #[arg(long, requires = "out", conflicts_with = "missing")]
    replace: bool,
    /// Write what is to be measured, and measure nothing here
    #[arg(long, value_name = "PLAN.jsonl", value_parser = result_path(), conflicts_with_all = ["rows", "limits"])]
    plan_only: Option<PathBuf>,
    /// Make the table from rows measured on another device; measure nothing here
    #[arg(long, value_name = "ROWS.jsonl", conflicts_with = "limits")]
    rows: Option<PathBuf>,
    /// Whole sub-networks to measure: half of them to fit what sums of layers miss, half to judge; 0 for none
    #[arg(long, value_name = "N", default_value_t = NETWORKS as u32, value_parser = networks)]
    networks: u32,
    /// Number of latency limits to search under, ten sub-networks each: half set the margin, half test it; 0
    /// for none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    limits: u32,
    /// Estimator of one in five searches; the other searches have synthetic objectives that favor larger choices
    #[arg(long, value_name = "FILE", requires = "limits")]
    estimator: Option<PathBuf>,
    /// Name of this machine [default: its processor's name]
    #[arg(long, value_name = "NAME", value_parser = name)]
    device_name: Option<String>,
    /// Seconds after which no further visit is begun; visits are spread through half of it at least [default:
    /// 0.6 per layer and sub-network, at least 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    budget: Option<u64>,
    /// Target of each latency's uncertainty: half of its 95 % interval, in percent [default: 5]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    half_width: Option<f64>,
    /// Decides the order in which layers are visited
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    pub common: Common,
}

/// Seconds for each layer and each sub-network, and at least in all.
const SECONDS_EACH: f64 = 0.6;
const LEAST_SECONDS: f64 = 30.0;

fn name(text: &str) -> Result<String, String> {
    let fit = !text.trim().is_empty() && !text.chars().any(char::is_control);
    fit.then(|| text.to_string()).ok_or_else(|| "some text without control characters".to_string())
}

fn networks(text: &str) -> Result<u32, String> {
    let value =
        text.parse::<u32>().ok().filter(|n| *n == 0 || (LEAST_NETWORKS..=10_000).contains(&(*n as usize)));
    value.ok_or_else(|| format!("0, or {LEAST_NETWORKS} to 10000"))
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let space = space_at(&arguments.space, &arguments.resolutions)?;
    let out = arguments.out.as_deref();
    flags::check(arguments)?;
    if arguments.limits > 0 && arguments.networks == 0 {
        anyhow::bail!(
            "--limits: expected --networks above 0, for a search needs to know how far off sums are"
        );
    }
    if let Some(out) = out.filter(|out| out.is_dir()) {
        anyhow::bail!("--out {}: expected a file, got a folder", out.display());
    }
    let present = match out {
        Some(out) if out.exists() && !arguments.replace => Some(
            LatencyTable::read(out)
                .map_err(|error| anyhow::anyhow!("{error}; give --replace to lose what is there"))?,
        ),
        _ => None,
    };
    match (out, &arguments.plan_only, &arguments.rows) {
        (_, Some(plan), _) => write_plan(arguments, &space, present.as_ref(), plan),
        (Some(out), None, Some(rows)) => fold_rows(arguments, &space, present, rows, out),
        (Some(out), None, None) => here::measure(arguments, &space, present, out),
        (None, None, _) => unreachable!("--out is required"),
    }
}

/// The protocol; without `--budget` the time follows from the number of subjects.
fn config(arguments: &Arguments, subjects: usize) -> MeasureConfig {
    let usual = (SECONDS_EACH * subjects as f64).max(LEAST_SECONDS);
    MeasureConfig {
        half_width: flags::half_width(arguments),
        budget: arguments.budget.map_or(Duration::from_secs_f64(usual), Duration::from_secs),
        seed: arguments.seed,
        ..MeasureConfig::default()
    }
}

/// The plan for a space; `--missing` leaves out the layers that the table knows well.
fn plan(
    arguments: &Arguments,
    space: &SearchSpace,
    engine: &EngineFacts,
    present: Option<&LatencyTable>,
) -> anyhow::Result<MeasurePlan> {
    let networks = arguments.networks as usize;
    let known = present.filter(|_| arguments.missing);
    let mut plan = MeasurePlan::new(space, engine, &config(arguments, 0), networks, known)?;
    let subjects = plan.subjects()?.len();
    plan.budget = config(arguments, subjects).budget;
    plan.kept_us = present.and_then(|table| table.kept_us(&plan.sentinel));
    Ok(plan)
}

/// Writes the plan for another device, which opens its engine itself.
fn write_plan(
    arguments: &Arguments,
    space: &SearchSpace,
    present: Option<&LatencyTable>,
    path: &Path,
) -> anyhow::Result<Ending> {
    if arguments.on.device != "cpu" {
        anyhow::bail!("--plan-only: expected --device cpu, which the program for small devices has");
    }
    let Some(threads) = arguments.common.threads else {
        anyhow::bail!("--plan-only: expected --threads, the number that the device is to compute with");
    };
    let engine = match &arguments.engine {
        EngineChoice::Native => "native",
        EngineChoice::OnnxRuntime(_) => "onnxruntime",
    };
    let facts = EngineFacts {
        engine: engine.to_string(),
        engine_version: String::new(),
        threads: usize::from(threads),
        dtype: "f32".to_string(),
        batch: usize::from(arguments.batch),
    };
    let plan = plan(arguments, space, &facts, present)?;
    plan.write(path)?;
    wrote(path);
    let layers = plan.layers.values().filter(|layer| !layer.known).count();
    let networks = plan.networks.len();
    let document = json!({ "layers": layers, "networks": networks, "sentinel": plan.sentinel });
    arguments
        .common
        .print(&document, || format!("{layers} layers and {networks} sub-networks to measure"))?;
    Ok(Ending::Done)
}

fn fold_rows(
    arguments: &Arguments,
    space: &SearchSpace,
    present: Option<LatencyTable>,
    path: &PathBuf,
    out: &Path,
) -> anyhow::Result<Ending> {
    not_an_input(out, &[path])?;
    let rows = Rows::read(path)?;
    let mut table = match present {
        Some(table) => table,
        None => {
            let setting = &rows.setting;
            let device = setting.device.clone();
            let engine = setting.engine.clone();
            LatencyTable::empty(&out.display().to_string(), device, engine, &setting.protocol)?
        }
    };
    if table.rows().is_empty() {
        table.half_width = flags::half_width(arguments);
    }
    let added = table.add_rows(&rows, Some(space), None)?;
    if table.rows().is_empty() {
        anyhow::bail!("{}: rows: expected samples of at least one layer, got none", path.display());
    }
    if added.assumed > 0 {
        warn!(
            "{} sub-networks do not say of which space they are; {} is assumed",
            added.assumed,
            space.name()
        );
    }
    say_stale(&added.stale);
    if let Some(name) = &arguments.device_name {
        table.device.name.clone_from(name);
    }
    table.write(out)?;
    wrote(out);
    summarize(&arguments.common, &table, space, None)?;
    Ok(Ending::Done)
}

fn say_stale(spaces: &[String]) {
    for space in spaces {
        warn!(
            "layers of space {space} changed, and the table does not hold the space: what it predicts is as before; measure it again"
        );
    }
}

fn summarize(
    output: &Common,
    table: &LatencyTable,
    space: &SearchSpace,
    seconds: Option<f64>,
) -> anyhow::Result<()> {
    let entries = table.rows().len();
    let unconverged = table.unconverged();
    let unaccepted = table.unaccepted();
    let missing = table.coverage(space)?.missing.len();
    let kind = if table.is_undisturbed() { "undisturbed" } else { "typical" };
    if unconverged > 0 {
        info!(
            "{unconverged} layers are known less well than requested, {unaccepted} of them too badly to count; --missing tries them again"
        );
    }
    if missing > 0 {
        info!("{missing} layers of the space are missing");
    }
    if table.is_undisturbed() && table.sessions().values().all(|session| !session.met) {
        warn!("the machine was never met undisturbed, so no latency here is one of the device alone");
    }
    let fit = table.fit_of(space);
    if fit.is_none() {
        info!("too few whole sub-networks were measured to correct and judge sums of layers");
    }
    let document = json!({
        "entries": entries, "unconverged": unconverged, "unaccepted": unaccepted, "missing": missing,
        "seconds": seconds, "hash": table.hash(), "finished": missing == 0, "latency": kind,
        "sessions": table.sessions(), "batch": table.engine.batch,
        "validation": fit.map(|fit| fit.validation()),
        "validation_typical": fit.map(|fit| fit.validation_typical()),
    });
    let time = seconds.map_or_else(String::new, |seconds| format!(" in {seconds:.1} s"));
    let batch = super::table::describe_batch(&table.engine);
    let mut text = format!(
        "{entries} layers{time}: {kind} latencies{batch}, {unconverged} of them known less well than requested"
    );
    text += &format!("\n{}", describe_machine(table));
    if let Some(fit) = fit {
        text += &format!("\n{}", describe_fit(fit));
    }
    output.print(&document, || text)
}
