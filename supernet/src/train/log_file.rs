//! `log.jsonl` as a file: read from its ends, and cut without reading the middle.
//!
//! Steps never decrease within a log, so the lines beyond a checkpoint are a tail, which is found from the end in
//! blocks. A long run's log has hundreds of megabytes; a resume reads only about as much as the tail.

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

/// Cuts a log after the lines written when at most `steps` steps were taken, and returns the lines written at exactly
/// `steps`. Unreadable lines are cut within the tail, and stay before it. A missing log counts as empty.
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

/// The highest step at which a line shows a checkpoint, if one does.
///
/// # Errors
/// If the log cannot be read.
pub(super) fn checkpoint_shown(path: &Path) -> Result<Option<u64>> {
    let mut shown = None;
    if path.exists() {
        let file = File::open(path).map_err(Error::io("read", path))?;
        let mut lines = Lines::new(BufReader::new(file));
        while let Some(line) = lines.next().map_err(Error::io("read", path))? {
            // nearly all lines are steps, which show no checkpoint
            if !line.starts_with(STEP) {
                let found = parsed(line).filter(LogLine::shows_checkpoint);
                shown = shown.max(found.map(|line| line.steps_taken()));
            }
        }
    }
    Ok(shown)
}

/// Empties a log.
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

/// Cuts a longer file to `length`, and syncs it to disk.
fn shorten(file: &File, length: u64) -> std::io::Result<()> {
    if file.metadata()?.len() > length {
        file.set_len(length)?;
        file.sync_all()?;
    }
    Ok(())
}

/// The part of a log to keep.
#[derive(Debug, PartialEq)]
struct Kept {
    /// Length in bytes.
    end: u64,
    /// The lines written at exactly `steps`, the oldest first.
    last: Vec<LogLine>,
}

/// The part of a log to keep when `steps` steps were taken.
fn kept(log: &mut (impl Read + Seek), steps: u64) -> std::io::Result<Kept> {
    let mut lines = LinesBackward::new(log)?;
    let mut kept = Kept { end: 0, last: Vec::new() };
    while let Some(line) = lines.next()? {
        // a line without a line end is torn, whatever it holds
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

/// The log line in these bytes, if they are one.
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

/// A line with its end, and its first byte's position.
struct Line {
    start: u64,
    text: Vec<u8>,
}

/// Lines of a log from its end, read by blocks.
struct LinesBackward<'a, R> {
    source: &'a mut R,
    /// Bytes read and not yet returned.
    held: Vec<u8>,
    /// Position of the first byte of `held`.
    start: u64,
}

impl<'a, R: Read + Seek> LinesBackward<'a, R> {
    fn new(source: &'a mut R) -> std::io::Result<Self> {
        let start = source.seek(SeekFrom::End(0))?;
        Ok(Self { source, held: Vec::new(), start })
    }

    /// The line before the last one returned.
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

    /// Reads the bytes before, as many as are held, so that a long line is searched only a few times.
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
