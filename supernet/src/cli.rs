//! Parses arguments, reads the environment, prints, and chooses the exit code; the library does the rest.

mod arguments;
mod bench;
mod eval;
mod output;
mod profile;
mod sample;
mod space;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use arguments::Common;

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
    Eval(eval::Arguments),
    Sample(sample::Arguments),
    Bench(bench::Arguments),
}

/// How a command ended, if it did not fail.
pub enum Ending {
    /// All is done.
    Done,
    /// Stopped by a signal, with the state saved.
    Interrupted,
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.command) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<Ending> {
    let common = command.common();
    rayon::ThreadPoolBuilder::new().num_threads(common.threads).build_global()?;
    let mut ending = Ok(Ending::Done);
    // Run on one of the pool's own threads: handing each small kernel to the pool from outside costs more.
    rayon::scope(|_| ending = command.run());
    ending
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Self::Space(arguments) => &arguments.common,
            Self::Train(arguments) => &arguments.common,
            Self::Eval(arguments) => &arguments.common,
            Self::Sample(arguments) => &arguments.common,
            Self::Bench(arguments) => &arguments.common,
        }
    }

    fn run(&self) -> anyhow::Result<Ending> {
        match self {
            Self::Space(arguments) => arguments.run(),
            Self::Train(arguments) => arguments.run(),
            Self::Eval(arguments) => arguments.run(),
            Self::Sample(arguments) => arguments.run(),
            Self::Bench(arguments) => arguments.run(),
        }
    }
}
