//! Files that appear whole or not at all, and locks that end with the process that holds them.
//!
//! A file in the making lies next to its place under a hidden name and is locked. A killed process leaves it behind
//! unlocked; the next writer of the same name removes it.

mod lines;
mod linked;
mod place;
mod staged;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use lines::{LineFile, Refusals, whole_lines};
pub use linked::{copy_atomically, link_or_copy};
pub use place::followed;
pub use staged::StagedFolder;

use crate::error::{Error, Result};
use place::{Replaced, folder_of, put, sync_folder};

/// Writes a file next to its place, syncs it, and renames it into place. Links are followed, even to missing targets; a
/// target that is not a regular file, such as a pipe, is written into. A new file gets the umask's mode, a replacement the
/// mode of the file it replaces, and its owner where that is permitted.
///
/// # Errors
/// If the folder cannot be written or synced, or is full; an old file then remains.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] with content that `write` writes; it may be called more than once.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_atomically_with(path: &Path, write: impl Fn(&mut File) -> std::io::Result<()>) -> Result<()> {
    let failed = |error| Error::io("write", path)(error);
    let target = followed(path);
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
    sync_folder(&folder)
}

/// How often a write is tried that another process's cleaning up may disturb.
const TRIES: usize = 5;

/// Repeats an attempt that another writer of the same name may disturb: it may take a file that is not locked yet for
/// abandoned.
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
    let replaced = Replaced::at(target);
    let mut file = replaced.as_private().prefix(&prefix).tempfile_in(folder)?;
    // without locks, only cleaning up is lost
    let _ = file.as_file().try_lock();
    write(file.as_file_mut())?;
    replaced.give_to(file.as_file())?;
    file.as_file().sync_all()?;
    put(file, target)
}

/// Whether there is something to read at a path: a file, or a pipe such as `/dev/fd/3`.
pub fn is_input(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| !found.is_dir())
}

/// Reads a whole file, or a pipe to its end. A pipe yields its bytes once: they are stored for later readers.
///
/// # Errors
/// If it cannot be read, or is a device, which has no end.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let found = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if is_device(found.file_type()) {
        return Err(Error::invalid(path.display(), "kind", "a file", "a device"));
    }
    let whole = || std::fs::read(path).map_err(Error::io("read", path));
    let Some(pipe) = pipe(&found) else { return whole() };
    let mut pipes = PIPES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(bytes) = pipes.get(&pipe) {
        return Ok(bytes.to_vec());
    }
    let bytes = whole()?;
    pipes.insert(pipe, bytes.as_slice().into());
    Ok(bytes)
}

/// The bytes of a pipe.
type Content = Arc<[u8]>;

/// The bytes of pipes, by device and inode.
static PIPES: Mutex<BTreeMap<(u64, u64), Content>> = Mutex::new(BTreeMap::new());

/// Device and inode of a pipe; `None` for other files.
#[cfg(unix)]
fn pipe(found: &std::fs::Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    found.file_type().is_fifo().then(|| (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn pipe(_: &std::fs::Metadata) -> Option<(u64, u64)> {
    None
}

/// Checks that a file can be written at a path, as far as possible before writing: for the beginning of long work.
///
/// # Errors
/// If its folder does not exist, is not a folder or cannot be written, or a folder has its name.
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
    // missing rights, a read-only mount and a full disk all make this fail
    tempfile::Builder::new().prefix(&beside_prefix(&target)).tempfile_in(&folder).map_err(failed)?;
    Ok(())
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads a whole text file, without the byte order mark that some editors write.
///
/// # Errors
/// As [`read`]; or if it is not UTF-8.
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

/// Locks a file for this process and creates it if it does not exist; the lock ends with the value.
///
/// # Errors
/// If another process holds it (`what` it does, and the `next` step for the user), or the file cannot be opened.
pub fn lock(path: &Path, place: &Path, what: &str, next: &str) -> Result<File> {
    let file = open_lock(path).map_err(Error::io("write", path))?;
    hold(&file, path, place, what, next)?;
    Ok(file)
}

/// Times that a held lock is tried again, and the pause before each. A program that this process has just started shares its open
/// files, and so its locks, until it runs: also one whose file was closed meanwhile.
const RETRIES: usize = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// Locks an open file as [`lock`] does.
///
/// # Errors
/// If another process holds it for a second.
pub fn hold(file: &File, path: &Path, place: &Path, what: &str, next: &str) -> Result<()> {
    for _ in 0..RETRIES {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
        }
    }
    Err(Error::Occupied { path: place.to_path_buf(), reason: what.to_string(), next: next.to_string() })
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Beginning of the name of a file in the making; random letters follow.
fn beside_prefix(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!(".{name}.partial-")
}

/// Syncs a file's folder, if the system can, so that a new file's name outlives a power cut.
///
/// # Errors
/// If the disk refuses.
pub fn sync_folder_of(path: &Path) -> Result<()> {
    sync_folder(&folder_of(path))
}

/// Removes files that ended processes left behind; failures are not reported, since nothing depends on it.
fn remove_abandoned(folder: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if !ours {
            continue;
        }
        let lock = if path.is_dir() { path.join(staged::LOCK) } else { path.clone() };
        if OpenOptions::new().append(true).open(&lock).is_ok_and(|file: File| file.try_lock().is_ok()) {
            let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use std::path::PathBuf;

    #[test]
    fn a_lock_that_is_given_up_meanwhile_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.lock");
        let take = || lock(&path, folder.path(), "another process is at it", "wait");
        let held = take().expect("free");
        assert!(take().expect_err("held").to_string().contains("another process is at it"));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(4 * PAUSE);
                drop(held);
            });
            take().expect("given up meanwhile");
        });
    }

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

    pub(super) fn names(folder: &Path) -> Vec<String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).expect("a folder") {
            names.push(entry.expect("an entry").file_name().to_string_lossy().into_owned());
        }
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

    #[cfg(unix)]
    fn mode(path: &Path) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
    }

    #[test]
    #[cfg(unix)]
    fn a_new_file_has_the_usual_mode_and_another_that_of_the_old() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("usual"), "").expect("written");
        write_atomically(&at("new"), b"x").expect("written");
        assert_eq!(mode(&at("new")), mode(&at("usual")));
        std::fs::create_dir(at("model")).expect("made");
        for expected in [0o600, 0o664, 0o444] {
            let permissions = || std::fs::Permissions::from_mode(expected);
            std::fs::set_permissions(at("usual"), permissions()).expect("set");
            write_atomically(&at("usual"), b"y").expect("written");
            assert_eq!((mode(&at("usual")), read(&at("usual")).expect("a file")), (expected, b"y".to_vec()));
            std::fs::write(at("model/file"), "").expect("written");
            std::fs::set_permissions(at("model/file"), permissions()).expect("set");
            std::fs::set_permissions(at("model"), std::fs::Permissions::from_mode(expected | 0o300))
                .expect("set");
            let staged = StagedFolder::next_to(&at("model")).expect("a folder");
            std::fs::write(staged.path().join("file"), "new").expect("written");
            staged.put_in_place().expect("renamed");
            assert_eq!(mode(&at("model")), expected | 0o300);
            assert_eq!(mode(&at("model/file")), expected);
            std::fs::set_permissions(at("model/file"), std::fs::Permissions::from_mode(0o644)).expect("set");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_dangling_link_makes_its_target() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("elsewhere")).expect("made");
        for (link, target) in
            [("file", "elsewhere/file"), ("model", "elsewhere/model"), ("lost", "no/folder")]
        {
            symlink(target, at(link)).expect("a link");
        }
        write_atomically(&at("file"), b"x").expect("written");
        StagedFolder::next_to(&at("model")).expect("a folder").put_in_place().expect("renamed");
        assert_eq!(names(&at("elsewhere")), ["file", "model"]);
        let error = write_atomically(&at("lost"), b"x").expect_err("no folder").to_string();
        assert!(error.contains("lost: cannot write"), "{error}");
        assert!(["file", "model", "lost"].iter().all(|link| at(link).is_symlink()));
    }

    #[test]
    #[cfg(unix)]
    fn a_pipe_is_read_to_its_end_and_read_again() {
        use std::os::fd::AsRawFd;
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let long = vec![7u8; 1_000_000];
        let path = PathBuf::from(format!("/dev/fd/{}", reader.as_raw_fd()));
        if !path.exists() {
            return;
        }
        assert!(is_input(&path) && !is_input(Path::new("/dev/fd/nothing")));
        let bytes = long.clone();
        let writing = std::thread::spawn(move || writer.write_all(&bytes));
        assert!(read(&path).expect("a pipe") == long);
        writing.join().expect("a thread").expect("written");
        assert!(read(&path).expect("a pipe") == long);
        assert!(read(Path::new("/dev/zero")).is_err());
    }
}
