//! A running copy of a program that answers a line for each line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use base::Result;
use base::timing::Stopwatch;

/// Longest line of an answer, in bytes.
const LONGEST: u64 = 1 << 20;
/// Time between two looks at whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Time that a program has to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);

fn is_over(begun: &Stopwatch, time: Duration) -> bool {
    begun.elapsed_ms() > 1e3 * time.as_secs_f64()
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    words: Vec<String>,
}

impl Program {
    /// The program of a command, split into words as a shell does; nothing else of it is a shell's: no variables, no pipes.
    ///
    /// # Errors
    /// If there is no word, or a quote is not closed.
    pub fn from_command(command: &str) -> Result<Self> {
        match shlex::split(command) {
            Some(words) if !words.is_empty() => Ok(Self { words }),
            _ => {
                let expected = "a program and its arguments, with all quotes closed";
                Err(base::Error::invalid("evaluator", "command", expected, format!("{command:?}")))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn from_words<const N: usize>(words: [&str; N]) -> Self {
        Self { words: words.map(str::to_string).to_vec() }
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // a group of its own: what it starts ends with it, and Ctrl-C reaches it through the search alone
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map_err(|error| {
            let expected = "a program that can be started";
            let got = format!("{}: {error}", self.words[0]);
            base::Error::invalid("evaluator", "command", expected, got)
        })
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum WorkerEnd {
    /// `stop` was set.
    Stopped,
    /// The program ended, or closed its output.
    Died(String),
    /// It took longer than this.
    Silent(Duration),
}

fn ended(status: std::process::ExitStatus) -> String {
    format!("the program ended without an answer: {status}")
}

/// A running copy; it is ended with the value.
pub(super) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
}

impl Worker {
    pub fn start(program: &Program) -> Result<Self> {
        let mut child = program.spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("it is piped");
        let (sender, lines) = sync_channel(1);
        // ends where the program closes its output, or nobody waits for a line any more
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            loop {
                let mut line = String::new();
                let read = output.by_ref().take(LONGEST).read_line(&mut line).map(|_| line);
                let ends = read.as_ref().is_ok_and(String::is_empty) || read.is_err();
                if sender.send(read).is_err() || ends {
                    break;
                }
            }
        });
        Ok(Self { child, input, lines })
    }

    /// Writes a line and waits for one.
    pub fn ask(
        &mut self,
        request: &str,
        timeout: Option<Duration>,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<String, WorkerEnd> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(WorkerEnd::Died(ended(status)));
        }
        let input = self.input.as_mut().expect("open until it is dropped");
        if input.write_all(request.as_bytes()).and_then(|()| input.flush()).is_err() {
            return Err(WorkerEnd::Died(self.how_it_ended()));
        }
        let begun = Stopwatch::start();
        loop {
            match self.lines.recv_timeout(LOOK) {
                Ok(Ok(line)) if !line.is_empty() => return Ok(line),
                Ok(Ok(_)) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(WorkerEnd::Died(self.how_it_ended()));
                }
                Ok(Err(error)) => {
                    return Err(WorkerEnd::Died(format!("its output cannot be read: {error}")));
                }
                Err(RecvTimeoutError::Timeout) if stop() => return Err(WorkerEnd::Stopped),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match timeout {
                Some(timeout) if is_over(&begun, timeout) => return Err(WorkerEnd::Silent(timeout)),
                _ => {}
            }
        }
    }

    fn how_it_ended(&mut self) -> String {
        // the output is closed a moment before the process has ended
        match self.ended_within(Duration::from_secs(1)) {
            Some(status) => ended(status),
            None => "the program closed its output without an answer".to_string(),
        }
    }

    fn ended_within(&mut self, time: Duration) -> Option<std::process::ExitStatus> {
        let begun = Stopwatch::start();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if is_over(&begun, time) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether something is left of what it started.
    #[cfg(unix)]
    fn has_group(&self) -> bool {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        id.is_some_and(|id| rustix::process::test_kill_process_group(id).is_ok())
    }

    /// Sends a signal to the program and what it started.
    #[cfg(unix)]
    fn signal(&mut self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        // one that has ended already needs no signal
        let _ = id.map(|id| rustix::process::kill_process_group(id, signal));
    }
}

impl Drop for Worker {
    /// Closes its input and asks it to end; after a time of grace ends it.
    fn drop(&mut self) {
        drop(self.input.take());
        #[cfg(unix)]
        self.signal(rustix::process::Signal::TERM);
        let grace = if cfg!(unix) { GRACE } else { Duration::ZERO };
        let begun = Stopwatch::start();
        let ended = self.ended_within(grace).is_some();
        #[cfg(unix)]
        while ended && self.has_group() && !is_over(&begun, GRACE) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // what it started may live on after it
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
