//! What shells and manuals want to know of the commands.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use supernet::Error;

use super::Ending;

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet completion bash > ~/.local/share/bash-completion/completions/supernet")]
pub struct Completion {
    /// The shell
    shell: Shell,
}

/// Write manual pages, one a command, into a folder
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet man ~/.local/share/man/man1")]
pub struct Man {
    /// Where the pages go; made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

impl Completion {
    /// Prints the script of the command line `C`.
    pub fn run<C: CommandFactory>(&self) -> anyhow::Result<Ending> {
        let mut command = C::command();
        let name = command.get_name().to_string();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        super::output::print_lines(&String::from_utf8(script)?)?;
        Ok(Ending::Done)
    }
}

impl Man {
    /// Writes the pages of the command line `C`.
    pub fn run<C: CommandFactory>(&self) -> anyhow::Result<Ending> {
        std::fs::create_dir_all(&self.folder).map_err(Error::io("create the folder", &self.folder))?;
        clap_mangen::generate_to(C::command(), &self.folder)
            .map_err(Error::io("write into", &self.folder))?;
        Ok(Ending::Done)
    }
}
