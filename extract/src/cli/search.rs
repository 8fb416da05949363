//! `extract search`: the most accurate sub-network under a device's limits.

mod about_table;
pub mod devices;
mod evaluator;
mod goal;
mod strategy;
mod time_budget;
mod validation;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::search::Error as Refusal;
use base::document::rounded;
use base::file::check_place;
use base::timing::{Stopwatch, unix_seconds};
use command::{Common, Ending, not_an_input, result_path, stop_flag, wrote};
use extract::accuracy::{AccuracyEstimator, FitReport};
use extract::search::{
    AccuracyFrom, AccuracySearch, Candidate, Ended, Evaluated, Found, LATENCY, Limits, LogFile, LogSetting,
    MetricValue, Proof, SearchConfig, SearchReport, TOP1, ValidatedSearch, ValidationProblem, device_of,
    judge_by_predictor,
};
use network::model_folder::SelectedOn;
use serde_json::{Value, json};
use space::{Extent, SearchSpace};
use tracing::{info, warn};

use super::backend;
use super::table::space_at;
use devices::Devices;
use time_budget::TimeBudget;

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
    #[arg(long, value_name = "FILE", required_unless_present = "evaluator")]
    estimator: Option<PathBuf>,
    #[command(flatten)]
    evaluator: evaluator::EvaluatorFlags,
    #[command(flatten)]
    goal: goal::GoalFlags,
    #[command(flatten)]
    devices: devices::DeviceFlags,
    /// Decides all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Search tighter latency limits too, and keep the front of accuracy against latency, of several devices that of the
    /// first by name
    #[arg(long, requires = devices::ANY_TABLE)]
    front: bool,
    #[command(flatten)]
    strategy: strategy::StrategyFlags,
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

/// Refuses an output in the place of an input, or where it cannot be written.
fn check_paths(arguments: &Arguments) -> anyhow::Result<()> {
    let inputs = arguments.estimator.iter().chain(&arguments.log);
    let inputs = inputs.chain(arguments.devices.inputs()).chain(arguments.validation.inputs());
    not_an_input(&arguments.out, &inputs.collect::<Vec<_>>())?;
    if arguments.log.as_deref().is_some_and(|log| same_place(log, &arguments.out)) {
        anyhow::bail!("--log {}: expected another file than --out", arguments.out.display());
    }
    Ok(check_place(&arguments.out)?)
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    check_paths(arguments)?;
    match &arguments.estimator {
        Some(estimator) => predicted(arguments, estimator),
        None => evaluator::run(arguments),
    }
}

/// Searches with an estimator's predictions.
fn predicted(arguments: &Arguments, estimator: &Path) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let threads = rayon::current_num_threads();
    let stop = stop_flag()?;
    let space = space_at(&arguments.space, &arguments.resolutions)?;
    let estimator = AccuracyEstimator::read(estimator)?.with_backend(&backend()?)?;
    check_estimator(arguments, &estimator, &space)?;
    let limits = arguments.devices.limits()?;
    let goal = arguments.goal.goal(arguments.validation.least.is_some())?;
    let limits = accurate_enough(arguments, &goal, limits, &estimator)?;
    let devices = arguments.devices.read(&space)?;
    let front_limits = if arguments.front { strategy::FRONT_LIMITS } else { 0 };
    let config = SearchConfig { seed: arguments.seed, front_limits, ..SearchConfig::default() };
    let least_top1 = arguments.validation.least;
    let strategy = arguments.strategy.choice(arguments.front)?;
    let problem = ValidationProblem {
        index: &devices.index,
        devices: &devices.named,
        limits: &limits,
        config: &config,
        strategy: strategy.as_ref(),
        cheapest: goal.cheapest()?,
        least_top1,
        stop: &stop,
    };
    let setting = log_setting(&problem, &estimator, &devices)?;
    let started = Stopwatch::start();
    let time = TimeBudget::start(arguments.strategy.time, &stop);
    let Searched { mut report, evaluated, selected_on, supernet } =
        searched(arguments, &problem, &estimator, setting)?;
    let ended = ended(&report, &time);
    time.settle(&mut report);
    if !goal.is_cost {
        expect_as_the_best(&mut report, &estimator);
    }
    let seconds = started.elapsed_ms().round() / 1e3;

    let limits = arguments.devices.limits()?;
    let mut found = Found::new(&space, limits, arguments.seed, report.best.clone());
    found.goal = goal.written();
    if arguments.front {
        found.front = report.front.clone();
    }
    (found.min_top1, found.evaluated, found.selected_on) = (least_top1, evaluated, selected_on);
    devices.describe(&space, &mut found)?;
    found.interrupted = report.interrupted;
    found.strategy = strategy.map(|choice| choice.kind.name.to_string());
    found.proof = proof(&report).map(str::to_string);
    (found.estimator, found.supernet) = (estimator.hash()?, supernet);
    found.run = run_facts(&report, seconds, threads);
    found.write(&arguments.out)?;
    wrote(&arguments.out);
    say_what_is_left(arguments, &estimator, &found);
    let strategy = arguments.strategy.name();
    output
        .print(&document(&report, &found, strategy, ended, seconds), || describe(&report, &found, seconds))?;
    Ok(if report.interrupted { Ending::Interrupted } else { Ending::Done })
}

/// Turns what the predictor says into what it expects, as for candidates: the bound, and the values of the trace.
fn expect_as_the_best(report: &mut SearchReport, estimator: &AccuracyEstimator) {
    report.bound = report.bound.map(|bound| estimator.expected(bound));
    for improvement in &mut report.trace {
        improvement.value = rounded(estimator.expected(improvement.value), 9);
    }
}

/// The limits, and where a cost is minimized the least prediction whose interval reaches the least accuracy.
fn accurate_enough(
    arguments: &Arguments,
    goal: &goal::Goal,
    limits: Limits,
    estimator: &AccuracyEstimator,
) -> anyhow::Result<Limits> {
    let Some(cost) = goal.cheapest()? else { return Ok(limits) };
    let Some(least) = arguments.validation.least else {
        let expected = "a least accuracy, such as --min top1=0.9";
        let error = base::Error::invalid(format!("--minimize {cost}"), "--min", expected, "none");
        return Err(error.and_then_do("without one the smallest sub-network is the answer").into());
    };
    if arguments.front {
        let error = base::Error::invalid(format!("--minimize {cost}"), "--front", "one of both", "both");
        return Err(error
            .and_then_do("a front of accuracy and latency has the fastest for each accuracy")
            .into());
    }
    let prediction = estimator.least_prediction(least).ok_or_else(|| {
        base::Error::invalid("limit on top1", "estimator", "one whose error is known", "an imported one")
    })?;
    if prediction <= 0.0 {
        return Ok(limits);
    }
    if prediction.is_infinite() {
        let expected = "one that the estimator's error leaves room for";
        let error = base::Error::invalid("--min", "top1", expected, least);
        return Err(error.and_then_do("ask for less, or fit the estimator to more rows").into());
    }
    Ok(limits.and(TOP1, prediction))
}

/// Says what is not known of the result, and how an interrupted search goes on.
fn say_what_is_left(arguments: &Arguments, estimator: &AccuracyEstimator, found: &Found) {
    if estimator.report().is_none() && found.evaluated.is_empty() {
        info!("note: the estimator was imported, so how wrong it is, and about which supernet, is not known");
    }
    say_how_it_goes_on(arguments, found);
}

fn say_how_it_goes_on(arguments: &Arguments, found: &Found) {
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
    devices: &Devices,
) -> anyhow::Result<LogSetting> {
    let setting = LogSetting::new(problem.index.space(), problem.config.seed)
        .with_metric(AccuracySearch::metric())
        .with_input("estimator", estimator.hash()?)
        .with_input("kernels", backend()?.name());
    Ok(devices.hashes().into_iter().fold(setting, |setting, (name, hash)| setting.with_input(&name, hash)))
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
    let ValidationProblem { index, devices, limits, config, strategy, cheapest, least_top1, stop } = *problem;
    let objective = estimator;
    let search = AccuracySearch { index, devices, objective, limits, config, strategy, cheapest, stop };
    let report = match log.open(index.space(), &[])? {
        Some(mut log) => search.run(&mut log),
        None => search.run(&mut ()),
    };
    if let (Err(Refusal::NoneEvaluated { .. }), Some(least)) = (&report, least_top1) {
        let expected = "an accuracy that some sub-network within the limits has for certain";
        let error = base::Error::invalid("--min", "top1", expected, least);
        return Err(error.and_then_do("ask for less, or relax the limits").into());
    }
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

fn run_facts(report: &SearchReport, seconds: f64, threads: usize) -> BTreeMap<String, Value> {
    let facts = [
        ("seconds", json!(seconds)),
        ("candidates", json!(report.candidates)),
        ("threads", json!(threads)),
        ("unix_seconds", json!(unix_seconds())),
        ("command", json!(std::env::args().skip(1).collect::<Vec<_>>())),
    ];
    facts.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// What the strategy proved.
fn proof(report: &SearchReport) -> Option<&'static str> {
    (report.ended == Ended::Finished(Proof::Best)).then_some("optimal")
}

fn ended(report: &SearchReport, time: &TimeBudget) -> &'static str {
    match report.ended {
        Ended::Stopped if time.is_over() => "time",
        Ended::Finished(_) => "finished",
        Ended::Budget => "budget",
        Ended::Stopped => "interrupted",
    }
}

fn document(report: &SearchReport, found: &Found, strategy: &str, ended: &str, seconds: f64) -> Value {
    json!({
        "strategy": strategy, "goal": found.goal.as_deref().unwrap_or(TOP1), "ended": ended, "proof": found.proof, "bound": report.bound,
        "best": printed(&report.best), "selected_on": found.selected_on, "min_top1": found.min_top1,
        "evaluated": found.evaluated, "limit_kept": found.limit_kept, "candidates": report.candidates, "seconds": seconds,
        "candidates_per_second": per_second(report, seconds).round(), "front": found.front.iter().map(printed).collect::<Vec<_>>(), "nearest_feasible": null,
        "interrupted": found.interrupted, "latency": found.latency, "extrapolated": found.extrapolated,
        "devices": found.devices, "trace": report.trace, "hypervolume": hypervolume(found),
    })
}

/// The share of the rectangle between an accuracy of 0 and 1 and a latency of 0 and the limit, or without one the slowest of
/// the front, that the front dominates; `None` without a front.
fn hypervolume(found: &Found) -> Option<f64> {
    let points: Option<Vec<[f64; 2]>> =
        found.front.iter().map(|one| Some([one.latency_ms()?, one.accuracy().clamp(0.0, 1.0)])).collect();
    let points = points.filter(|points| !points.is_empty())?;
    // that of several devices which a candidate's latency is of
    let named = found.best.values.keys().find(|name| device_of(name).is_some()).map(String::as_str);
    let limit = found.limits.of(LATENCY).or_else(|| found.limits.of(named?)).map(|us| us / 1e3);
    let most = limit.unwrap_or_else(|| points.iter().map(|[latency, _]| *latency).fold(0.0, f64::max));
    let shares: Vec<Vec<f64>> =
        points.iter().map(|[latency, accuracy]| vec![1.0 - latency / most, *accuracy]).collect();
    Some(rounded(study::hypervolume::hypervolume(&shares), 9))
}

/// A candidate as it is printed: each cost in a field of its own, latencies in milliseconds.
fn printed(candidate: &Candidate) -> Value {
    let fields = [
        ("accuracy", json!(candidate.mean(TOP1))),
        ("accuracy_low", json!(candidate.accuracy_low())),
        ("accuracy_high", json!(candidate.accuracy_high())),
        ("accuracy_from", json!(candidate.accuracy_from)),
        ("latency_ms", json!(candidate.latency_ms())),
        ("latency_upper_ms", json!(candidate.latency_upper_ms())),
    ];
    let mut document = json!({
        "arch": candidate.arch, "macs": candidate.count("macs"), "params": candidate.count("params"),
        "peak_activation_bytes": candidate.count("memory"), "metrics": metrics(candidate),
    });
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_null()) {
        document[field] = value;
    }
    document
}

/// The values by metric.
fn metrics(candidate: &Candidate) -> BTreeMap<&str, Value> {
    let values = candidate.values.iter().map(|(name, value)| {
        let MetricValue { mean, low, high, extrapolated } = value;
        let form = json!({ "mean": mean, "low": low, "high": high, "extrapolated": extrapolated });
        (name.as_str(), form)
    });
    values.collect()
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
        (Some(AccuracyFrom::Evaluator), _) => line += "\n              by the evaluator, of its validation",
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

/// The lines of the latencies: on the only device or the one without a name, then on named ones.
fn latencies(best: &Candidate, found: &Found) -> Vec<String> {
    let mut lines = Vec::new();
    if let (Some(from), Some(latency), Some(upper)) =
        (&found.latency, best.latency_ms(), best.latency_upper_ms())
    {
        lines.push(format!("latency       {latency:.4} ms, at most {upper:.4} ms ({from})"));
    }
    lines.extend(devices::lines(best, found));
    if lines.is_empty() {
        lines.push("latency       not known, for no table was given".to_string());
    }
    lines
}

fn describe(report: &SearchReport, found: &Found, seconds: f64) -> String {
    let best = &report.best;
    let mut lines = vec![format!("arch          {}", best.arch)];
    lines.extend(best.mean(TOP1).map(|_| accuracy(best, found)));
    lines.extend(latencies(best, found));
    lines.extend([
        format!("MACs          {}", best.count("macs")),
        format!("parameters    {}", best.count("params")),
        format!("activations   {} bytes at most", best.count("memory")),
        candidates(report, found, seconds),
    ]);
    match (&found.proof, report.bound) {
        (Some(_), _) => lines.push(match &found.goal {
            None => "proof         no sub-network within the limits has a higher prediction".to_string(),
            Some(goal) => format!("proof         no sub-network within the limits has a better {goal}"),
        }),
        (None, Some(bound)) if found.goal.is_none() => {
            lines.push(format!("proof         none: others may have up to {:.2} %", 100.0 * bound));
        }
        (None, Some(bound)) => lines.push(format!("proof         none: others may have {}", bound.abs())),
        (None, None) => {}
    }
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
