//! Where things are printed: results to stdout, everything else to stderr.

use std::io::Write;

use base::document::printed;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::arguments::Common;

impl Common {
    /// Prints a result: the JSON document, or the text for people. A reader that has seen enough and closed the
    /// pipe is no error.
    pub fn print(&self, json: &Value, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        let result = if self.json { printed(json) } else { text() };
        print_lines(&result)
    }

    /// Tells something on the way.
    pub fn tell(&self, text: impl AsRef<str>) {
        if !self.quiet {
            print_message(text.as_ref());
        }
    }

    /// A bar on stderr; hidden where nobody looks at a terminal.
    pub fn bar(&self, length: u64, template: &str) -> ProgressBar {
        if self.quiet {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style)
    }
}

/// Writes a line to stderr; where nobody reads it any more, the work goes on.
pub fn print_message(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes text and a line's end to stdout.
pub fn print_lines(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// A count with thousands set apart: `7,664,760`.
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
