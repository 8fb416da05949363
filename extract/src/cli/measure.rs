//! `extract measure`: plans what to time of a space, times it on this machine, and folds what was timed into a table.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use extract::accuracy::AccuracyEstimator;
use extract::latency::fitted::{LEAST_NETWORKS, Part};
use extract::latency::{
    Campaign, Conditions, DeviceFacts, Engine, EngineFacts, Instruments, LatencyTable, MeasureConfig, Plan,
    Rows, RowsLog, Session, Stopwatch, carry_out, is_searched, stopwatch_of,
};
use extract::search::{CostIndex, Kept, Objective, Promised, StandIn, measure_promised, promised};
use serde_json::json;
use supernet::kernels::Precision;
use supernet::space::SearchSpace;
use supernet::timing::unix_seconds;

use super::engine::{EngineChoice, show};
use super::table::{describe_fit, space_at};
use super::{Common, OnDevice, Outcome, Output, interrupt_flag, not_an_input};

/// Measure every layer of a space on this machine, and some whole sub-networks, into a latency table
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract measure --space fashion --threads 1 --out table.json\n  extract measure --space fashion --threads 1 --plan-only plan.jsonl\n  extract measure --space fashion --rows rows.jsonl --out board.json\n\nWhat is sampled goes to TABLE.json.rows at once: after a kill or Ctrl-C the same command goes on with it.\nFor another device: write a plan, run `measure plan.jsonl rows.jsonl` there, and fold the rows here."
)]
pub struct Arguments {
    /// Preset name or TOML file
    #[arg(long)]
    space: String,
    /// Only these of the space's input resolutions
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    resolutions: Vec<usize>,
    /// The table
    #[arg(long, value_name = "TABLE.json", required_unless_present = "plan_only")]
    out: Option<PathBuf>,
    /// What runs the layers: native, or onnxruntime:LIB with its shared library
    #[arg(long, default_value = "native")]
    engine: EngineChoice,
    #[command(flatten)]
    on: OnDevice,
    /// What a GPU computes with: f32; tf32, which rounds what products read; or bf16, which keeps activations so too
    #[arg(long, value_name = "f32|tf32|bf16", default_value_t = Precision::F32)]
    dtype: Precision,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: u16,
    /// Add to the table what it lacks or does not know well
    #[arg(long, requires = "out")]
    missing: bool,
    /// Write what is to be measured, and measure nothing here
    #[arg(long, value_name = "PLAN.jsonl", conflicts_with_all = ["rows", "limits"])]
    plan_only: Option<PathBuf>,
    /// Fold what was measured elsewhere, and measure nothing here
    #[arg(long, value_name = "ROWS.jsonl", conflicts_with = "limits")]
    rows: Option<PathBuf>,
    /// Whole sub-networks to measure, twice each: half of them to fit what sums of layers miss, half to judge; 0 for none
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = networks)]
    networks: u32,
    /// Latency limits to search sub-networks for, ten each, half to set the margin and half to see whether limits are
    /// kept; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    limits: u32,
    /// What one of each five searches looks for; the others' stand-ins favour larger choices
    #[arg(long, value_name = "FILE", requires = "limits")]
    estimator: Option<PathBuf>,
    /// What to call this machine [default: its processor's name]
    #[arg(long, value_name = "NAME", value_parser = name)]
    device_name: Option<String>,
    /// Seconds of measuring after which no further sample is begun
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
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

/// Searches for each limit, each with an objective of its own.
const SEARCHES_EACH: u64 = 5;

fn name(text: &str) -> Result<String, String> {
    let fit = !text.trim().is_empty() && !text.chars().any(char::is_control);
    fit.then(|| text.to_string()).ok_or_else(|| "some text without control characters".to_string())
}

fn networks(text: &str) -> Result<u32, String> {
    let value =
        text.parse::<u32>().ok().filter(|n| *n == 0 || (LEAST_NETWORKS..=10_000).contains(&(*n as usize)));
    value.ok_or_else(|| format!("0, or {LEAST_NETWORKS} to 10000"))
}

fn per_cent(text: &str) -> Result<f64, String> {
    let value = text.parse::<f64>().ok().filter(|value| (0.01..=50.0).contains(value));
    value.ok_or_else(|| "a number from 0.01 to 50".to_string())
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let space = space_at(&arguments.space, &arguments.resolutions)?;
    let out = arguments.out.as_deref();
    if arguments.limits > 0 && arguments.networks == 0 {
        anyhow::bail!(
            "--limits: expected --networks above 0, for a search needs to know how far off sums are"
        );
    }
    if let Some(out) = out.filter(|out| out.is_dir()) {
        anyhow::bail!("--out {}: expected a file, got a folder", out.display());
    }
    let present = match out {
        Some(out) if arguments.missing && out.exists() => Some(LatencyTable::read(out)?),
        _ => None,
    };
    match (out, &arguments.plan_only, &arguments.rows) {
        (_, Some(plan), _) => write_plan(arguments, &output, &space, (present.as_ref(), plan)),
        (Some(out), None, Some(rows)) => fold_rows(arguments, &output, &space, (present, rows, out)),
        (Some(out), None, None) => measure_here(arguments, &output, &space, (present, out)),
        (None, None, _) => unreachable!("--out is required"),
    }
}

fn config(arguments: &Arguments) -> MeasureConfig {
    MeasureConfig {
        half_width: arguments.precision / 100.0,
        budget: Duration::from_secs(arguments.budget),
        seed: arguments.seed,
        ..MeasureConfig::default()
    }
}

/// For another device, which opens its engine itself.
fn write_plan(
    arguments: &Arguments,
    output: &Output,
    space: &SearchSpace,
    (present, path): (Option<&LatencyTable>, &Path),
) -> anyhow::Result<Outcome> {
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
    let plan = Plan::new(space, &facts, &config(arguments), arguments.networks as usize, present)?;
    plan.write(path)?;
    output.wrote(path);
    let layers = plan.layers.values().filter(|layer| layer.known_us.is_none()).count();
    let document = json!({ "layers": layers, "networks": plan.networks, "sentinel": plan.sentinel });
    output
        .result(format_args!("{layers} layers and {} sub-networks to measure", plan.networks), &document)?;
    Ok(Outcome::Done)
}

fn fold_rows(
    arguments: &Arguments,
    output: &Output,
    space: &SearchSpace,
    (present, path, out): (Option<LatencyTable>, &PathBuf, &Path),
) -> anyhow::Result<Outcome> {
    not_an_input(out, &[path])?;
    let rows = Rows::read(path)?;
    let mut table = folded(present, out, &rows, config(arguments).half_width, space)?;
    if let Some(name) = &arguments.device_name {
        table.device.name.clone_from(name);
    }
    table.write(out)?;
    output.wrote(out);
    summarize(output, &table, space, None)?;
    Ok(Outcome::Done)
}

fn folded(
    present: Option<LatencyTable>,
    out: &Path,
    rows: &Rows,
    half_width: f64,
    space: &SearchSpace,
) -> anyhow::Result<LatencyTable> {
    Ok(match present {
        Some(mut table) => {
            table.add_rows(rows, half_width, Some(space))?;
            table
        }
        None => LatencyTable::from_rows(&out.display().to_string(), rows, half_width, Some(space))?,
    })
}

fn measure_here(
    arguments: &Arguments,
    output: &Output,
    space: &SearchSpace,
    (present, out): (Option<LatencyTable>, &Path),
) -> anyhow::Result<Outcome> {
    let stop = interrupt_flag()?;
    let kernels = arguments.on.kernels(arguments.dtype)?;
    let engine = &*arguments.engine.open(kernels, usize::from(arguments.batch))?;
    let device = DeviceFacts::this_machine(arguments.device_name.as_deref())
        .computing_with(kernels, arguments.device_name.is_none());
    if let Some(table) = &present {
        table.check_same_setting(&device, &engine.describe())?;
    }
    let networks = arguments.networks as usize;
    let plan = Plan::new(space, &engine.describe(), &config(arguments), networks, present.as_ref())?;
    let mut log = open_log(output, out, &plan, &device, engine)?;
    let mut stopwatch = stopwatch_of(kernels);
    let bar = output.bar(plan.layers.len() as u64);
    let campaign =
        carry_out(&plan, (engine, &mut *stopwatch), &mut log, &mut |progress| show(&bar, &progress), &stop)?;
    bar.finish_and_clear();
    if let Some(outcome) = cut_short(output, &plan, &campaign)? {
        return Ok(outcome);
    }
    // what was sampled later has no part in the table, so that a run that was killed goes on with the same
    let rows = log.rows().before(is_searched);
    let mut table = folded(present, out, &rows, plan.half_width, space)?;
    let mut spent = campaign.spent;
    let budget = plan.budget.saturating_sub(spent);
    let instruments = (engine, stopwatch.as_mut(), &mut log);
    if let Some(kept) = search_limits(arguments, output, space, (&mut table, budget), instruments, &stop)? {
        spent += kept.spent;
        if kept.interrupted {
            return interrupted(output, plan.layers.len(), spent);
        }
    }
    table.run.insert("unix_seconds".to_string(), json!(unix_seconds()));
    table.run.insert("seconds".to_string(), json!(spent.as_secs_f64().round()));
    table.write(out)?;
    output.wrote(out);
    if campaign.unfinished > 0 {
        output.say(format_args!(
            "--budget: {} layers and sub-networks are not known well enough yet; the same command goes on",
            campaign.unfinished
        ));
    } else {
        log.remove()?;
    }
    summarize(output, &table, space, Some(spent.as_secs_f64()))?;
    Ok(Outcome::Done)
}

/// What is sampled goes to a file beside the table, where a run that was killed may have left some.
fn open_log(
    output: &Output,
    out: &Path,
    plan: &Plan,
    device: &DeviceFacts,
    engine: &dyn Engine,
) -> anyhow::Result<RowsLog> {
    let mut name = out.as_os_str().to_os_string();
    name.push(".rows");
    let session = Session { unix_seconds: unix_seconds(), conditions: Conditions::now() };
    let log = RowsLog::open(name.as_ref(), plan.setting(device, engine), session)?;
    let lines = log.rows().visits().count();
    if lines > 0 {
        output.say(format_args!("going on with {lines} lines of samples that were taken already"));
    }
    Ok(log)
}

/// What to say where the plan was not carried out.
fn cut_short(output: &Output, plan: &Plan, campaign: &Campaign) -> anyhow::Result<Option<Outcome>> {
    let layers = plan.layers.values().filter(|layer| layer.known_us.is_none()).count();
    if campaign.interrupted {
        return interrupted(output, layers - campaign.unmeasured_layers, campaign.spent).map(Some);
    }
    if campaign.unmeasured_layers > 0 {
        anyhow::bail!(
            "--budget: {} of {layers} layers are not measured yet, and no table is written; what was sampled is \
             saved, and the same command goes on with it",
            campaign.unmeasured_layers
        );
    }
    if campaign.unmeasured_networks > 0 {
        output.say(format_args!("{} sub-networks were not measured twice", campaign.unmeasured_networks));
    }
    Ok(None)
}

fn interrupted(output: &Output, layers: usize, spent: Duration) -> anyhow::Result<Outcome> {
    output.say("interrupted; what was sampled is saved, and the same command goes on with it");
    let document = json!({ "finished": false, "entries": layers, "seconds": spent.as_secs_f64() });
    output.result(format_args!("{layers} layers sampled so far"), &document)?;
    Ok(Outcome::Interrupted)
}

/// Searches for limits and measures what is found, in two rounds: the first sets the upper end of intervals, the second
/// judges it.
fn search_limits(
    arguments: &Arguments,
    output: &Output,
    space: &SearchSpace,
    (table, mut budget): (&mut LatencyTable, Duration),
    (engine, stopwatch, log): (&dyn Engine, &mut (dyn Stopwatch + 'static), &mut RowsLog),
    stop: &AtomicBool,
) -> anyhow::Result<Option<Kept>> {
    let Some(mut fit) = table.fit_of(space).cloned().filter(|_| arguments.limits > 0) else {
        return Ok(None);
    };
    let mut all = Kept { searched: Vec::new(), spent: Duration::ZERO, interrupted: false };
    for (round, part) in [Part::Fit, Part::Check].into_iter().enumerate() {
        let found = found_for_limits(arguments, space, table, round as u64, stop)?;
        let index = CostIndex::new(space, table)?;
        let mut sentinel = engine.sentinel()?;
        let name = sentinel.name();
        let instruments =
            Instruments { engine, stopwatch: &mut *stopwatch, sentinel: &mut || sentinel.run() };
        let config = MeasureConfig { reference_us: table.reference_us(name), budget, ..config(arguments) };
        let bar = output.bar(found.len() as u64);
        let mut progress = |progress: extract::latency::Progress<'_>| show(&bar, &progress);
        let kept = measure_promised(&index, (&found, part), instruments, &config, log, &mut progress, stop)?;
        bar.finish_and_clear();
        if kept.searched.len() < found.len() {
            let lost = found.len() - kept.searched.len();
            output.say(format_args!("{lost} searched sub-networks were not measured"));
        }
        budget = budget.saturating_sub(kept.spent);
        all.spent += kept.spent;
        all.interrupted |= kept.interrupted || stop.load(Ordering::Relaxed);
        fit.searched.extend(kept.searched);
        table.set_fit(space, fit.clone());
    }
    Ok(Some(all))
}

/// What searches find for the limits, with other objectives each round.
fn found_for_limits(
    arguments: &Arguments,
    space: &SearchSpace,
    table: &LatencyTable,
    round: u64,
    stop: &AtomicBool,
) -> anyhow::Result<Vec<Promised>> {
    let estimator = arguments.estimator.as_deref().map(AccuracyEstimator::read).transpose()?;
    let seeds = SEARCHES_EACH * round..SEARCHES_EACH * (round + 1);
    let stand_ins: Vec<StandIn> = seeds.map(|seed| StandIn::new(space, seed)).collect();
    // one estimator finds the same again and again, so that stand-ins keep it company
    let own = estimator.iter().map(|estimator| estimator as &dyn Objective);
    let others = stand_ins.iter().map(|stand_in| stand_in as &dyn Objective);
    let objectives: Vec<&dyn Objective> = own.chain(others).take(SEARCHES_EACH as usize).collect();
    let index = CostIndex::new(space, table)?;
    Ok(promised(&index, &objectives, arguments.limits as usize, arguments.seed.wrapping_add(round), stop)?)
}

fn summarize(
    output: &Output,
    table: &LatencyTable,
    space: &SearchSpace,
    seconds: Option<f64>,
) -> anyhow::Result<()> {
    let (entries, unconverged) = (table.rows().len(), table.unconverged());
    let missing = table.coverage(space)?.missing.len();
    if unconverged > 0 {
        output.say(format_args!(
            "{unconverged} layers are known less well than asked for; --missing tries them again"
        ));
    }
    if missing > 0 {
        output.say(format_args!("{missing} layers of the space are missing"));
    }
    let fit = table.fit_of(space);
    if fit.is_none() {
        output.say("too few whole sub-networks were measured to correct and judge sums of layers");
    }
    let document = json!({
        "entries": entries, "unconverged": unconverged, "missing": missing, "seconds": seconds,
        "hash": table.hash(), "finished": true, "validation": fit.map(|fit| fit.validation()),
    });
    let time = seconds.map_or_else(String::new, |seconds| format!(" in {seconds:.1} s of measuring"));
    let mut text = format!("{entries} layers{time}, {unconverged} of them unconverged");
    if let Some(fit) = fit {
        text += &format!("\n{}", describe_fit(fit));
    }
    output.result(text, &document)
}
