//! Rows that grow while a process measures, and their file.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base::Error;
use base::Result;
use base::file::{self, LineFile, Refusals};
use base::timing::Every;
use serde::Serialize;

use super::{Header, Line, Record, Rows, Session, Setting, whole_lines};

/// Growing rows, with a file, if there is one, that is locked against other processes.
pub struct RowsLog {
    rows: Rows,
    file: Option<LineFile>,
    sync: Every,
}

/// How often a file is synced: a sync takes as long as a visit, and a power cut loses no more than this.
const SYNC: Duration = Duration::from_secs(1);

impl RowsLog {
    /// Rows without a file.
    pub fn in_memory(setting: Setting) -> Self {
        Self { rows: Rows { setting, records: Vec::new() }, file: None, sync: Every::new(SYNC) }
    }

    /// Starts a file, or continues one of the same setting, and records that a process begins. A torn last line, as
    /// after a kill, is cut off.
    ///
    /// # Errors
    /// If it has rows of another setting, is damaged, is locked by another process, or cannot be written.
    pub fn open(path: &Path, setting: Setting, session: Session) -> Result<Self> {
        let (log, _) = Self::begin(path, setting, session, |_| {
            Err(occupied(path, "it holds rows measured on another machine or with other flags"))
        })?;
        Ok(log)
    }

    /// [`RowsLog::open`], but samples of another setting are copied to a file with a number after its name, and the
    /// file starts anew. Returns the path of that copy.
    ///
    /// # Errors
    /// If it is damaged, is locked by another process, or one of the two files cannot be written.
    pub fn open_or_set_aside(
        path: &Path,
        setting: Setting,
        session: Session,
    ) -> Result<(Self, Option<PathBuf>)> {
        Self::begin(path, setting, session, |bytes| set_aside(path, bytes))
    }

    /// Opens the file; `other` decides about samples of another setting, given the whole file.
    fn begin(
        path: &Path,
        setting: Setting,
        session: Session,
        other: impl FnOnce(&[u8]) -> Result<PathBuf>,
    ) -> Result<(Self, Option<PathBuf>)> {
        let (mut file, bytes) = LineFile::open(path, REFUSALS)?;
        let header = line_of(&Header::from(&setting));
        let mut whole = whole_lines(&bytes);
        let mut aside = None;
        let mut rows = Rows { setting, records: Vec::new() };
        if whole > 0 {
            let found = Rows::from_bytes(&path.display().to_string(), &bytes)?;
            if found.setting == rows.setting {
                rows = found;
            } else {
                // copied, not renamed: the lock belongs to this file, which stays in place
                aside = Some(other(&bytes)?);
                whole = 0;
            }
        }
        // samples that were set aside are not kept, and are no error
        let kept = if aside.is_some() { &[] } else { &bytes[..] };
        file.go_on(kept, whole, &header, REFUSALS)?;
        let mut log = Self { rows, file: Some(file), sync: Every::new(SYNC) };
        if whole > 0 && bytes[whole - 1] != b'\n' {
            log.write("\n", true)?;
        }
        log.push(Record::Session(session))?;
        Ok((log, aside))
    }

    /// All rows so far.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Appends a record. A file is synced once a second, and after every record that is no visit.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn push(&mut self, record: Record) -> Result<()> {
        let synced = !matches!(record, Record::Visit(_));
        self.write(&line_of(&Line::from(&record)), synced)?;
        self.rows.records.push(record);
        Ok(())
    }

    /// Removes the file, if there is one, once its samples are in a table.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<()> {
        let Some(file) = self.file else { return Ok(()) };
        std::fs::remove_file(file.path()).map_err(Error::io("remove", file.path()))
    }

    fn write(&mut self, line: &str, synced: bool) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let synced = self.sync.due() || synced;
        file.append(line)?;
        if synced { file.sync() } else { Ok(()) }
    }
}

/// Copies a file's bytes to the first free name of the form `FILE.1`, `FILE.2` and so on.
fn set_aside(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    for number in 1u32.. {
        let mut name = path.as_os_str().to_os_string();
        name.push(format!(".{number}"));
        let copy = PathBuf::from(name);
        let mut file = match OpenOptions::new().create_new(true).write(true).open(&copy) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Error::io("write", &copy)(error)),
        };
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(Error::io("write", &copy))?;
        file::sync_folder_of(&copy)?;
        return Ok(copy);
    }
    Err(occupied(path, "it and every numbered copy hold rows measured with other flags"))
}

/// The next step that messages give for a file of other samples.
const NEXT: &str = "finish that run with its flags, or move the file away";

const REFUSALS: Refusals<'_> = Refusals {
    held: "another process is measuring into it",
    foreign: "it holds something else than rows",
    next: NEXT,
};

fn occupied(path: &Path, reason: &str) -> Error {
    let reason = reason.to_string();
    let next = NEXT.to_string();
    Error::Occupied { path: path.to_path_buf(), reason, next }
}

fn line_of(line: &impl Serialize) -> String {
    serde_json::to_string(line).expect("finite numbers and text") + "\n"
}
