//! Compares whole sub-networks measured on this machine with a table, and adds them to it as a session.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use base::random::rng_for;
use base::timing::unix_seconds;
use command::{Ending, stop_flag, warn_of_interrupted};
use extract::latency::fitted::{Between, validation_of};
use extract::latency::{
    Compared, Comparison, Conditions, DeviceFacts, LatencyTable, LatencyValidation, MeasureConfig,
    MeasureContext, NetworkRow, Progress, Session, compare,
};
use serde_json::json;
use space::{Arch, SearchSpace, arch_file, sampler};
use tracing::{info, warn};

use super::Arguments;
use super::describe::{describe_validation, document};
use crate::cli::engine::show;

/// Seconds for each sub-network, and at least in all.
const SECONDS_EACH: f64 = 1.0;
const LEAST_SECONDS: f64 = 30.0;

pub fn validate(
    arguments: &Arguments,
    mut table: LatencyTable,
    path: &Path,
    space: &SearchSpace,
) -> anyhow::Result<Ending> {
    let compared = measured(arguments, &table, space)?;
    let (judges, validation) = judged(&compared);
    if !compared.met {
        warn!("the machine was never met undisturbed, so what was measured says nothing about the table");
    }
    let mut document = document(&table);
    document["validation"] = json!(validation);
    document["validation_typical"] = json!(typical(&table, space, &judges));
    document["networks"] = json!(compared.networks);
    document["met"] = json!(compared.met);
    let text = describe_networks(&compared.networks, &validation);
    if !arguments.no_add && !compared.interrupted {
        add(&mut table, path, &compared, space)?;
    }
    arguments.common.print(&document, || text)?;
    Ok(if compared.interrupted { Ending::Interrupted } else { Ending::Done })
}

/// The session becomes one of the table, unless the file may not be written.
fn add(
    table: &mut LatencyTable,
    path: &Path,
    compared: &Compared,
    space: &SearchSpace,
) -> anyhow::Result<()> {
    let read_only = std::fs::metadata(path).is_ok_and(|found| found.permissions().readonly());
    if read_only || !compared.met {
        let reason =
            if read_only { "it may not be written" } else { "the machine was never met undisturbed" };
        info!("{}: the session is not added, for {reason}", path.display());
        return Ok(());
    }
    table.add_judges(compared.log.rows(), space)?;
    table.write(path)?;
    info!("{}: the session was added", path.display());
    Ok(())
}

/// The sub-networks whose measurement counts; all of them if none does.
fn judged(compared: &Compared) -> (Vec<&NetworkRow>, LatencyValidation) {
    let all: Vec<&NetworkRow> = compared.networks.iter().collect();
    let accepted: Vec<&NetworkRow> = all.iter().filter(|network| network.took.accepted).copied().collect();
    let lost = all.len() - accepted.len();
    let judges = if accepted.is_empty() { all } else { accepted };
    // the table is of other sessions than these measurements
    let validation =
        LatencyValidation { unaccepted: lost, between: Between::Sessions, ..validation_of(&judges) };
    (judges, validation)
}

/// The measured latencies against the table's typical ones.
fn typical(table: &LatencyTable, space: &SearchSpace, judges: &[&NetworkRow]) -> serde_json::Value {
    let Some(fit) = table.fit_of(space) else { return serde_json::Value::Null };
    let factor = fit.typical_factor();
    let errors: Vec<f64> = judges
        .iter()
        .map(|network: &&NetworkRow| (factor * network.predicted_us / network.took.typical_us - 1.0).abs())
        .collect();
    let n = errors.len().max(1) as f64;
    let within = |bound: f64| errors.iter().filter(|error| **error <= bound).count() as f64 / n;
    json!({
        "n": errors.len(), "factor": factor, "mape": errors.iter().sum::<f64>() / n,
        "within_5pct": within(0.05), "within_10pct": within(0.1),
    })
}

fn measured(arguments: &Arguments, table: &LatencyTable, space: &SearchSpace) -> anyhow::Result<Compared> {
    let archs = archs(arguments, space)?;
    warn_of_interrupted(&arguments.arch);
    let backend = arguments.on.backend(table.engine.dtype.parse().unwrap_or_default())?;
    let threads = arguments.common.threads.map_or(table.engine.threads, usize::from);
    let engine = &*arguments.engine.open(&backend, threads, table.engine.batch)?;
    let device = DeviceFacts::this_machine(Some(&table.device.name)).computing_on(backend.gpu(), false);
    table.check_same_setting(&device, &engine.describe())?;
    let mut stopwatch = engine.stopwatch();
    let stop = stop_flag()?;
    let mut bench = MeasureContext { engine, stopwatch: stopwatch.as_mut(), conditions: Conditions::now };
    let bar = arguments.common.plain_bar(archs.len() as u64);
    let usual = (SECONDS_EACH * archs.len() as f64).max(LEAST_SECONDS);
    let budget = arguments.budget.map_or(Duration::from_secs_f64(usual), Duration::from_secs);
    let config = MeasureConfig { half_width: table.half_width, budget, ..MeasureConfig::default() };
    let session = Session { unix_seconds: unix_seconds(), conditions: Conditions::now() };
    let comparison = Comparison { table, space, archs: &archs, config: &config };
    let compared = compare(
        &comparison,
        session,
        &mut bench,
        &mut |progress: Progress<'_>| show(&bar, &progress),
        &stop,
    )?;
    bar.finish_and_clear();
    if compared.networks.len() < archs.len() {
        info!("{} sub-networks were not measured", archs.len() - compared.networks.len());
    }
    Ok(compared)
}

/// The named sub-networks, and random ones.
fn archs(arguments: &Arguments, space: &SearchSpace) -> anyhow::Result<Vec<Arch>> {
    let mut archs = arguments
        .arch
        .iter()
        .map(|text: &String| arch_file::read(space, text))
        .collect::<base::Result<Vec<_>>>()?;
    let mut rng = rng_for("validation", arguments.seed, &[]);
    archs.extend((0..arguments.validate).map(|_| sampler::random(space, &mut rng)));
    archs.sort();
    archs.dedup();
    Ok(archs)
}

fn describe_networks(networks: &[NetworkRow], validation: &LatencyValidation) -> String {
    let mut text = format!(
        "{:>12} {:>12} {:>8} {:>12} {:>9}  sub-network\n",
        "predicted ms", "measured ms", "error", "typical ms", "confirmed"
    );
    for network in networks {
        let predicted = network.predicted_us / 1e3;
        let measured = network.took.us / 1e3;
        let error = 100.0 * network.relative_error();
        let typical = network.took.typical_us / 1e3;
        let mark = if network.took.accepted { "" } else { "  (does not count)" };
        // writing to a string cannot fail
        let _ = writeln!(
            text,
            "{predicted:>12.4} {measured:>12.4} {error:>+7.1}% {typical:>12.4} {:>9}  {}{mark}",
            network.took.confirmed, network.arch
        );
    }
    text + "\n" + &describe_validation(validation, None)
}
