//! `measure PLAN.jsonl ROWS.jsonl`: the program for a small device. Reads a plan that `extract measure --plan-only`
//! wrote, times what it lists, and appends a row for each visit; `extract measure --rows` makes a table of them.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use base::Error;
use base::timing::unix_seconds;
use extract::Result;
use extract::latency::{
    Campaign, Conditions, DeviceFacts, MeasureContext, MeasurePlan, MonotonicStopwatch, NativeEngine,
    Progress, RowsLog, Session, run_plan,
};
use kernels::Backend;

// as a deployed program has it: the allocator decides where buffers come to lie
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HELP: &str = "\
Times the layers and sub-networks that a plan lists on this device.

Usage: measure PLAN.jsonl ROWS.jsonl [--device-name NAME] [--quiet]

  PLAN.jsonl  what `extract measure --plan-only PLAN.jsonl` wrote
  ROWS.jsonl  a row is appended when it is done, and synced once a second: after a power cut the same command goes on

Then, where extract is: extract measure --space SPACE --rows ROWS.jsonl --out TABLE.json
The environment variable ONCE_FOR_ALL_KERNELS (avx512, avx2, portable, reference) chooses the kernels by hand.
Exit codes: 0 done, 1 failed or the plan's time is up before all is measured, 2 wrong usage.
";

/// The command line's values.
struct Arguments {
    plan: String,
    rows: String,
    device_name: Option<String>,
    quiet: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let asks = |flags: [&str; 2]| words.iter().any(|word| flags.contains(&word.as_str()));
    if asks(["--help", "-h"]) {
        return said(HELP);
    }
    if asks(["--version", "-V"]) {
        return said(&format!("measure {}\n", env!("CARGO_PKG_VERSION")));
    }
    let Some(arguments) = parse(&words) else {
        tell(&format!("error: expected PLAN.jsonl and ROWS.jsonl, got {words:?}\n\n{HELP}"));
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Option<Arguments> {
    let mut files = Vec::new();
    let mut device_name = None;
    let mut quiet = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quiet" => quiet = true,
            "--device-name" => {
                device_name = Some(words.next().filter(|name| !name.trim().is_empty())?.clone())
            }
            flag if flag.starts_with('-') => return None,
            file => files.push(file.to_string()),
        }
    }
    let [plan, rows] = <[String; 2]>::try_from(files).ok()?;
    Some(Arguments { plan, rows, device_name, quiet })
}

/// Prints a message; the work goes on even if nobody reads it.
fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn said(text: &str) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Measures the plan; returns whether all of it was measured.
fn run(arguments: &Arguments) -> Result<bool> {
    let plan = MeasurePlan::read(Path::new(&arguments.plan))?;
    if plan.engine != "native" {
        let error = Error::invalid(&arguments.plan, "engine", "native, which this program has", &plan.engine);
        return Err(error.and_then_do("plan for --engine native").into());
    }
    let plan = &plan;
    let backend = match std::env::var("ONCE_FOR_ALL_KERNELS") {
        Ok(name) => Backend::named(&name)?,
        Err(_) => Backend::detect(),
    };
    let engine = NativeEngine::new(&backend, plan.threads, plan.batch);
    let device = DeviceFacts::this_machine(arguments.device_name.as_deref());
    let session = Session { unix_seconds: unix_seconds(), conditions: Conditions::now() };
    let mut log = RowsLog::open(Path::new(&arguments.rows), plan.setting(&device, &engine), session)?;
    let mut shown = None;
    let mut progress = |progress: Progress<'_>| {
        let Progress { round, finished, subjects, .. } = progress;
        if !arguments.quiet && shown != Some((round, subjects)) {
            shown = Some((round, subjects));
            tell(&format!("round {round}: {finished} of {subjects} done\n"));
        }
    };
    let mut stopwatch = MonotonicStopwatch::new();
    let stop = AtomicBool::new(false);
    let mut bench =
        MeasureContext { engine: &engine, stopwatch: &mut stopwatch, conditions: Conditions::now };
    let campaign = run_plan(plan, &mut bench, &mut log, &mut progress, &stop)?;
    report(arguments, plan, &campaign);
    Ok(campaign.unfinished == 0)
}

fn report(arguments: &Arguments, plan: &MeasurePlan, campaign: &Campaign) {
    let Campaign { unfinished, spent, .. } = campaign;
    if *unfinished > 0 {
        tell(&format!(
            "the plan's time is up: {unfinished} layers and sub-networks are not known well enough yet; the same \
             command goes on\n"
        ));
    }
    if !arguments.quiet {
        let known = plan.layers.values().any(|layer| layer.known);
        let missing = if known { " --missing" } else { "" };
        let rows = &arguments.rows;
        let seconds = spent.as_secs_f64();
        let space = &plan.space;
        tell(&format!(
            "{seconds:.1} s; next, where extract is:\n  extract measure --space {space} --rows {rows} --out TABLE.json{missing}\n"
        ));
    }
}
