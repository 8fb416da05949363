//! Where a command's words go.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use base::document::printed;
use serde_json::Value;
use space::arch_file;

use super::Common;

/// Prints results to stdout and messages to stderr, as the flags say.
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub fn new(common: &Common) -> Self {
        Self { json: common.json, quiet: common.quiet }
    }

    /// A message for a reader who waits.
    pub fn say(&self, message: impl Display) {
        if !self.quiet {
            print_message(message);
        }
    }

    /// What failed of several things; an error, which is said to those too who want no messages.
    pub fn warn_of_failure(&self, error: impl Display) {
        print_message(format_args!("error: {error}"));
    }

    /// The command's result: as text, or as the one JSON document. A reader that has seen enough and closed
    /// the pipe is no error.
    pub fn result(&self, text: impl Display, json: &Value) -> anyhow::Result<()> {
        if self.json { print_lines(printed(json)) } else { print_lines(text) }
    }

    /// Says which file was written.
    pub fn wrote(&self, path: &Path) {
        self.say(format_args!("wrote {}", path.display()));
    }

    /// Warns of each path among these texts at which an interrupted search wrote its best sub-network until then.
    pub fn tell_interrupted<'a>(&self, texts: impl IntoIterator<Item = &'a String>) {
        for text in texts.into_iter().filter(|text| arch_file::is_interrupted(text)) {
            self.say(format_args!("warning: {text}: {}", arch_file::INTERRUPTED));
        }
    }

    /// A progress bar of so many steps, hidden where nobody looks.
    pub fn bar(&self, steps: u64) -> indicatif::ProgressBar {
        if self.quiet { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new(steps) }
    }
}

/// Writes a line to stderr; where nobody reads it any more, the work goes on.
pub fn print_message(message: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}

/// Writes text and a line's end to stdout.
pub fn print_lines(text: impl Display) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
