//! Shared parts of the command lines: flags, output, logs, signals, threads, the backend by the environment, shell
//! completion and manual pages.
//!
//! Only command lines use this crate: it prints, reads the environment, and sets up the process.

#![forbid(unsafe_code)]

mod data;
mod exit;
mod flags;
mod images;
mod log;
mod output;
mod run;
mod shell;

pub use data::{data_form, data_help};
pub use exit::{WRONG_USAGE, exit_code, kind_of};
pub use flags::{Common, ValImages, not_an_input, result_path, within};
pub use images::look_at;
pub use log::log_events;
pub use output::{
    duration, grouped, print_lines, print_message, read_archs, warn_of, warn_of_interrupted, wrote,
};
pub use run::{Ending, on_pool, stop_flag, with_environment};
pub use shell::{print_completion, write_pages};

pub use clap_complete::Shell;
pub use indicatif::ProgressBar;
