//! The command line: parses arguments, calls the library, prints, and turns errors into exit codes.
//!
//! Results go to stdout, progress and messages to stderr.

mod compare;
mod engine;
mod explain;
mod export;
mod fit;
mod import;
mod inspect;
mod measure;
mod plot;
mod predict;
mod search;
mod shell;
mod strategies;
mod study;
mod table;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use ::search::Error as Refusal;
use base::ErrorKind;
use base::document::printed;
use clap::{Parser, Subcommand};
use command::{
    Common, Ending, WRONG_USAGE, exit_code, kind_of, log_events, look_at, on_pool, print_lines,
    with_environment,
};
use serde_json::json;
use tracing::error;

use kernels::{Backend, Precision};
use network::checkpoint::Supernet;
use network::data::{Catalogue, Dataset};

/// Measures a device's latencies, finds the best sub-network of a once-for-all network within limits, and
/// exports it, verified.
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
    Search(Box<search::Arguments>),
    Study(study::Arguments),
    Strategies(strategies::Arguments),
    Explain(explain::Arguments),
    Compare(compare::Arguments),
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
            Self::Study(arguments) => Some(&arguments.common),
            Self::Strategies(arguments) => Some(&arguments.common),
            Self::Explain(arguments) => Some(&arguments.common),
            Self::Compare(arguments) => Some(&arguments.common),
            Self::Export(arguments) => Some(&arguments.common),
            Self::Verify(arguments) => Some(&arguments.common),
            Self::Predict(arguments) => Some(&arguments.common),
            Self::Inspect(arguments) => Some(&arguments.common),
            Self::Plot(arguments) => Some(&arguments.common),
            Self::Completion(_) | Self::Man(_) => None,
        }
    }

    fn run(&self) -> anyhow::Result<Ending> {
        match self {
            Self::Measure(arguments) => measure::run(arguments),
            Self::Table(arguments) => table::run(arguments),
            Self::Import(arguments) => import::run(arguments),
            Self::Fit(arguments) => fit::run(arguments),
            Self::Search(arguments) => search::run(arguments),
            Self::Study(arguments) => study::run(arguments),
            Self::Strategies(arguments) => strategies::run(arguments),
            Self::Explain(arguments) => explain::run(arguments),
            Self::Compare(arguments) => compare::run(arguments),
            Self::Export(arguments) => export::run(arguments),
            Self::Verify(arguments) => verify::run(arguments),
            Self::Predict(arguments) => predict::run(arguments),
            Self::Inspect(arguments) => inspect::run(arguments),
            Self::Plot(arguments) => plot::run(arguments),
            Self::Completion(arguments) => arguments.run::<Cli>(),
            Self::Man(arguments) => arguments.run::<Cli>(),
        }
    }
}

/// Opens a data set for a supernet; says how many images there are, and which are left out. Other classes than the
/// supernet's are refused before any image is decoded.
fn open_data(
    output: &Common,
    spec: &str,
    dataset_toml: Option<&Path>,
    supernet: &Supernet,
) -> anyhow::Result<Dataset> {
    let catalogue = Catalogue::open(spec, dataset_toml)?;
    supernet.check_classes(&catalogue)?;
    look_at(output, catalogue)
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
    fn backend(&self, precision: Precision) -> anyhow::Result<Backend> {
        let chosen = Backend::on_device(&self.device, precision)?;
        with_environment(chosen)
    }
}

/// The kernels that the environment asks for, else the fastest.
fn backend() -> anyhow::Result<Backend> {
    with_environment(Backend::detect())
}

/// Runs the requested command.
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
    let threads = cli.command.common().and_then(|common| common.threads);
    let quiet = cli.command.common().is_some_and(|common| common.quiet);
    let ended = log_events(quiet).and_then(|()| on_pool(threads, || cli.command.run()));
    ExitCode::from(exit_code(ended.map_err(|error| report(&error, json))))
}

/// Prints an error to stderr, and to stdout what scripts read of it; its kind.
fn report(error: &anyhow::Error, json: bool) -> ErrorKind {
    error!("{error}");
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
        let _ = print_lines(&printed(&document));
    }
    known.map_or_else(|| kind_of(error), extract::Error::kind)
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
        let words = format!("{search} --max-latency -1ms");
        let negative = Cli::try_parse_from(words.split_whitespace()).err().expect("below 0").to_string();
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
