//! A folder that appears whole or not at all.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::place::{Replaced, folder_of, followed, sync_folder};
use super::{beside_prefix, open_lock, remove_abandoned, undisturbed};
use crate::error::{Error, Result};

/// A folder in the making, next to its place; it is removed on drop unless it was put there.
pub struct StagedFolder {
    target: PathBuf,
    staged: TempDir,
    _lock: File,
}

impl StagedFolder {
    /// Creates the folder, next to `target`.
    ///
    /// # Errors
    /// If the parent folder cannot be written.
    pub fn next_to(target: &Path) -> Result<Self> {
        let failed = |error| Error::io("create a folder next to", target)(error);
        let target = followed(target);
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

    /// Renames the folder into place; it replaces a folder of that name, whose modes and owners it and its files get.
    ///
    /// # Errors
    /// If it cannot be renamed or synced; an old folder then remains.
    pub fn put_in_place(self) -> Result<()> {
        let failed = |error| Error::io("rename to", &self.target)(error);
        if self.target.exists() {
            self.keep_modes().map_err(failed)?;
            exchange(&self.path(), &self.target, &self.staged.path().join("old")).map_err(failed)?;
        } else {
            std::fs::rename(self.path(), &self.target).map_err(failed)?;
        }
        sync_folder(&folder_of(&self.target))
    }

    fn keep_modes(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(self.path())?.flatten() {
            Replaced::at(&self.target.join(entry.file_name())).give_to(&File::open(entry.path())?)?;
        }
        Replaced::at(&self.target).give_to(&File::open(self.path())?)
    }
}

/// Name of the lock in a staged folder.
pub(super) const LOCK: &str = "lock";
/// Name of the content in a staged folder.
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

/// Replaces a folder in two steps where one is not possible; the old folder is restored if the second fails.
fn replace(new: &Path, target: &Path, old: &Path) -> std::io::Result<()> {
    move_folder(target, old, |from, to| std::fs::rename(from, to))?;
    std::fs::rename(new, target).inspect_err(|_| {
        // if that fails too, the first error names the path
        let _ = move_folder(old, target, |from, to| std::fs::rename(from, to));
    })
}

/// Renames a folder. One that lies in a lower layer of an overlay cannot be renamed: it is copied, synced, and removed.
fn move_folder(
    from: &Path,
    to: &Path,
    rename: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    match rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            copy_folder(from, to)?;
            std::fs::remove_dir_all(from)
        }
        renamed => renamed,
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
            Replaced::at(&entry.path()).give_to(&File::open(&to)?)?;
            File::open(&to)?.sync_all()?;
        }
    }
    Replaced::at(from).give_to(&File::open(to)?)?;
    File::open(to)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::names;

    #[test]
    fn a_staged_folder_replaces_or_vanishes() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("model");
        for content in ["first", "second"] {
            let staged = StagedFolder::next_to(&target).expect("a folder");
            std::fs::write(staged.path().join("file"), content).expect("written");
            staged.put_in_place().expect("renamed");
            assert_eq!(std::fs::read_to_string(target.join("file")).expect("a file"), content);
            assert_eq!(names(folder.path()), ["model"]);
        }
        drop(StagedFolder::next_to(&target).expect("a folder"));
        assert_eq!(names(folder.path()), ["model"]);
    }

    #[test]
    fn a_folder_that_cannot_be_renamed_is_copied() {
        let folder = tempfile::tempdir().expect("a folder");
        let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(from.join("inner")).expect("made");
        std::fs::write(from.join("inner/file"), "content").expect("written");
        let refuse = |kind: ErrorKind| move |_: &Path, _: &Path| Err(std::io::Error::from(kind));
        assert!(move_folder(&from, &to, refuse(ErrorKind::PermissionDenied)).is_err() && from.exists());
        move_folder(&from, &to, refuse(ErrorKind::CrossesDevices)).expect("copied");
        assert_eq!(std::fs::read_to_string(to.join("inner/file")).expect("a file"), "content");
        assert_eq!(names(folder.path()), ["to"]);
    }
}
