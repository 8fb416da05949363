//! Sends signals to commands at work.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::commands::command;

/// When a signal is sent.
pub(crate) enum When<'a> {
    /// Once a file that the command writes into has changed: it is at work then, and heeds signals.
    Changed(&'a str),
    /// After so many milliseconds, whatever it does.
    After(u64),
}

/// Sends a signal to a command; its exit code, `None` if the system ended it.
pub(crate) fn interrupt(at: &Path, name: &str, line: &str, signal: &str, when: When) -> Option<i32> {
    let length = |file: &str| std::fs::metadata(at.join(file)).map(|found| found.len()).ok();
    let before = if let When::Changed(file) = &when { length(file) } else { None };
    let mut child = start(command(name, at, line));
    match when {
        When::Changed(file) => wait_until(&mut child, || length(file) != before),
        When::After(milliseconds) => std::thread::park_timeout(Duration::from_millis(milliseconds)),
    }
    signal_and_wait(child, signal)
}

/// Starts a command whose output nobody reads.
pub(crate) fn start(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a binary that starts")
}

/// Waits until something is the case, or until the child ends.
pub(crate) fn wait_until(child: &mut Child, is_reached: impl Fn() -> bool) {
    while !is_reached() && child.try_wait().expect("a child").is_none() {
        std::thread::yield_now();
    }
}

/// Sends a signal such as `-INT` and waits for the end; the exit code, `None` if the system ended it.
pub(crate) fn signal_and_wait(mut child: Child, signal: &str) -> Option<i32> {
    let kill = &mut Command::new("kill");
    kill.args([signal, &child.id().to_string()]).stderr(Stdio::null()).status().expect("kill");
    child.wait().expect("a child").code()
}
