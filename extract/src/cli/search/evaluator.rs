//! A search whose candidates another program evaluates.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ::search::Error as Refusal;
use base::timing::Stopwatch;
use command::{Ending, stop_flag, wrote};
use extract::search::{
    AccuracyFrom, CandidateResult, EvaluatedSearch, Failure, Found, Limits, LogSetting, ProcessConfig,
    ProcessEstimator, Program, SearchReport, StrategyChoice, TOP1,
};
use serde_json::json;
use space::SearchSpace;
use tracing::{info, warn};

use super::devices::Devices;
use super::goal::Goal;
use super::time_budget::{TimeBudget, time};
use super::{Arguments, Logged};
use crate::cli::table::space_at;

#[derive(clap::Args)]
pub struct EvaluatorFlags {
    /// Instead of an estimator a program that evaluates candidates, with its arguments; for each it reads a line of JSON and
    /// writes one, such as `supernet trial --serve` does. Its words are split as by a shell, which is not used
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["estimator", "supernet", "data", "dataset_toml", "val_images", "rounds", "accuracy", "extrapolate"], requires = "budget")]
    evaluator: Option<String>,
    /// Copies of the program that run at once. The strategy proposes as many candidates together unless --set batch=N says
    /// otherwise, so that another number may find another sub-network
    #[arg(long, value_name = "N", default_value_t = 1, requires = "evaluator", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Time for one candidate, such as 90s, 10m or 2h; a copy that takes longer is ended, and the candidate tried again
    #[arg(long, value_name = "TIME", requires = "evaluator", value_parser = time)]
    timeout: Option<Duration>,
    /// Tries of a candidate before it counts as failed
    #[arg(long, value_name = "N", default_value_t = 2, requires = "evaluator", value_parser = clap::value_parser!(u8).range(1..))]
    tries: u8,
}

/// Searches with the program, and writes what is found.
pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let flags = &arguments.evaluator;
    let space = space_at(&arguments.space, &arguments.resolutions)?;
    let goal = arguments.goal.goal(arguments.validation.least.is_some())?;
    let limits = arguments.devices.limits()?;
    let limits = match arguments.validation.least {
        Some(least) => limits.and(TOP1, least),
        None => limits,
    };
    let devices = arguments.devices.read(&space)?;
    if arguments.front && goal.name != TOP1 {
        let error = base::Error::invalid("--front", "goal", "top1, against latency", &goal.name);
        return Err(error.and_then_do("leave out --front").into());
    }
    let strategy = arguments.strategy.for_evaluations(usize::from(flags.workers))?;
    let started = Stopwatch::start();
    let parts = Parts { limits: &limits, devices: &devices, strategy: &strategy };
    let Some(Outcome { report, failures, gave_up, ended }) = evaluated(arguments, &space, &goal, &parts)?
    else {
        info!("interrupted before a candidate was evaluated that keeps the limits");
        return Ok(Ending::Interrupted);
    };
    let seconds = started.elapsed_ms().round() / 1e3;

    let mut found = Found::new(&space, limits, arguments.seed, report.best.clone());
    found.metrics.extend(goal.metrics.iter().map(|metric| (metric.name.clone(), metric.into())));
    if arguments.front {
        found.front = report.front.clone();
    }
    found.min_top1 = arguments.validation.least;
    devices.describe(&space, &mut found)?;
    found.interrupted = report.interrupted;
    found.goal = goal.written();
    found.strategy = Some(strategy.kind.name.to_string());
    found.proof = super::proof(&report).map(str::to_string);
    found.evaluator = flags.evaluator.clone();
    found.run = super::run_facts(&report, seconds, rayon::current_num_threads());
    found.run.insert("failures".to_string(), json!(failures));
    found.write(&arguments.out)?;
    wrote(&arguments.out);
    if failures > 0 {
        warn!("{failures} candidates could not be evaluated");
    }
    super::say_how_it_goes_on(arguments, &found);
    let mut document = super::document(&report, &found, strategy.kind.name, ended, seconds);
    document["failures"] = json!(failures);
    arguments.common.print(&document, || described(&report, &found, &goal, seconds))?;
    if let Some(error) = gave_up {
        return Err(error.into());
    }
    Ok(if report.interrupted { Ending::Interrupted } else { Ending::Done })
}

/// Limits, devices and strategy of a search.
struct Parts<'a> {
    limits: &'a Limits,
    devices: &'a Devices,
    strategy: &'a StrategyChoice,
}

/// A search's result, the number of candidates that failed, and the last failure if they were too many.
struct Outcome {
    report: SearchReport,
    failures: usize,
    gave_up: Option<base::Error>,
    /// Why it ended.
    ended: &'static str,
}

/// Searches; `None` if it was interrupted before anything was found.
fn evaluated(
    arguments: &Arguments,
    space: &SearchSpace,
    goal: &Goal,
    parts: &Parts<'_>,
) -> anyhow::Result<Option<Outcome>> {
    let Parts { limits, devices, strategy } = *parts;
    let flags = &arguments.evaluator;
    let stop = stop_flag()?;
    let command = flags.evaluator.as_deref().unwrap_or_default();
    let program = Program::from_command(command)?;
    let setting = log_setting(space, arguments.seed, goal, command);
    let hashes = devices.hashes();
    let setting = hashes.into_iter().fold(setting, |setting, (name, hash)| setting.with_input(&name, hash));
    let time = TimeBudget::start(arguments.strategy.time, &stop);
    let bar = arguments.common.plain_bar(strategy.evaluations.unwrap_or_default() as u64);
    let config = ProcessConfig {
        workers: usize::from(flags.workers),
        timeout: flags.timeout,
        tries: usize::from(flags.tries),
        seed: arguments.seed,
        ..ProcessConfig::default()
    };
    let report = |result: &CandidateResult<'_>| {
        if let CandidateResult::Failure(Failure { arch, reason }) = result {
            warn!("{arch}: {reason}");
        }
        bar.inc(1);
    };
    let estimator = ProcessEstimator::start(space, goal.metrics.clone(), program, config, report)?;
    // only now: a command that cannot be started leaves no log
    let mut log = Logged { path: arguments.log.as_deref(), setting }.open(space, &[])?;
    let search = EvaluatedSearch {
        index: &devices.index,
        devices: &devices.named,
        estimator: &estimator,
        goals: &goal.all(),
        limits,
        seed: arguments.seed,
        strategy,
        stop: &stop,
    };
    let report = match &mut log {
        Some(log) => search.run(log),
        None => search.run(&mut ()),
    };
    bar.finish_and_clear();
    let outcome = Ran { report, failures: &estimator.failures(), gave_up: estimator.gave_up(), time };
    outcome.settled(stop.load(Ordering::Relaxed), arguments.strategy.time)
}

/// How a search with a program ended.
struct Ran<'a> {
    report: ::search::Result<SearchReport>,
    failures: &'a [Failure],
    gave_up: Option<base::Error>,
    time: TimeBudget,
}

impl Ran<'_> {
    /// The result; `None` if the search was interrupted before anything was found.
    fn settled(self, stopped: bool, given: Option<Duration>) -> anyhow::Result<Option<Outcome>> {
        let Self { report, failures, gave_up, time } = self;
        if let (Some(error), Err(_)) = (&gave_up, &report) {
            anyhow::bail!("{error}");
        }
        if stopped && matches!(report, Err(Refusal::NoneEvaluated { .. })) {
            if let (Some(given), true) = (given, time.is_over()) {
                let expected = "enough to evaluate a candidate that keeps the limits";
                return Err(base::Error::invalid("--time", "time", expected, format!("{given:?}")).into());
            }
            return Ok(None);
        }
        if let (Err(error @ Refusal::NoneEvaluated { .. }), Some(last)) = (&report, failures.last()) {
            anyhow::bail!("{error}; the last failure was of {}: {}", last.arch, last.reason);
        }
        let mut report = report.map_err(extract::Error::from)?;
        let ended = super::ended(&report, &time);
        time.settle(&mut report);
        let SearchReport { best, front, top, .. } = &mut report;
        for candidate in std::iter::once(best).chain(front).chain(top) {
            candidate.accuracy_from = candidate.mean(TOP1).map(|_| AccuracyFrom::Evaluator);
        }
        Ok(Some(Outcome { report, failures: failures.len(), gave_up, ended }))
    }
}

/// The problem that the logged values belong to.
fn log_setting(space: &SearchSpace, seed: u64, goal: &Goal, command: &str) -> LogSetting {
    let setting = LogSetting::new(space, seed).with_input("evaluator", command);
    goal.metrics.iter().cloned().fold(setting, LogSetting::with_metric)
}

fn described(report: &SearchReport, found: &Found, goal: &Goal, seconds: f64) -> String {
    let mut lines = vec![super::describe(report, found, seconds)];
    let value = report.best.mean(&goal.name);
    if let Some(value) = value.filter(|_| goal.name != TOP1) {
        lines.push(format!("goal          {} {value}", goal.name));
    }
    lines.join("\n")
}
