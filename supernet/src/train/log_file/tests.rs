use std::io::{BufWriter, Cursor, Write};

use proptest::prelude::*;

use super::*;
use crate::train::StepRecord;

fn step(step: u64) -> String {
    let phase = "full".to_string();
    line(&LogLine::Step(StepRecord { step, phase, loss: 1.25, lr: 0.1, resolution: 12.into(), ms: 1.5 }))
}

fn checkpoint(step: u64) -> String {
    line(&LogLine::Checkpoint { step })
}

fn line(line: &LogLine) -> String {
    format!("{}\n", serde_json::to_string(line).expect("plain data"))
}

/// Checks the length kept of a log, and returns its last lines.
fn check(log: &str, steps: u64, expected: &str) -> Vec<LogLine> {
    let kept = kept(&mut Cursor::new(log), steps).expect("bytes in memory");
    assert_eq!(&log[..kept.end as usize], expected, "of {log:?} after {steps} steps");
    assert!(kept.last.iter().all(|line| line.steps_taken() == steps));
    kept.last
}

#[test]
fn a_log_is_cut_after_the_last_line_of_the_checkpoint() {
    let [one, two, three] = [step(0), step(1), step(2)];
    let noted = checkpoint(2);
    let log = format!("{one}{two}{noted}{three}");
    assert_eq!(check(&log, 2, &format!("{one}{two}{noted}")).len(), 2);
    assert_eq!(check(&log, 3, &log).len(), 1);
    assert_eq!(check(&log, 9, &log), []);
    assert_eq!(check(&log, 0, ""), []);
    for torn in ["{\"event\":\"st", "\0\0\0\0", "\u{feff}", "{}\n\n", &step(1)[..9], step(1).trim_end()] {
        check(&format!("{one}{two}{torn}"), 2, &format!("{one}{two}"));
    }
    // what cannot be read stays where it stands before the cut
    let broken = format!("{one}{{\"event\":\n\n{two}");
    check(&format!("{broken}{three}"), 2, &broken);
}

#[test]
fn marks_ends_and_long_lines_are_no_matter() {
    let [one, two] = [step(0), step(1)];
    for empty in ["", "\n", "\u{feff}", "no end"] {
        check(empty, 5, "");
    }
    check(&format!("\u{feff}{one}{two}"), 1, &format!("\u{feff}{one}"));
    let crlf = |line: &str| line.replace('\n', "\r\n");
    check(&format!("{}{}", crlf(&one), crlf(&two)), 1, &crlf(&one));
    for size in [BLOCK - 200, BLOCK, 5 * BLOCK + 1] {
        let long = LogLine::SkippedImage { path: "x".repeat(size), reason: "y".to_string() };
        let log = format!("{}{one}", line(&long));
        assert_eq!(check(&format!("{log}{two}"), 1, &log).len(), 1);
        assert_eq!(check(&format!("{log}{two}"), 0, &line(&long)), std::slice::from_ref(&long));
    }
}

#[test]
fn a_log_is_cut_where_it_lies() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.jsonl");
    assert_eq!(cut(&path, 3).expect("no log"), []);
    std::fs::write(&path, format!("{}{}{}", step(0), checkpoint(1), step(1))).expect("written");
    assert_eq!(cut(&path, 1).expect("cut").len(), 2);
    assert_eq!(std::fs::read_to_string(&path).expect("a log"), format!("{}{}", step(0), checkpoint(1)));
    assert_eq!(checkpoint_shown(&path).expect("a log"), Some(1));
    empty(&path).expect("emptied");
    assert_eq!(std::fs::read(&path).expect("a log"), b"");
    assert_eq!(checkpoint_shown(&path).expect("a log"), None);
}

#[test]
#[cfg(unix)]
fn a_log_that_is_a_link_stays_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.jsonl");
    let target = folder.path().join("elsewhere");
    std::os::unix::fs::symlink("elsewhere", &path).expect("a link");
    assert_eq!(cut(&path, 1).expect("a link to nothing"), []);
    std::fs::write(&target, format!("{}{}", step(0), step(1))).expect("written");
    assert_eq!(cut(&path, 1).expect("cut").len(), 1);
    assert!(path.is_symlink() && std::fs::read_to_string(&target).expect("a log") == step(0));
}

#[test]
fn the_beginning_ends_at_the_first_step() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.jsonl");
    assert_eq!(beginning(&path).expect("no log"), []);
    let skipped = LogLine::SkippedImage { path: "a".to_string(), reason: "b".to_string() };
    for mark in ["", "\u{feff}", "{\n"] {
        let text = format!("{mark}{}{}{}{}", line(&skipped), checkpoint(0), step(0), checkpoint(1));
        std::fs::write(&path, text).expect("written");
        let expected = [skipped.clone(), LogLine::Checkpoint { step: 0 }];
        assert_eq!(beginning(&path).expect("a log"), expected);
    }
}

/// The former implementation: it read all lines and rewrote those to keep. It dropped broken lines everywhere.
fn former(log: &str, steps: u64) -> (String, Vec<LogLine>) {
    let mut kept = String::new();
    let mut last = Vec::new();
    for text in log.split_inclusive('\n') {
        let line = parsed(text.as_bytes());
        if let Some(line) = line.filter(|line| text.ends_with('\n') && line.steps_taken() <= steps) {
            kept.push_str(text);
            last.extend(Some(line).filter(|line| line.steps_taken() == steps));
        }
    }
    (kept, last)
}

/// Random logs: lines of steps, checkpoints and noise.
fn lines() -> impl Strategy<Value = String> {
    let kinds = proptest::collection::vec((0..6_u8, 0..2000_usize, any::<bool>()), 0..80);
    (kinds, "[a-z{}\":\n]{0,40}").prop_map(|(kinds, torn)| {
        let mut log = String::new();
        let mut taken = 0;
        for (kind, size, windows) in kinds {
            let text = match kind {
                0 => line(&LogLine::Resumed { resumed_from_step: taken, time: size as u64 }),
                1 => checkpoint(taken),
                2 => format!("{}\n", "z".repeat(size)),
                _ => {
                    taken += 1;
                    step(taken - 1)
                }
            };
            log.push_str(&if windows { text.replace('\n', "\r\n") } else { text });
        }
        log + &torn
    })
}

proptest! {
    #[test]
    fn random_logs_are_cut_as_before(log in lines(), steps in 0..80_u64) {
        let kept = kept(&mut Cursor::new(&log), steps).expect("bytes in memory");
        let (expected, last) = former(&log, steps);
        prop_assert_eq!(kept.last, last);
        let (readable, _) = former(&log[..kept.end as usize], steps);
        prop_assert_eq!(readable, expected);
    }
}

/// A file, and the number of bytes read from it.
struct Counted {
    file: File,
    bytes: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

/// Two hundred megabytes of log, cut a thousand steps before its end; what is read of it is counted.
#[test]
fn of_two_million_steps_only_the_tail_is_read() {
    const STEPS: u64 = 2_000_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log.jsonl");
    let mut log = BufWriter::new(File::create(&path).expect("a file"));
    let rest = "\"phase\":\"full\",\"loss\":1.2519,\"lr\":0.0812,\"resolution\":12,\"ms\":1.54}\n";
    for at in 0..STEPS {
        write!(log, "{{\"event\":\"step\",\"step\":{at},{rest}").expect("written");
    }
    log.flush().expect("written");
    let mut counted = Counted { file: File::open(&path).expect("a log"), bytes: 0 };
    let kept = kept(&mut counted, STEPS - 1000).expect("cut");
    assert_eq!(kept.last.len(), 1);
    let tail = std::fs::metadata(&path).expect("a log").len() - kept.end;
    let read = counted.bytes;
    assert!(tail > 90_000 && read <= tail + 2 * BLOCK as u64, "{read} bytes for a tail of {tail}");
}
