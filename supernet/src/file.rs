//! Files that appear whole or not at all, and locks that end with the process that holds them.
//!
//! What is being written lies beside its place under a hidden name and is locked. A process that is killed leaves it
//! behind unlocked; whoever writes the same name next removes it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

use crate::error::{Error, Result};

/// Writes a file beside its place, syncs it, and renames it into place. Links are followed; what is no regular file, as
/// a pipe, is written into.
///
/// # Errors
/// If the folder cannot be written or is full; an old file is then still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// The same, piece by piece: `write` writes the content, and may be asked to do so again.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_atomically_with(path: &Path, write: impl Fn(&mut File) -> std::io::Result<()>) -> Result<()> {
    let failed = |error| Error::io("write", path)(error);
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if std::fs::metadata(&target).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return OpenOptions::new()
            .write(true)
            .open(&target)
            .and_then(|mut file| write(&mut file))
            .map_err(failed);
    }
    let folder = folder_of(&target);
    std::fs::metadata(&folder).map_err(failed)?;
    undisturbed(|| write_beside(&target, &folder, &write)).map_err(failed)?;
    sync_folder(&folder);
    Ok(())
}

/// How often something is begun that another process's tidying up may disturb.
const TRIES: usize = 5;

/// Does what another writer of the same name may disturb, for it may take what is not locked yet for abandoned.
fn undisturbed<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    for _ in 1..TRIES {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => return done,
        }
    }
    attempt()
}

fn write_beside(
    target: &Path,
    folder: &Path,
    write: impl Fn(&mut File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let prefix = beside_prefix(target);
    remove_abandoned(folder, &prefix);
    let mut file = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder)?;
    // where locks are not to be had, only the tidying up is lost
    let _ = file.as_file().try_lock();
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    set_usual_permissions(&file)?;
    file.persist(target)?;
    Ok(())
}

/// Reads a whole file.
///
/// # Errors
/// If it cannot be read, or is a device, which has no end.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let kind = std::fs::metadata(path).map_err(Error::io("read", path))?.file_type();
    if is_device(kind) {
        return Err(Error::invalid(path.display(), "kind", "a file", "a device"));
    }
    std::fs::read(path).map_err(Error::io("read", path))
}

/// Whether a file can lie there, as far as that can be told before it is written: what takes long begins with this.
///
/// # Errors
/// If its folder is not there, is none or cannot be written, or a folder has its name.
pub fn check_place(path: &Path) -> Result<()> {
    let failed = |error| Error::io("write", path)(error);
    if path.is_dir() {
        return Err(failed(ErrorKind::IsADirectory.into()));
    }
    if path.exists() && !path.is_file() {
        return Ok(()); // a pipe or a device is written into as it is
    }
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = folder_of(&target);
    if !std::fs::metadata(&folder).map_err(failed)?.is_dir() {
        return Err(failed(ErrorKind::NotADirectory.into()));
    }
    // no rights, a read-only mount, a full disk: what all of them have in common is that this fails
    tempfile::Builder::new().prefix(&beside_prefix(&target)).tempfile_in(&folder).map_err(failed)?;
    Ok(())
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a whole file of text; a byte order mark before it, as some editors write one, is no part of it.
///
/// # Errors
/// As [`read`]; or if it is no UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = read(path)?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    if [[0xff, 0xfe], [0xfe, 0xff]].iter().any(|mark| bytes.starts_with(mark)) {
        let error = Error::invalid(path.display(), "text", "UTF-8", "UTF-16, by its byte order mark");
        return Err(error.and_then_do("save it as UTF-8"));
    }
    String::from_utf8(bytes).map_err(|error| {
        Error::invalid(
            path.display(),
            "text",
            "UTF-8",
            format!("other bytes after {}", error.utf8_error().valid_up_to()),
        )
    })
}

#[cfg(unix)]
fn is_device(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_block_device()
}

#[cfg(not(unix))]
fn is_device(_: std::fs::FileType) -> bool {
    false
}

/// A folder that is being filled beside its place; it vanishes unless it is put there.
pub struct StagedFolder {
    target: PathBuf,
    staged: TempDir,
    _lock: File,
}

impl StagedFolder {
    /// Makes the folder, beside `target`.
    ///
    /// # Errors
    /// If the parent folder cannot be written.
    pub fn beside(target: &Path) -> Result<Self> {
        let failed = |error| Error::io("create a folder beside", target)(error);
        // a link is followed
        let target = std::fs::canonicalize(target).unwrap_or_else(|_| target.to_path_buf());
        let parent = folder_of(&target);
        std::fs::metadata(&parent).map_err(failed)?;
        undisturbed(|| Self::begin(&target, &parent)).map_err(failed)
    }

    fn begin(target: &Path, parent: &Path) -> std::io::Result<Self> {
        let prefix = beside_prefix(target);
        remove_abandoned(parent, &prefix);
        let staged = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent)?;
        let lock = open_lock(&staged.path().join(LOCK))?;
        let _ = lock.try_lock();
        std::fs::create_dir(staged.path().join(CONTENT))?;
        Ok(Self { target: target.to_path_buf(), staged, _lock: lock })
    }

    /// Where to write the folder's files.
    pub fn path(&self) -> PathBuf {
        self.staged.path().join(CONTENT)
    }

    /// Gives the folder its name; a folder of that name is replaced.
    ///
    /// # Errors
    /// If it cannot be renamed; what was there is then still there.
    pub fn put_in_place(self) -> Result<()> {
        let failed = |error| Error::io("rename to", &self.target)(error);
        if self.target.exists() {
            exchange(&self.path(), &self.target, &self.staged.path().join("old")).map_err(failed)?;
        } else {
            std::fs::rename(self.path(), &self.target).map_err(failed)?;
        }
        sync_folder(&folder_of(&self.target));
        Ok(())
    }
}

/// Name of the lock in a staged folder.
const LOCK: &str = "lock";
/// Name of what is being staged in it.
const CONTENT: &str = "content";

/// Swaps two folders in one step, so that a kill never leaves the target's name without a folder.
#[cfg(target_os = "linux")]
fn exchange(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    // some network file systems cannot exchange
    renameat_with(CWD, new, CWD, target, RenameFlags::EXCHANGE).or_else(|_| replace(new, target, old))
}

#[cfg(not(target_os = "linux"))]
fn exchange(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    replace(new, target, old)
}

/// Two steps where one is not to be had; the old folder comes back if the second fails.
fn replace(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    std::fs::rename(target, old)?;
    std::fs::rename(new, target).inspect_err(|_| {
        // if that fails too, the first error says where
        let _ = std::fs::rename(old, target);
    })
}

/// Locks a file for this process, making it where it is not there; the lock ends with the value.
///
/// # Errors
/// If another process holds it (`what` it does, what to do `next`), or the file cannot be opened.
pub fn lock(path: &Path, place: &Path, what: &str, next: &str) -> Result<File> {
    let file = open_lock(path).map_err(Error::io("write", path))?;
    hold(&file, path, place, what, next)?;
    Ok(file)
}

/// Locks an open file as [`lock`] does.
///
/// # Errors
/// If another process holds it.
pub fn hold(file: &File, path: &Path, place: &Path, what: &str, next: &str) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::Occupied {
            path: place.to_path_buf(),
            reason: what.to_string(),
            next: next.to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// What is beside a path while it is being written is called so and some random letters.
fn beside_prefix(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!(".{name}.partial-")
}

/// Syncs the folder that a file lies in, so that a new file's name outlives a power cut, where the system can.
pub fn sync_folder_of(path: &Path) {
    sync_folder(&folder_of(path));
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Removes what processes that live no more have left; tidiness alone, so that no failure is reported.
fn remove_abandoned(folder: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if !ours {
            continue;
        }
        let lock = if path.is_dir() { path.join(LOCK) } else { path.clone() };
        let free = |file: File| file.try_lock().is_ok();
        if OpenOptions::new().append(true).open(&lock).is_ok_and(free) {
            let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

/// Makes a rename outlast a power cut, where folders can be synced.
fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// Temporary files are private; what takes their place should be readable as other files are.
#[cfg(unix)]
fn set_usual_permissions(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_usual_permissions(_: &NamedTempFile) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_marks_are_no_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        for (bytes, expected) in [
            (&b"\xef\xbb\xbf{}"[..], Ok("{}")),
            (b"{}\xef\xbb\xbf", Ok("{}\u{feff}")),
            (b"\xef\xbb\xbf", Ok("")),
            (b"\xff\xfe{\0", Err("got UTF-16, by its byte order mark; save it as UTF-8")),
            (b"\xfe\xff\0{", Err("got UTF-16")),
            (b"{\xff}", Err("other bytes after 1")),
        ] {
            std::fs::write(&path, bytes).expect("written");
            match (read_text(&path), expected) {
                (Ok(text), Ok(expected)) => assert_eq!(text, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expected) => panic!("{got:?}, not {expected:?}"),
            }
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| name(entry).to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_writer_left_goes_and_what_a_living_one_holds_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at(".a.txt.partial-dead"), "half").expect("written");
        std::fs::create_dir_all(at(".a.txt.partial-gone/content")).expect("made");
        std::fs::write(at(".a.txt.partial-gone/lock"), "").expect("written");
        std::fs::write(at(".b.txt.partial-other"), "half").expect("written");
        let held = lock(&at(".a.txt.partial-held"), folder.path(), "held", "wait").expect("free");
        write_atomically(&at("a.txt"), b"whole").expect("written");
        assert_eq!(names(folder.path()), [".a.txt.partial-held", ".b.txt.partial-other", "a.txt"]);
        drop(held);
        write_atomically(&at("a.txt"), b"again").expect("written");
        assert_eq!(names(folder.path()), [".b.txt.partial-other", "a.txt"]);
        assert_eq!(std::fs::read(at("a.txt")).expect("a file"), b"again");
    }

    #[test]
    fn a_staged_folder_replaces_or_vanishes() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("model");
        for content in ["first", "second"] {
            let staged = StagedFolder::beside(&target).expect("a folder");
            std::fs::write(staged.path().join("file"), content).expect("written");
            staged.put_in_place().expect("renamed");
            assert_eq!(std::fs::read_to_string(target.join("file")).expect("a file"), content);
            assert_eq!(names(folder.path()), ["model"]);
        }
        drop(StagedFolder::beside(&target).expect("a folder"));
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn failures_name_the_file_and_keep_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("no/such/folder/x");
        let error = write_atomically(&missing, b"x").expect_err("no folder").to_string();
        assert!(error.contains("cannot write") && error.contains("no/such/folder/x"), "{error}");
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).expect("made");
        std::fs::write(taken.join("kept"), "old").expect("written");
        assert!(write_atomically(&taken, b"x").is_err());
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_lock_is_refused_while_it_is_held() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        let held = lock(&path, folder.path(), "in use", "wait").expect("free");
        let error = lock(&path, folder.path(), "in use", "wait").expect_err("held").to_string();
        assert!(error.ends_with("in use; wait"), "{error}");
        drop(held);
        lock(&path, folder.path(), "in use", "wait").expect("free again");
    }
}
