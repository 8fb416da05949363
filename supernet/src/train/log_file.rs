//! `log.jsonl` as a file: read from its ends, and cut without reading the middle.
//!
//! Steps never fall within a log, so what a checkpoint does not hold is a tail, found from the end by blocks. A long run's log
//! is hundreds of megabytes; a resume reads as much of it as the tail is long.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::record::LogLine;
use crate::error::{Error, Result};

/// Bytes that are read at once from the end of a log; more for a line that is longer.
const BLOCK: usize = 64 * 1024;

/// U+FEFF in UTF-8, which some editors write at the head of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How the line of a step begins, as this tool writes it.
const STEP: &[u8] = br#"{"event":"step""#;

/// Cuts a log back to what had happened when `steps` steps were taken, and returns its last lines: those that were written
/// when exactly so many were. Lines that cannot be read go with the tail that is cut, and stay before it. No log is an empty one.
///
/// # Errors
/// If the log cannot be read or written.
pub(super) fn cut(path: &Path, steps: u64) -> Result<Vec<LogLine>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let mut file = open(path)?;
    let kept = kept(&mut file, steps).map_err(Error::io("read", path))?;
    shorten(&file, kept.end).map_err(Error::io("write", path))?;
    Ok(kept.last)
}

/// The lines of a log before its first step; none where there is no log.
///
/// # Errors
/// If the log cannot be read.
pub(super) fn beginning(path: &Path) -> Result<Vec<LogLine>> {
    let mut found = Vec::new();
    if path.exists() {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let mut lines = Lines::new(BufReader::new(file));
        while let Some(line) = lines.next().map_err(Error::io("read", path))? {
            if line.starts_with(STEP) {
                break;
            }
            match parsed(line) {
                Some(LogLine::Step(_)) => break,
                Some(line) => found.push(line),
                None => {}
            }
        }
    }
    Ok(found)
}

/// The most steps that a line says a checkpoint was written after, if one says so.
///
/// # Errors
/// If the log cannot be read.
pub(super) fn checkpoint_shown(path: &Path) -> Result<Option<u64>> {
    let mut shown = None;
    if path.exists() {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let mut lines = Lines::new(BufReader::new(file));
        while let Some(line) = lines.next().map_err(Error::io("read", path))? {
            // nearly all lines are of steps, which say nothing of checkpoints
            if !line.starts_with(STEP) {
                let told = parsed(line).filter(LogLine::shows_checkpoint);
                shown = shown.max(told.map(|line| line.steps_taken()));
            }
        }
    }
    Ok(shown)
}

/// Cuts all of a log.
///
/// # Errors
/// If it cannot be written.
pub(super) fn empty(path: &Path) -> Result<()> {
    if path.exists() {
        shorten(&open(path)?, 0).map_err(Error::io("write", path))?;
    }
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("write", path))
}

/// Cuts a file that is longer, and waits for the disk.
fn shorten(file: &File, length: u64) -> std::io::Result<()> {
    if file.metadata()?.len() > length {
        file.set_len(length)?;
        file.sync_all()?;
    }
    Ok(())
}

/// What is kept of a log.
#[derive(Debug, PartialEq)]
struct Kept {
    /// Its length, bytes.
    end: u64,
    /// The lines of exactly so many steps, the oldest first.
    last: Vec<LogLine>,
}

/// What is kept of a log when `steps` steps were taken.
fn kept(log: &mut (impl Read + Seek), steps: u64) -> std::io::Result<Kept> {
    let mut lines = LinesBackward::new(log)?;
    let mut kept = Kept { end: 0, last: Vec::new() };
    while let Some(line) = lines.next()? {
        // without its end a line is torn, whatever it says
        let whole = Some(line.text.as_slice()).filter(|text| text.ends_with(b"\n"));
        let Some(read) = whole.and_then(parsed) else { continue };
        let taken = read.steps_taken();
        if taken <= steps && kept.end == 0 {
            kept.end = line.start + line.text.len() as u64;
        }
        match taken.cmp(&steps) {
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Equal => kept.last.push(read),
            std::cmp::Ordering::Less => break,
        }
    }
    kept.last.reverse();
    Ok(kept)
}

/// A line, where it is one of a log.
fn parsed(line: &[u8]) -> Option<LogLine> {
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
    serde_json::from_str(&String::from_utf8_lossy(line)).ok()
}

/// Lines of a log from its beginning, one in memory at a time.
struct Lines<R> {
    source: R,
    line: Vec<u8>,
    begun: bool,
}

impl<R: BufRead> Lines<R> {
    fn new(source: R) -> Self {
        Self { source, line: Vec::new(), begun: false }
    }

    /// The next line, without a byte order mark at the head of the log.
    fn next(&mut self) -> std::io::Result<Option<&[u8]>> {
        self.line.clear();
        if self.source.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let line = self.line.as_slice();
        Ok(Some(line.strip_prefix(BYTE_ORDER_MARK).filter(|_| first).unwrap_or(line)))
    }
}

/// A line with its end, and the byte that it begins at.
struct Line {
    start: u64,
    text: Vec<u8>,
}

/// Lines of a log from its end, read by blocks.
struct LinesBackward<'a, R> {
    source: &'a mut R,
    /// What was read and not given out yet.
    held: Vec<u8>,
    /// The byte that `held` begins at.
    start: u64,
}

impl<'a, R: Read + Seek> LinesBackward<'a, R> {
    fn new(source: &'a mut R) -> std::io::Result<Self> {
        let start = source.seek(SeekFrom::End(0))?;
        Ok(Self { source, held: Vec::new(), start })
    }

    /// The line before the one that was given out last.
    fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let (_, before) = self.held.split_last().unwrap_or((&0, &[]));
            if let Some(end) = before.iter().rposition(|byte| *byte == b'\n') {
                let text = self.held.split_off(end + 1);
                return Ok(Some(Line { start: self.start + end as u64 + 1, text }));
            }
            if self.start == 0 {
                let text = std::mem::take(&mut self.held);
                return Ok((!text.is_empty()).then_some(Line { start: 0, text }));
            }
            self.read_block()?;
        }
    }

    /// Reads what lies before, as much again as is held, so that a long line is gone through a few times only.
    fn read_block(&mut self) -> std::io::Result<()> {
        let size = self.start.min(self.held.len().max(BLOCK) as u64);
        self.start -= size;
        self.source.seek(SeekFrom::Start(self.start))?;
        let mut block = vec![0; size as usize];
        self.source.read_exact(&mut block)?;
        block.append(&mut self.held);
        self.held = block;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
