//! `extract search`: the most accurate sub-network under a device's limits.

mod about_table;
mod validation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::file::check_place;
use base::timing::{Stopwatch, unix_seconds};
use command::{Common, Ending, not_an_input, result_path, stop_flag, wrote};
use extract::accuracy::{AccuracyEstimator, FitReport};
use extract::latency::{LatencyKind, LatencyModel, LatencyTable};
use extract::search::{
    AccuracyFrom, AccuracySearch, Candidate, Evaluated, Found, LATENCY, LatencyFrom, Limits, LogFile,
    LogSetting, Quantity, SearchConfig, SearchReport, ValidatedSearch, ValidationProblem, cost_index,
    cost_index_without_latency, judge_by_predictor,
};
use network::model_folder::SelectedOn;
use serde_json::{Value, json};
use space::{Extent, SearchSpace};
use tracing::{info, warn};

use super::backend;
use super::table::space_at;

/// Find the sub-network with the highest expected accuracy under all limits at once
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract search --space fashion --estimator estimator.safetensors --latency-table table.json \\\n    --max-latency 850us --max-params 200K --out found.json\n  extract search --space fashion --estimator estimator.safetensors --latency-table table.json \\\n    --max-latency 850us --supernet run/supernet.safetensors --data digits --min top1=0.9 --out found.json"
)]
pub struct Arguments {
    /// Preset name or TOML file
    #[arg(long)]
    space: String,
    /// Only these of the space's input resolutions
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    resolutions: Vec<Extent>,
    /// The estimator that `extract fit` wrote
    #[arg(long, value_name = "FILE")]
    estimator: PathBuf,
    /// The table that `extract measure` wrote; needed for a latency limit or a front
    #[arg(long, value_name = "TABLE.json")]
    latency_table: Option<PathBuf>,
    /// Latency limit, such as 12ms or 850us; compared with the upper end of the predicted interval
    #[arg(long, value_name = "TIME", requires = "latency_table", value_parser = amount(Quantity::Latency), allow_hyphen_values = true)]
    max_latency: Option<f64>,
    /// Limit on multiply-accumulates, such as 200M
    #[arg(long, value_name = "MACS", value_parser = amount(Quantity::Macs), allow_hyphen_values = true)]
    max_macs: Option<f64>,
    /// Limit on parameters, such as 5M
    #[arg(long, value_name = "PARAMS", value_parser = amount(Quantity::Params), allow_hyphen_values = true)]
    max_params: Option<f64>,
    /// Limit on peak activation memory, such as 4MB
    #[arg(long, value_name = "BYTES", value_parser = amount(Quantity::Memory), allow_hyphen_values = true)]
    max_memory: Option<f64>,
    /// Which latency is limited: undisturbed, with nothing else on the core; or typical, as observed,
    /// neighbors included
    #[arg(long, value_name = "undisturbed|typical", default_value_t, requires = "latency_table", value_parser = kind)]
    latency: LatencyKind,
    /// Decides all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Search tighter latency limits too, and keep the front of accuracy against latency
    #[arg(long, requires = "latency_table")]
    front: bool,
    #[command(flatten)]
    validation: validation::ValidationFlags,
    /// Log every estimate and evaluation in this file; after an interruption the same command continues from
    /// it
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    log: Option<PathBuf>,
    /// Where to write what was found
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

/// Latency limits that a front is searched at, next to the requested one.
const FRONT_LIMITS: usize = 8;

fn kind(text: &str) -> Result<LatencyKind, String> {
    match text {
        "undisturbed" => Ok(LatencyKind::Undisturbed),
        "typical" => Ok(LatencyKind::Typical),
        _ => Err("undisturbed or typical".to_string()),
    }
}

fn amount(quantity: Quantity) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| quantity.parse(text).map_err(|error| error.to_string())
}

/// Refuses an output in the place of an input, or where it cannot be written.
fn check_paths(arguments: &Arguments) -> anyhow::Result<()> {
    let inputs = [Some(&arguments.estimator), arguments.latency_table.as_ref(), arguments.log.as_ref()];
    let inputs = inputs.into_iter().flatten();
    not_an_input(&arguments.out, &inputs.chain(arguments.validation.inputs()).collect::<Vec<_>>())?;
    if arguments.log.as_deref().is_some_and(|log| same_place(log, &arguments.out)) {
        anyhow::bail!("--log {}: expected another file than --out", arguments.out.display());
    }
    Ok(check_place(&arguments.out)?)
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let threads = rayon::current_num_threads();
    let stop = stop_flag()?;
    check_paths(arguments)?;
    let space = space_at(&arguments.space, &arguments.resolutions)?;
    let estimator = AccuracyEstimator::read(&arguments.estimator)?.with_backend(&backend()?)?;
    check_estimator(arguments, &estimator, &space)?;
    let table = arguments.latency_table.as_deref().map(LatencyTable::read).transpose()?;
    let limits = limits(arguments);
    let front_limits = if arguments.front { FRONT_LIMITS } else { 0 };
    let config = SearchConfig { seed: arguments.seed, front_limits, ..SearchConfig::default() };
    let index = match &table {
        Some(table) => cost_index(&space, table, arguments.latency)?,
        None => cost_index_without_latency(&space)?,
    };
    let least_top1 = arguments.validation.least;
    let problem =
        ValidationProblem { index: &index, limits: &limits, config: &config, least_top1, stop: &stop };
    let setting = log_setting(&problem, &estimator, table.as_ref())?;
    let started = Stopwatch::start();
    let Searched { report, evaluated, selected_on, supernet } =
        searched(arguments, &problem, &estimator, setting)?;
    let seconds = started.elapsed_ms().round() / 1e3;

    let limit = limits.of(LATENCY);
    let mut found = Found::new(&space, limits, arguments.seed, report.best.clone());
    if arguments.front {
        found.front = report.front.clone();
    }
    (found.min_top1, found.evaluated, found.selected_on) = (least_top1, evaluated, selected_on);
    let model = table.as_ref().map(|table| LatencyModel::of_kind(table, &space, arguments.latency));
    found.limit_kept = model.and_then(|model| model.kept(1e3 * report.best.latency_ms()?, limit?));
    if let (Some(table), Some(model)) = (&table, &model) {
        found.latency = Some(LatencyFrom::new(table, model.kind()));
        let best = &report.best;
        found.extrapolated =
            model.extrapolated(best.arch.resolution, 1e3 * best.latency_ms().unwrap_or_default());
        about_table::say(table, model, &space, arguments.latency, &found)?;
    }
    found.interrupted = report.interrupted;
    found.latency_table = table.as_ref().map(LatencyTable::hash);
    (found.estimator, found.supernet) = (estimator.hash()?, supernet);
    found.run = run_facts(&report, seconds, threads);
    found.write(&arguments.out)?;
    wrote(&arguments.out);
    if model.is_some_and(|model| model.fit().is_none()) {
        info!(
            "note: the table knows no whole sub-networks of the space, so latencies are plain sums of layers; measure it with --networks"
        );
    }
    say_what_is_left(arguments, &estimator, &found);
    output.print(&document(&report, &found, seconds), || describe(&report, &found, seconds))?;
    Ok(if report.interrupted { Ending::Interrupted } else { Ending::Done })
}

/// Says what is not known of the result, and how an interrupted search goes on.
fn say_what_is_left(arguments: &Arguments, estimator: &AccuracyEstimator, found: &Found) {
    if estimator.report().is_none() && found.evaluated.is_empty() {
        info!("note: the estimator was imported, so how wrong it is, and about which supernet, is not known");
    }
    match &arguments.log {
        Some(log) if found.interrupted => {
            info!("interrupted: this is the best so far; the same command goes on with {}", log.display());
        }
        None if found.interrupted => info!("interrupted: this is the best so far"),
        _ => {}
    }
}

/// Whether two paths name the same file, which need not exist.
fn same_place(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::canonicalize(path)
            .ok()
            .or_else(|| Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?)))
    };
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

/// The problem that the logged estimates belong to: the inputs that the search itself uses, without those of
/// evaluations.
fn log_setting(
    problem: &ValidationProblem<'_>,
    estimator: &AccuracyEstimator,
    table: Option<&LatencyTable>,
) -> anyhow::Result<LogSetting> {
    let setting = LogSetting::new(problem.index.space(), problem.config.seed)
        .with_metric(AccuracySearch::metric())
        .with_input("estimator", estimator.hash()?)
        .with_input("kernels", backend()?.name());
    Ok(match table {
        Some(table) => setting.with_input("latency_table", table.hash()),
        None => setting,
    })
}

/// The result, and the data that it was chosen by.
struct Searched {
    report: SearchReport,
    evaluated: Vec<Evaluated>,
    selected_on: Option<SelectedOn>,
    /// Hash of the supernet whose sub-networks they are, where it is known.
    supernet: String,
}

/// Searches, and evaluates what is found where weights and images were given.
fn searched(
    arguments: &Arguments,
    problem: &ValidationProblem<'_>,
    estimator: &AccuracyEstimator,
    setting: LogSetting,
) -> anyhow::Result<Searched> {
    let Arguments { validation, common, log, .. } = arguments;
    let log = Logged { path: log.as_deref(), setting };
    let by_predictor = || estimator.report().and_then(FitReport::selected_on);
    if let Some((validated, supernet)) = validation.search(common, problem, estimator, &log)? {
        let selected_on = validated.selected_on().or_else(by_predictor);
        let ValidatedSearch { report, evaluated, .. } = validated;
        return Ok(Searched { report, evaluated, selected_on, supernet });
    }
    let ValidationProblem { index, limits, config, least_top1, stop } = *problem;
    let search = AccuracySearch { index, objective: estimator, limits, config, stop };
    let report = match log.open(index.space(), &[])? {
        Some(mut log) => search.run(&mut log),
        None => search.run(&mut ()),
    };
    let mut report = report.map_err(extract::Error::from)?;
    judge_by_predictor(&mut report, estimator, least_top1)?;
    let supernet = estimator.supernet().unwrap_or_default().to_string();
    Ok(Searched { report, evaluated: Vec::new(), selected_on: by_predictor(), supernet })
}

/// Where estimates are kept, if they are, and of which problem they are so far.
pub struct Logged<'a> {
    path: Option<&'a Path>,
    setting: LogSetting,
}

impl Logged<'_> {
    /// The log, of a problem for which these were read too.
    pub fn open(&self, space: &SearchSpace, inputs: &[(&str, String)]) -> anyhow::Result<Option<LogFile>> {
        let Some(path) = self.path else { return Ok(None) };
        let setting =
            inputs.iter().fold(self.setting.clone(), |setting: LogSetting, (name, hash): &(&str, String)| {
                setting.with_input(name, hash)
            });
        let log = LogFile::open(path, space, &setting)?;
        if let count @ 1.. = log.archive().entries().len() {
            info!(estimates = count, "going on with {count} estimates that were made already");
        }
        Ok(Some(log))
    }
}

/// Refuses choices that the estimator's rows did not have, and repeats what was said of it when it was fitted.
fn check_estimator(
    arguments: &Arguments,
    estimator: &AccuracyEstimator,
    space: &SearchSpace,
) -> anyhow::Result<()> {
    if !arguments.validation.extrapolate {
        estimator.check_covers(space)?;
    }
    if let Some(first) = estimator.unseen(space).first() {
        warn!("extrapolating: no row of the estimator has {first}");
    }
    if let Some(warning) = estimator.report().and_then(FitReport::warning) {
        warn!("{warning}");
    }
    Ok(())
}

fn limits(arguments: &Arguments) -> Limits {
    let Arguments { max_latency, max_macs, max_params, max_memory, .. } = arguments;
    let limits = [(LATENCY, max_latency), ("macs", max_macs), ("params", max_params), ("memory", max_memory)];
    limits.into_iter().filter_map(|(name, bound)| Some((name.to_string(), (*bound)?))).collect()
}

fn run_facts(report: &SearchReport, seconds: f64, threads: usize) -> BTreeMap<String, Value> {
    let facts = [
        ("seconds", json!(seconds)),
        ("candidates", json!(report.candidates)),
        ("threads", json!(threads)),
        ("unix_seconds", json!(unix_seconds())),
    ];
    facts.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

fn document(report: &SearchReport, found: &Found, seconds: f64) -> Value {
    json!({
        "best": printed(&report.best), "selected_on": found.selected_on, "min_top1": found.min_top1,
        "evaluated": found.evaluated, "limit_kept": found.limit_kept, "candidates": report.candidates, "seconds": seconds,
        "candidates_per_second": per_second(report, seconds).round(), "front": found.front.iter().map(printed).collect::<Vec<_>>(), "nearest_feasible": null,
        "interrupted": found.interrupted, "latency": found.latency, "extrapolated": found.extrapolated,
    })
}

/// A candidate as it is printed: each cost in a field of its own, latencies in milliseconds.
fn printed(candidate: &Candidate) -> Value {
    let fields = [
        ("accuracy", json!(candidate.accuracy())),
        ("accuracy_low", json!(candidate.accuracy_low())),
        ("accuracy_high", json!(candidate.accuracy_high())),
        ("accuracy_from", json!(candidate.accuracy_from)),
        ("latency_ms", json!(candidate.latency_ms())),
        ("latency_upper_ms", json!(candidate.latency_upper_ms())),
    ];
    let mut document = json!({
        "arch": candidate.arch, "macs": candidate.count("macs"), "params": candidate.count("params"),
        "peak_activation_bytes": candidate.count("memory"),
    });
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        document[field] = value;
    }
    document
}

/// Candidates a second; times are in whole milliseconds.
fn per_second(report: &SearchReport, seconds: f64) -> f64 {
    report.candidates as f64 / seconds.max(1e-3)
}

/// The line of the expected accuracy, at most 100 %, and of its source.
fn accuracy(best: &Candidate, found: &Found) -> String {
    let per_cent = |share: f64| 100.0 * share.clamp(0.0, 1.0);
    let mut line = format!("accuracy      {:.2} % expected", per_cent(best.accuracy()));
    if let (Some(low), Some(high)) = (best.accuracy_low(), best.accuracy_high()) {
        line += &format!(", {:.2} to {:.2} % (95 %)", per_cent(low), per_cent(high));
    }
    let of_best = found.evaluated.iter().find(|evaluated| evaluated.arch == best.arch);
    match (best.accuracy_from, of_best) {
        (Some(AccuracyFrom::PredictorAndValidation), Some(counted)) => {
            let count = found.evaluated.len();
            let top1 = per_cent(counted.top1);
            let n = counted.n;
            line += &format!(
                "\n              best of {count} evaluated: {top1:.2} % of {n} validation images, shrunk for the choice"
            );
        }
        _ => line += "\n              by the predictor alone",
    }
    line
}

fn candidates(report: &SearchReport, found: &Found, seconds: f64) -> String {
    let line = format!("candidates    {} in {seconds:.2} s", report.candidates);
    match found.evaluated.len() {
        0 => format!("{line}, {:.0} a second", per_second(report, seconds)),
        count => format!("{line}, {count} of them evaluated"),
    }
}

fn describe(report: &SearchReport, found: &Found, seconds: f64) -> String {
    let best = &report.best;
    let mut lines = vec![
        format!("arch          {}", best.arch),
        accuracy(best, found),
        match (best.latency_ms(), best.latency_upper_ms()) {
            (Some(latency), Some(upper)) => {
                let from = found.latency.as_ref().map_or_else(String::new, |from| format!(" ({from})"));
                format!("latency       {latency:.4} ms, at most {upper:.4} ms{from}")
            }
            _ => "latency       not known, for no table was given".to_string(),
        },
        format!("MACs          {}", best.count("macs")),
        format!("parameters    {}", best.count("params")),
        format!("activations   {} bytes at most", best.count("memory")),
        candidates(report, found, seconds),
    ];
    if let Some(share) = found.limit_kept {
        lines.push(format!("limit         kept with a probability of {:.0} %", 100.0 * share));
    }
    for candidate in &found.front {
        let accuracy = 100.0 * candidate.accuracy().clamp(0.0, 1.0);
        lines.push(format!(
            "front         {:.4} ms  {accuracy:.2} %  {}",
            candidate.latency_ms().unwrap_or_default(),
            candidate.arch
        ));
    }
    lines.join("\n")
}
