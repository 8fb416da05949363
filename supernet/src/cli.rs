//! Parses arguments, reads the environment, prints, and chooses the exit code; the library does the rest.

mod arguments;
mod bench;
mod eval;
mod finetune;
mod import;
mod memory;
mod plan;
mod profile;
mod progress;
mod recipe;
mod sample;
mod shell;
mod space;
mod train;
mod trial;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use base::ErrorKind;
use base::document::printed;
use command::{Common, Ending, exit_code, kind_of, log_events, on_pool, print_lines};
use serde_json::json;
use tracing::error;

/// Trains a once-for-all network: one set of weights that serves every sub-network of a search space.
#[derive(Parser)]
#[command(name = "supernet", version, max_term_width = 100)]
#[command(after_help = "Example, on data that comes with the tool:
  supernet train --space tiny --data digits --out run --scale 0.05
  supernet eval --supernet run/supernet.safetensors --data digits --arch largest --arch smallest

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted with the state saved.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Space(space::Arguments),
    Train(train::Arguments),
    Recipe(recipe::Arguments),
    Plan(plan::Arguments),
    Eval(eval::Arguments),
    Sample(sample::Arguments),
    Trial(trial::Arguments),
    Finetune(finetune::Arguments),
    Import(import::Arguments),
    Bench(bench::Arguments),
    Completion(shell::Completion),
    Man(shell::Man),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.command.common().is_some_and(|common| common.json);
    let threads = arguments.command.common().and_then(|common| common.threads);
    let quiet = arguments.command.common().is_some_and(|common| common.quiet);
    let ended = log_events(quiet).and_then(|()| on_pool(threads, || arguments.command.run()));
    ExitCode::from(exit_code(ended.map_err(|error| report(&error, json))))
}

/// Prints an error to stderr, and for scripts to stdout; returns its kind.
fn report(error: &anyhow::Error, json: bool) -> ErrorKind {
    error!("{error:#}");
    if json {
        // a reader that has closed the pipe still gets the exit code
        let _ = print_lines(&printed(&json!({ "error": format!("{error:#}") })));
    }
    let own = error.downcast_ref().map(supernet::Error::kind);
    own.unwrap_or_else(|| kind_of(error))
}

impl Command {
    fn common(&self) -> Option<&Common> {
        match self {
            Self::Space(arguments) => Some(&arguments.common),
            Self::Train(arguments) => Some(&arguments.common),
            Self::Recipe(arguments) => Some(&arguments.common),
            Self::Plan(arguments) => Some(&arguments.common),
            Self::Eval(arguments) => Some(&arguments.common),
            Self::Sample(arguments) => Some(&arguments.common),
            Self::Trial(arguments) => Some(&arguments.common),
            Self::Finetune(arguments) => Some(&arguments.common),
            Self::Import(arguments) => Some(&arguments.common),
            Self::Bench(arguments) => Some(&arguments.common),
            Self::Completion(_) | Self::Man(_) => None,
        }
    }

    fn run(&self) -> anyhow::Result<Ending> {
        match self {
            Self::Space(arguments) => arguments.run(),
            Self::Train(arguments) => arguments.run(),
            Self::Recipe(arguments) => arguments.run(),
            Self::Plan(arguments) => arguments.run(),
            Self::Eval(arguments) => arguments.run(),
            Self::Sample(arguments) => arguments.run(),
            Self::Trial(arguments) => arguments.run(),
            Self::Finetune(arguments) => arguments.run(),
            Self::Import(arguments) => arguments.run(),
            Self::Bench(arguments) => arguments.run(),
            Self::Completion(arguments) => arguments.run::<Arguments>(),
            Self::Man(arguments) => arguments.run::<Arguments>(),
        }
    }
}
