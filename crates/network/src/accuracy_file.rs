//! The data set that `sample` writes and `fit` reads: one header line, then one evaluated sub-network per line.
//!
//! Rows are appended one by one, so that an interrupted run loses at most the line it was writing. Knows
//! nothing of how an accuracy is measured.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;

use base::document;
use base::file::{self, LineFile, Refusals, whole_lines};
use serde::{Deserialize, Serialize};
use space::{Arch, SearchSpace};

use crate::checkpoint::Supernet;
use crate::data::{Dataset, Split};
use crate::error::{Error, Result};
use crate::eval::Calibration;

/// The header's `kind`.
const KIND: &str = "accuracy";
/// Version of the form that this code writes and reads.
const VERSION: u32 = 2;

/// One evaluated sub-network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccuracyRow {
    /// The sub-network.
    pub arch: Arch,
    /// Share of images classified right, in 0..=1.
    pub top1: f64,
    /// Where the images came from.
    pub split: Split,
    /// Number of images.
    pub n: u64,
}

/// Facts that all rows of a file share.
#[derive(Clone, Debug, PartialEq)]
pub struct AccuracyHeader {
    /// The space that the sub-networks lie in.
    pub space: SearchSpace,
    /// Hash of the supernet that they were taken from.
    pub supernet: String,
    /// Hash of the images that they were calibrated with and evaluated on.
    pub data: String,
    /// Calibration of the sub-networks.
    pub calibration: Calibration,
}

impl AccuracyHeader {
    /// The header for rows of a supernet's sub-networks.
    pub fn new(supernet: &Supernet, dataset: &Dataset, calibration: Calibration) -> Self {
        let space = supernet.space.clone();
        let hash = supernet.hash.clone();
        Self { space, supernet: hash, data: dataset.hash().to_string(), calibration }
    }

    /// The file's content, with rows of which none stands twice.
    pub fn with_rows(self, rows: Vec<AccuracyRow>) -> AccuracyFile {
        let Self { space, supernet, data, calibration } = self;
        AccuracyFile { space, supernet, data, calibration, rows }
    }
}

/// A whole file, checked: every row lies in the space, none stands twice.
#[derive(Clone, Debug, PartialEq)]
pub struct AccuracyFile {
    /// The space that the sub-networks lie in.
    pub space: SearchSpace,
    /// Hash of the supernet that they were taken from.
    pub supernet: String,
    /// Hash of the images that they were calibrated with and evaluated on.
    pub data: String,
    /// Calibration of the sub-networks.
    pub calibration: Calibration,
    /// The rows, in the order in which they were written.
    pub rows: Vec<AccuracyRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHeader {
    kind: String,
    version: u32,
    space: SearchSpace,
    supernet: String,
    data: String,
    calibration: Calibration,
}

/// Reads a file, whole lines only.
///
/// # Errors
/// Names the line: a wrong header, a row that is no row, an accuracy outside 0..=1, no images, a sub-network
/// that is not in the space, the same sub-network twice on one split.
pub fn read(path: &Path) -> Result<AccuracyFile> {
    let text = file::read_text(path)?;
    from_text(&path.display().to_string(), &text)
}

/// Reads a file's text; `place` names it in messages.
///
/// # Errors
/// As [`read`].
pub fn from_text(place: &str, text: &str) -> Result<AccuracyFile> {
    parse(place, text).map_err(|error| {
        if text.ends_with('\n') { error } else { error.and_then_do("resume the sampling that wrote it") }
    })
}

fn parse(place: &str, text: &str) -> Result<AccuracyFile> {
    let mut lines = text.lines();
    let header = parse_header(place, lines.next().unwrap_or(""))?;
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, line) in lines.enumerate() {
        let place = format!("{place}, line {}", index + 2);
        let row = parse_row(&place, line, &header.space)?;
        if !seen.insert((row.arch.clone(), row.split)) {
            let got = format!("{} on {} again", row.arch, row.split);
            return Err(Error::invalid(place, "arch", "each sub-network once a split", got));
        }
        rows.push(row);
    }
    Ok(header.with_rows(rows))
}

fn parse_header(place: &str, line: &str) -> Result<AccuracyHeader> {
    let place = format!("{place}, line 1");
    let form = "a header {\"kind\":\"accuracy\", …}";
    let wire: WireHeader = document::read(&place, line, KIND, VERSION, form)?;
    let WireHeader { space, supernet, data, calibration, .. } = wire;
    Ok(AccuracyHeader { space, supernet, data, calibration })
}

fn parse_row(place: &str, line: &str, space: &SearchSpace) -> Result<AccuracyRow> {
    let row: AccuracyRow = serde_json::from_str(line)
        .map_err(|error| Error::invalid(place, "row", "{\"arch\", \"top1\", \"split\", \"n\"}", error))?;
    check_row(place, &row, space)?;
    Ok(row)
}

fn check_row(place: &str, row: &AccuracyRow, space: &SearchSpace) -> Result<()> {
    if !(0.0..=1.0).contains(&row.top1) {
        let error = Error::invalid(place, "top1", "a share from 0 to 1", row.top1);
        return Err(match row.top1 {
            1.0..=100.0 => error.and_then_do("if it is per cent, divide all by 100"),
            _ => error,
        });
    }
    if row.n == 0 {
        return Err(Error::invalid(place, "n", "at least one image", row.n));
    }
    space.check(&row.arch).map_err(|error| Error::invalid(place, "arch", "one of the header's space", error))
}

fn header_line(header: &AccuracyHeader) -> String {
    let wire = WireHeader {
        kind: KIND.to_string(),
        version: VERSION,
        space: header.space.clone(),
        supernet: header.supernet.clone(),
        data: header.data.clone(),
        calibration: header.calibration,
    };
    let mut line = serde_json::to_string(&wire).expect("a checked space is plain data");
    line.push('\n');
    line
}

/// Appends rows to a file; each is one write, flushed to the operating system.
#[derive(Debug)]
pub struct Writer {
    file: LineFile,
    space: SearchSpace,
    seen: BTreeSet<(Arch, Split)>,
}

impl Writer {
    /// Starts a new file.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn create(path: &Path, header: &AccuracyHeader) -> Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path).map_err(|error| {
            if error.kind() != ErrorKind::AlreadyExists {
                return Error::io("create", path)(error);
            }
            base::Error::Occupied {
                path: path.to_path_buf(),
                reason: "the file exists".to_string(),
                next: "resume it, or give another name".to_string(),
            }
            .into()
        })?;
        Ok(Self::over(file, path, header)?.0)
    }

    /// Continues a file, or starts it if there is none; returns the rows that it holds. What an interrupted
    /// write left after the last line's end is cut off.
    ///
    /// # Errors
    /// If the file has another header, is damaged before its last line, another process holds it, or it cannot be
    /// written.
    pub fn resume(path: &Path, header: &AccuracyHeader) -> Result<(Self, Vec<AccuracyRow>)> {
        let opened = OpenOptions::new().append(true).create(true).open(path);
        Self::over(opened.map_err(Error::io("write", path))?, path, header)
    }

    fn over(file: File, path: &Path, header: &AccuracyHeader) -> Result<(Self, Vec<AccuracyRow>)> {
        let (mut file, bytes) = LineFile::of(file, path, REFUSALS)?;
        let whole = whole_lines(&bytes);
        let rows = rows_of(path, &bytes[..whole], header)?;
        file.go_on(&bytes, whole, &header_line(header), REFUSALS)?;
        let seen = rows.iter().map(|row| (row.arch.clone(), row.split)).collect();
        Ok((Self { file, space: header.space.clone(), seen }, rows))
    }

    /// Appends one row.
    ///
    /// # Errors
    /// If the row is not valid, stands in the file already, or cannot be written.
    pub fn append(&mut self, row: &AccuracyRow) -> Result<()> {
        let place = self.file.path().display().to_string();
        check_row(&place, row, &self.space)?;
        if !self.seen.insert((row.arch.clone(), row.split)) {
            let got = format!("{} on {} again", row.arch, row.split);
            return Err(Error::invalid(place, "arch", "each sub-network once a split", got));
        }
        let mut line = serde_json::to_string(row).expect("a row is plain data");
        line.push('\n');
        Ok(self.file.append(&line)?)
    }
}

const REFUSALS: Refusals<'_> = Refusals {
    held: "another process is sampling into it",
    foreign: "it holds something else than rows of accuracies",
    next: "give another name",
};

/// The rows of whole lines that must stand under `header`.
fn rows_of(path: &Path, bytes: &[u8], header: &AccuracyHeader) -> Result<Vec<AccuracyRow>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let place = path.display().to_string();
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid(&place, "text", "UTF-8", error.to_string()))?;
    let file = parse(&place, text)?;
    check_supernet(path, &file, &header.space, &header.supernet)?;
    let reason = if file.data != header.data {
        format!("it holds rows that were counted on other images, of hash {}", file.data)
    } else if file.calibration != header.calibration {
        let Calibration { images, batch, seed } = file.calibration;
        format!("it holds rows that were calibrated with {images} images in batches of {batch}, seed {seed}")
    } else {
        return Ok(file.rows);
    };
    Err(occupied(path, reason))
}

fn occupied(path: &Path, reason: String) -> Error {
    let next = "give the flags that it was started with, or another name".to_string();
    base::Error::Occupied { path: path.to_path_buf(), reason, next }.into()
}

fn check_supernet(path: &Path, file: &AccuracyFile, space: &SearchSpace, supernet: &str) -> Result<()> {
    if file.space == *space && file.supernet == supernet {
        return Ok(());
    }
    let theirs = &file.supernet;
    let name = file.space.name();
    Err(occupied(path, format!("it holds rows of supernet {theirs} (space {name})")))
}

/// Checks that rows of a supernet can be written to a file, as far as is known before images are read.
///
/// # Errors
/// If there is no folder for it, or it holds something else, or rows of another supernet.
pub fn check_appendable(path: &Path, space: &SearchSpace, supernet: &str) -> Result<()> {
    if !path.is_file() {
        return Ok(file::check_place(path)?);
    }
    OpenOptions::new().append(true).open(path).map_err(Error::io("write", path))?;
    let bytes = file::read(path)?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    match std::str::from_utf8(&bytes[..whole]) {
        Ok("") => Ok(()),
        Ok(text) => check_supernet(path, &parse(&path.display().to_string(), text)?, space, supernet),
        Err(_) => Err(occupied(path, "it holds something else than rows of accuracies".to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use space::{preset, sampler};

    fn header() -> AccuracyHeader {
        AccuracyHeader {
            space: preset("tiny").expect("a preset"),
            supernet: "abc".to_string(),
            data: "d".to_string(),
            calibration: Calibration::default(),
        }
    }

    fn rows(count: usize) -> Vec<AccuracyRow> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let space = header().space;
        let mut seen = BTreeSet::new();
        while seen.len() < count {
            seen.insert(sampler::random(&space, &mut rng));
        }
        let mut rows = Vec::new();
        for (index, arch) in seen.into_iter().enumerate() {
            let top1 = 0.5 + index as f64 / 1000.0;
            rows.push(AccuracyRow { arch, top1, split: Split::Val, n: 100 });
        }
        rows
    }

    #[test]
    fn rows_round_trip_and_an_interrupted_file_continues() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("accuracy.jsonl");
        let rows = rows(5);
        let mut writer = Writer::create(&path, &header()).expect("a new file");
        assert!(Writer::create(&path, &header()).is_err(), "an existing file");
        for row in &rows[..3] {
            writer.append(row).expect("a valid row");
        }
        assert!(writer.append(&rows[0]).is_err(), "a double");
        drop(writer);
        let whole = std::fs::read(&path).expect("readable");
        for torn in [&b""[..], b"{\"arch\": \"r8:", b"{"] {
            std::fs::write(&path, [&whole[..], torn].concat()).expect("writable");
            let (mut writer, had) = Writer::resume(&path, &header()).expect("a torn line is dropped");
            let error = Writer::resume(&path, &header()).expect_err("held").to_string();
            assert!(error.contains("another process is sampling"), "{error}");
            assert_eq!(had, rows[..3]);
            writer.append(&rows[3]).expect("a valid row");
            assert_eq!(read(&path).expect("whole").rows, rows[..4]);
        }
    }

    #[test]
    fn resuming_starts_what_is_not_there_and_refuses_another_supernet() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("accuracy.jsonl");
        for torn in [None, Some(""), Some("{\"kind\":\"acc")] {
            if let Some(torn) = torn {
                std::fs::write(&path, torn).expect("writable");
            }
            let (_, had) = Writer::resume(&path, &header()).expect("a fresh start");
            assert!(had.is_empty());
            assert_eq!(read(&path).expect("a header").supernet, "abc");
        }
        let other = AccuracyHeader { supernet: "other".to_string(), ..header() };
        let error = Writer::resume(&path, &other).expect_err("another supernet").to_string();
        assert!(error.contains("supernet abc"), "{error}");
        let other = AccuracyHeader { data: "e".to_string(), ..header() };
        assert!(Writer::resume(&path, &other).expect_err("other data").to_string().contains("other images"));
        let calibration = Calibration { images: 1, ..Calibration::default() };
        let other = AccuracyHeader { calibration, ..header() };
        assert!(Writer::resume(&path, &other).expect_err("else").to_string().contains("with 2000 images"));
        for foreign in ["my only notes", "my only\nnotes", "{}"] {
            std::fs::write(&path, foreign).expect("writable");
            assert!(Writer::resume(&path, &header()).is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("still there"), foreign);
        }
    }

    #[test]
    fn malformed_files_are_refused_with_the_line() {
        let good = header_line(&header());
        let row = |text: &str| format!("{good}{text}\n");
        let arch = "r8:k3e3/k3e3";
        let valid = format!("{{\"arch\":\"{arch}\",\"top1\":0.5,\"split\":\"val\",\"n\":9}}");
        let table = [
            (String::new(), "line 1: text: expected a header"),
            (good.replace("accuracy", "other"), "line 1: kind"),
            (good.replacen("\"version\":2", "\"version\":9", 1), "line 1: version: expected 2, got 9"),
            (good.replace("\"classes\":10", "\"classes\":1"), "line 1: text: expected a header"),
            (row("nonsense"), "line 2: row"),
            (row(&valid.replace("0.5", "1.5")), "line 2: top1: expected a share from 0 to 1, got 1.5"),
            (row(&valid.replace("0.5", "97.2")), "got 97.2; if it is per cent, divide all by 100"),
            (row(&valid.replace("0.5", "-0.1")), "line 2: top1"),
            (row(&valid.replace(":9", ":0")), "line 2: n"),
            (row(&valid.replace("val", "all")), "line 2: row"),
            (row(&valid.replace("r8", "r9")), "line 2: arch"),
            (row(&format!("{valid}\n{valid}")), "line 3: arch: expected each sub-network once"),
            (format!("{good}{}", &valid[..20]), "resume the sampling"),
        ];
        for (text, part) in table {
            let file = tempfile::NamedTempFile::new().expect("a temporary file");
            std::fs::write(file.path(), &text).expect("writable");
            let error = read(file.path()).expect_err(part).to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(parse("x", &row(&valid)).expect("valid").rows.len(), 1);
    }
}
