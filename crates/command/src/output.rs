//! A command's output: results to stdout, progress and logs to stderr.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use base::document::printed;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use space::{Arch, SearchSpace, arch_file};
use tracing::{info, warn};

use crate::flags::Common;
use crate::log::make_room;

impl Common {
    /// Prints a result: the one JSON document, or the text for people. A reader that has closed the pipe is no error.
    ///
    /// # Errors
    /// If stdout cannot be written to.
    pub fn print(&self, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        print_lines(&if self.json { printed(json) } else { text() })
    }

    /// A bar on stderr with this template; hidden if stderr is not a terminal.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        shown(ProgressBar::new(length).with_style(style))
    }

    /// A plain bar of `steps` steps.
    pub fn plain_bar(&self, steps: u64) -> ProgressBar {
        if self.quiet { ProgressBar::hidden() } else { shown(ProgressBar::new(steps)) }
    }
}

/// A bar above which logs are written.
fn shown(bar: ProgressBar) -> ProgressBar {
    make_room(&bar);
    bar
}

/// Warns of several things: images that are left out, files that are passed over.
pub fn warn_of(warnings: &[String]) {
    for warning in warnings {
        warn!("{warning}");
    }
}

/// Reports which file was written.
pub fn wrote(path: &Path) {
    info!(path = %path.display(), "wrote {}", path.display());
}

/// Parses sub-networks given by a user; warns of files of interrupted searches.
///
/// # Errors
/// If a text is not a sub-network, or not one of the space.
pub fn read_archs(space: &SearchSpace, texts: &[String]) -> anyhow::Result<Vec<Arch>> {
    let archs = texts.iter().map(|text| arch_file::read(space, text)).collect::<Result<_, _>>()?;
    warn_of_interrupted(texts);
    Ok(archs)
}

/// Warns of each path among these texts that holds the best sub-network of an interrupted search.
pub fn warn_of_interrupted<'a>(texts: impl IntoIterator<Item = &'a String>) {
    for text in texts.into_iter().filter(|text| arch_file::is_interrupted(text)) {
        warn!(path = %text, "{text}: {}", arch_file::INTERRUPTED);
    }
}

/// Writes a line to stderr; a closed stderr does not stop the work.
pub fn print_message(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes text and a line's end to stdout. A reader that has closed the pipe is no error.
///
/// # Errors
/// If stdout cannot be written to.
pub fn print_lines(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A count with separated thousands: `7,664,760`.
pub fn grouped(count: impl ToString) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A duration for people: `42 s`, `12 min`, `3.4 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            (grouped(7), grouped(1000), grouped(7_664_760)),
            ("7".into(), "1,000".into(), "7,664,760".into())
        );
        assert_eq!(
            (duration(42.0), duration(720.0), duration(12_240.0)),
            ("42 s".into(), "12 min".into(), "3.4 h".into())
        );
    }
}
