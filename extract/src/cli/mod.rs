//! The command line: parses arguments, calls the library, prints, and turns errors into exit codes.
//!
//! Results go to stdout, progress and messages to stderr.

mod engine;
mod export;
mod fit;
mod import;
mod inspect;
mod measure;
mod output;
mod plot;
mod predict;
mod search;
mod shell;
mod table;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::search::Error as Refusal;
use base::document::printed;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use serde_json::json;

use base::machine;
use kernels::{Kernels, Precision};
use network::checkpoint::Supernet;
use network::data::{Catalogue, Dataset, Looking};
use output::Output;

/// Chooses a sub-network of a once-for-all supernet for a device.
#[derive(Parser)]
#[command(name = "extract", version, about, max_term_width = 100)]
#[command(after_help = "Example, after `supernet train` and `supernet sample`:
  extract fit --accuracy accuracy.jsonl --out estimator.safetensors
  extract measure --space fashion --threads 1 --out table.json
  extract search --space fashion --estimator estimator.safetensors --latency-table table.json \\
    --max-latency 150us --out found.json
  extract export --supernet run/supernet.safetensors --arch found.json --data digits --out model

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 proved to have no solution, 4 verification failed,
130 interrupted with the state saved.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Measure(measure::Arguments),
    Table(table::Arguments),
    Import(import::Arguments),
    Fit(fit::Arguments),
    Search(search::Arguments),
    Export(export::Arguments),
    Verify(verify::Arguments),
    Predict(predict::Arguments),
    Inspect(inspect::Arguments),
    Plot(plot::Arguments),
    Completion(shell::Completion),
    Man(shell::Man),
}

impl Command {
    fn common(&self) -> Option<&Common> {
        match self {
            Self::Measure(arguments) => Some(&arguments.common),
            Self::Table(arguments) => Some(arguments.common()),
            Self::Import(arguments) => Some(arguments.common()),
            Self::Fit(arguments) => Some(&arguments.common),
            Self::Search(arguments) => Some(&arguments.common),
            Self::Export(arguments) => Some(&arguments.common),
            Self::Verify(arguments) => Some(&arguments.common),
            Self::Predict(arguments) => Some(&arguments.common),
            Self::Inspect(arguments) => Some(&arguments.common),
            Self::Plot(arguments) => Some(&arguments.common),
            Self::Completion(_) | Self::Man(_) => None,
        }
    }

    fn run(&self) -> anyhow::Result<Outcome> {
        match self {
            Self::Measure(arguments) => measure::run(arguments),
            Self::Table(arguments) => table::run(arguments),
            Self::Import(arguments) => import::run(arguments),
            Self::Fit(arguments) => fit::run(arguments),
            Self::Search(arguments) => search::run(arguments),
            Self::Export(arguments) => export::run(arguments),
            Self::Verify(arguments) => verify::run(arguments),
            Self::Predict(arguments) => predict::run(arguments),
            Self::Inspect(arguments) => inspect::run(arguments),
            Self::Plot(arguments) => plot::run(arguments),
            Self::Completion(arguments) => shell::completion(arguments),
            Self::Man(arguments) => shell::man(arguments),
        }
    }
}

/// Looking at images for less than this leaves no index.
const WORTH_KEEPING: Duration = Duration::from_secs(1);

/// Flags of every command.
#[derive(Args)]
struct Common {
    /// One JSON document on stdout, nothing else there
    #[arg(long)]
    json: bool,
    /// No progress and no messages but errors
    #[arg(long)]
    quiet: bool,
    /// Threads to compute with [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// A reader of the path of a result. A lone dash is none: standard output has the command's own words.
fn result_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("a path is needed, for standard output has the command's own words; /dev/stdout, or ./- for a file of that name"),
        false => Ok(path),
    })
}

/// Refuses an output that would take an input's place.
fn not_an_input(out: &Path, inputs: &[&PathBuf]) -> anyhow::Result<()> {
    let same = |input: &&&PathBuf| {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        real(out).is_some_and(|out| real(input) == Some(out))
    };
    match inputs.iter().find(same) {
        Some(input) => anyhow::bail!("--out {}: expected another file than the input {0}", input.display()),
        None => Ok(()),
    }
}

/// How many validation images are counted on.
#[derive(Args)]
struct ValImages {
    /// Count on at most so many validation images, drawn with a constant seed [default: all]
    #[arg(
        long,
        value_name = "N",
        requires = "data",
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000_000)
    )]
    val_images: Option<usize>,
}

impl ValImages {
    /// The data set with as many.
    fn of(&self, dataset: Dataset) -> Dataset {
        match self.val_images {
            Some(most) => dataset.with_val_images(most),
            None => dataset,
        }
    }
}

/// Opens a data set for a supernet; says how many images there are, and which are left out. Other classes than the
/// supernet's are refused before any image is decoded.
fn open_data(
    output: &Output,
    (spec, dataset_toml): (&str, Option<&Path>),
    supernet: &Supernet,
) -> anyhow::Result<Dataset> {
    let catalogue = Catalogue::open(spec, dataset_toml)?;
    supernet.check_classes(&catalogue)?;
    let bar = output.bar(0);
    let looking = Looking::default().with_index_in(machine::cache_folder());
    let looking = looking.keeping_from(WORTH_KEEPING).telling(move |done, of| {
        if done == 1 {
            // of this split; another may have been looked at before
            bar.reset();
            bar.set_length(of as u64);
        }
        bar.set_position(done as u64);
        if done == of {
            bar.finish_and_clear();
        }
    });
    let dataset = catalogue.look_with(&looking)?;
    output.say(format_args!("{}", dataset.in_words()));
    dataset.warnings().iter().for_each(|warning| output.say(format_args!("warning: {warning}")));
    Ok(dataset)
}

/// Runs a command on the one thread pool, set up with the threads it asks for.
fn run_on_pool(command: &Command) -> anyhow::Result<Outcome> {
    let mut builder = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = command.common().and_then(|common| common.threads) {
        builder = builder.num_threads(usize::from(threads));
    }
    builder.build_global()?;
    let mut outcome = Ok(Outcome::Done);
    // On one of the pool's own threads: handing each small kernel to the pool from outside costs more.
    rayon::scope(|_| outcome = command.run());
    outcome
}

/// Where to compute.
#[derive(clap::Args)]
struct OnDevice {
    /// Where to compute: `cpu`, or `cuda:0` and so on for an NVIDIA GPU
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl OnDevice {
    /// The device's kernels; on a CPU those that the environment asks for, else the fastest.
    fn kernels(&self, precision: Precision) -> anyhow::Result<Kernels> {
        let chosen = Kernels::on_device(&self.device, precision)?;
        if chosen.gpu().is_some() { Ok(chosen) } else { kernels() }
    }
}

/// The kernels that the environment asks for, else the fastest.
fn kernels() -> anyhow::Result<Kernels> {
    match std::env::var("ONCE_FOR_ALL_KERNELS") {
        Ok(name) => Ok(Kernels::named(&name)?),
        Err(_) => Ok(Kernels::detect()),
    }
}

/// How a command ended without an error.
enum Outcome {
    Done,
    /// What could be done is done, and what failed is said.
    Partly,
    Interrupted,
}

/// Exit codes beside 0 and 1, as scripts know them.
const WRONG_USAGE: u8 = 2;
const INFEASIBLE: u8 = 3;
const VERIFICATION_FAILED: u8 = 4;
const INTERRUPTED: u8 = 130;

/// Runs the command that was asked for.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are no errors; printing can only fail when nobody reads
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(WRONG_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let json = cli.command.common().is_some_and(|common| common.json);
    let result = run_on_pool(&cli.command);
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Partly) => ExitCode::FAILURE,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => report(&error, json),
    }
}

/// Prints an error to stderr, and to stdout what scripts read of it.
fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    output::print_message(format_args!("error: {error}"));
    let known = error.downcast_ref::<extract::Error>();
    if json {
        let mut document = json!({ "error": format!("{error}") });
        match known {
            Some(extract::Error::Search(
                Refusal::Infeasible { nearest, .. } | Refusal::InfeasibleTogether { nearest, .. },
            )) => document["nearest_feasible"] = json!(nearest),
            Some(
                extract::Error::Search(Refusal::NotFound { closest, .. })
                | extract::Error::NotAccurate { closest, .. },
            ) => document["closest"] = json!(closest),
            _ => {}
        }
        // a reader that has closed the pipe has the exit code
        let _ = output::print_lines(printed(&document));
    }
    ExitCode::from(match known {
        Some(extract::Error::Search(Refusal::Infeasible { .. } | Refusal::InfeasibleTogether { .. })) => {
            INFEASIBLE
        }
        Some(extract::Error::VerificationFailed { .. }) => VERIFICATION_FAILED,
        _ => 1,
    })
}

/// A flag that Ctrl-C, a request to end and the loss of the terminal set; a second one ends the process at once, but for a
/// hangup, which shell and system may both send. Under `nohup` there are no hangups.
fn interrupt_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
    #[cfg(unix)]
    if !base::machine::ignores_hangups() {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, flag.clone())?;
    }
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parses(line: &str) -> bool {
        let line = line.split(" > ").next().unwrap_or(line);
        Cli::try_parse_from(line.split_whitespace().filter(|word| *word != "\\")).is_ok()
    }

    #[test]
    fn every_command_has_an_example_that_parses() {
        let command = Cli::command();
        command.clone().debug_assert();
        for command in command.get_subcommands() {
            let help = command.get_after_help().expect("an example").to_string();
            let examples = help.strip_prefix("Example:").expect("it says so");
            let examples = examples.split("\n\n").next().expect("the first paragraph").replace("\\\n", " ");
            for example in examples.lines().filter(|line| !line.trim().is_empty()) {
                assert!(parses(example), "{example}");
            }
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        let search = "extract search --space tiny --estimator e --latency-table t --out o";
        assert!(parses(search) && parses(&format!("{search} --max-latency 1.5ms --max-memory 64KiB")));
        let bare = "extract search --space tiny --estimator e --out o";
        assert!(
            parses(bare)
                && parses(&format!("{bare} --max-macs 500_000 --max-params 5e6 --max-memory 4000000"))
        );
        assert!(!parses(&format!("{bare} --max-latency 1ms")) && !parses(&format!("{bare} --front")));
        let refused = |amount: &str| {
            let words = format!("{search} --max-latency {amount}");
            Cli::try_parse_from(words.split_whitespace()).err().map(|error| error.to_string())
        };
        let negative = refused("-1ms").expect("below 0");
        assert!(
            negative.contains("expected an amount above 0") && negative.contains("got -1ms"),
            "{negative}"
        );
        for wrong in ["--max-latency 12", "--max-macs 5ms", "--threads 0", "--seed -1", "--limit 3"] {
            assert!(!parses(&format!("{search} {wrong}")), "{wrong}");
        }
        for wrong in ["extract", "extract fit", "extract measure --space tiny --out t --engine other"] {
            assert!(!parses(wrong), "{wrong}");
        }
    }
}
