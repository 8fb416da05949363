//! Shell completion and manual pages of a command line.

use std::path::Path;

use base::Error;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::print_lines;
use crate::run::Ending;

/// The commands `completion` and `man` of a tool, whose name their examples use.
#[macro_export]
macro_rules! shell_commands {
    ($tool:literal) => {
        /// Print a completion script for a shell
        #[derive(clap::Args)]
        #[command(after_help = concat!(
            "Example:\n  ", $tool, " completion bash > ~/.local/share/bash-completion/completions/", $tool
        ))]
        pub struct Completion {
            /// The shell
            shell: $crate::Shell,
        }

        /// Write manual pages, one per command, into a folder
        #[derive(clap::Args)]
        #[command(after_help = concat!("Example:\n  ", $tool, " man ~/.local/share/man/man1"))]
        pub struct Man {
            /// Folder of the pages; created if needed
            #[arg(value_name = "FOLDER")]
            folder: std::path::PathBuf,
        }

        impl Completion {
            /// Prints the script of the command line `C`.
            pub fn run<C: clap::CommandFactory>(&self) -> anyhow::Result<$crate::Ending> {
                $crate::print_completion::<C>(self.shell)
            }
        }

        impl Man {
            /// Writes the pages of the command line `C`.
            pub fn run<C: clap::CommandFactory>(&self) -> anyhow::Result<$crate::Ending> {
                $crate::write_pages::<C>(&self.folder)
            }
        }
    };
}

/// Prints the completion script of the command line `C`.
///
/// # Errors
/// If stdout cannot be written to.
pub fn print_completion<C: CommandFactory>(shell: Shell) -> anyhow::Result<Ending> {
    let mut command = C::command();
    let name = command.get_name().to_string();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print_lines(&String::from_utf8(script)?)?;
    Ok(Ending::Done)
}

/// Writes the manual pages of the command line `C` into a folder.
///
/// # Errors
/// If they cannot be written.
pub fn write_pages<C: CommandFactory>(folder: &Path) -> anyhow::Result<Ending> {
    std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
    clap_mangen::generate_to(C::command(), folder).map_err(Error::io("write into", folder))?;
    Ok(Ending::Done)
}
