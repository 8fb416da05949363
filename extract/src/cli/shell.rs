//! What shells and manuals want to know of the commands.

use std::path::PathBuf;

use base::Error;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Outcome};

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract completion bash > ~/.local/share/bash-completion/completions/extract"
)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

/// Write manual pages, one a command, into a folder
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract man ~/.local/share/man/man1")]
pub struct Man {
    /// Where the pages go; made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub fn completion(arguments: &Completion) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "extract", &mut script);
    super::output::print_lines(String::from_utf8(script)?)?;
    Ok(Outcome::Done)
}

pub fn man(arguments: &Man) -> anyhow::Result<Outcome> {
    let folder = &arguments.folder;
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(Error::io("write into", folder))?;
    Ok(Outcome::Done)
}
