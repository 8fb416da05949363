//! Files that grow line by line, each line one write, so that a process that is killed leaves at most a torn last one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{hold, read, sync_folder_of};
use crate::error::{Error, Result};

/// A file of lines under a header, locked against other processes for as long as the value lives.
#[derive(Debug)]
pub struct LineFile {
    file: File,
    path: PathBuf,
}

/// Parts of the error of a file that cannot be used.
#[derive(Clone, Copy, Debug)]
pub struct Refusals<'a> {
    /// The reason, if another process holds the file.
    pub held: &'a str,
    /// The reason, if the file holds something else.
    pub foreign: &'a str,
    /// The next step, if the file holds something else.
    pub next: &'a str,
}

impl LineFile {
    /// Opens a file to append to, or creates it; also returns the bytes that it holds.
    ///
    /// # Errors
    /// If another process holds it, or it cannot be written or read.
    pub fn open(path: &Path, refusals: Refusals<'_>) -> Result<(Self, Vec<u8>)> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Self::of(file.map_err(Error::io("write", path))?, path, refusals)
    }

    /// Takes over a file that is open for appending, and locks it as [`LineFile::open`] does.
    ///
    /// # Errors
    /// As [`LineFile::open`].
    pub fn of(file: File, path: &Path, refusals: Refusals<'_>) -> Result<(Self, Vec<u8>)> {
        hold(&file, path, path, refusals.held, "wait until it ends")?;
        // only now: the process that held it may have written or removed it in between
        let bytes = read(path)?;
        Ok((Self { file, path: path.to_path_buf() }, bytes))
    }

    /// Continues after the first `whole` of the file's `bytes`, its whole lines; cuts off a torn line after them. A file
    /// without whole lines begins with `header`.
    ///
    /// # Errors
    /// If a file without whole lines holds something else than the beginning of the header, or it cannot be written.
    pub fn go_on(&mut self, bytes: &[u8], whole: usize, header: &str, refusals: Refusals<'_>) -> Result<()> {
        if whole == 0 && !header.as_bytes().starts_with(bytes) {
            let reason = refusals.foreign.to_string();
            let next = refusals.next.to_string();
            return Err(Error::Occupied { path: self.path.clone(), reason, next });
        }
        self.file.set_len(whole as u64).map_err(Error::io("shorten", &self.path))?;
        if whole == 0 {
            self.append(header)?;
            self.sync()?;
            sync_folder_of(&self.path)?;
        }
        Ok(())
    }

    /// Appends a line, which includes its line end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, line: &str) -> Result<()> {
        self.file.write_all(line.as_bytes()).map_err(Error::io("write", &self.path))
    }

    /// Syncs all lines to the disk.
    ///
    /// # Errors
    /// If the disk refuses them.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Length of the whole lines at the beginning.
pub fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSALS: Refusals<'_> =
        Refusals { held: "another process writes it", foreign: "it holds something else", next: "move it" };
    const HEADER: &str = "{\"kind\":\"x\"}\n";

    fn begun(path: &Path) -> Result<LineFile> {
        let (mut file, bytes) = LineFile::open(path, REFUSALS)?;
        let whole = whole_lines(&bytes);
        file.go_on(&bytes, whole, HEADER, REFUSALS)?;
        Ok(file)
    }

    #[test]
    fn torn_lines_are_cut_and_other_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        for (before, after) in [
            ("", "{\"kind\":\"x\"}\nnew\n"),
            ("{\"ki", "{\"kind\":\"x\"}\nnew\n"),
            ("{\"kind\":\"x\"}\n", "{\"kind\":\"x\"}\nnew\n"),
            ("{\"kind\":\"x\"}\nold\nto", "{\"kind\":\"x\"}\nold\nnew\n"),
        ] {
            std::fs::write(&path, before).expect("writable");
            begun(&path).and_then(|mut file| file.append("new\n")).expect("its own");
            assert_eq!(std::fs::read_to_string(&path).expect("readable"), after);
        }
        std::fs::write(&path, "a recipe").expect("writable");
        let error = begun(&path).expect_err("another file").to_string();
        assert!(error.ends_with("a.jsonl: it holds something else; move it"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "a recipe", "as it was");
    }

    #[test]
    fn one_process_writes_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.jsonl");
        let first = begun(&path).expect("free");
        let error = begun(&path).expect_err("held").to_string();
        assert!(error.ends_with("another process writes it; wait until it ends"), "{error}");
        drop(first);
        begun(&path).expect("free again");
    }
}
