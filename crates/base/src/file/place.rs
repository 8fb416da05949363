//! The place of a file: links to it, the file replaced there, modes, and the folder that has its name.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Result as IoResult, Seek, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Most links in a row: more are taken for a cycle.
const MOST_LINKS: usize = 40;

/// The place that a path leads to through links, whether it exists or not.
pub fn followed(path: &Path) -> PathBuf {
    let mut place = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        if let Ok(real) = std::fs::canonicalize(&place) {
            return real;
        }
        match std::fs::read_link(&place) {
            // an absolute target replaces the whole path
            Ok(target) => place = folder_of(&place).join(target),
            Err(_) => return place,
        }
    }
    path.to_path_buf()
}

/// The folder that a path lies in.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Makes a rename outlast a power cut, where folders can be synced.
///
/// # Errors
/// If the disk refuses.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    unless_unsupported(
        open_folder(folder).and_then(|folder| folder.map_or(Ok(()), |folder| folder.sync_all())),
    )
    .map_err(Error::io("sync the folder", folder))
}

/// Ignores the error of file systems that cannot sync folders.
fn unless_unsupported(synced: IoResult<()>) -> IoResult<()> {
    match synced {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
        synced => synced,
    }
}

/// A folder to sync; none if folders cannot be opened, or this one may be written but not listed.
#[cfg(unix)]
fn open_folder(folder: &Path) -> IoResult<Option<File>> {
    match File::open(folder) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        opened => opened.map(Some),
    }
}

#[cfg(not(unix))]
fn open_folder(_: &Path) -> IoResult<Option<File>> {
    Ok(None)
}

/// Renames a finished file into place. If the system cannot rename onto the target (a file mounted by itself, a layer of
/// an overlay), the target is written into.
pub(super) fn put(file: NamedTempFile, target: &Path) -> IoResult<()> {
    put_by(file, target, |file, target| {
        file.persist(target).map(drop).map_err(|error| (error.file, error.error))
    })
}

fn put_by(
    file: NamedTempFile,
    target: &Path,
    rename: impl FnOnce(NamedTempFile, &Path) -> std::result::Result<(), (NamedTempFile, IoError)>,
) -> IoResult<()> {
    match rename(file, target) {
        Err((mut file, error))
            if matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::ResourceBusy) =>
        {
            let mut into =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(target)?;
            file.as_file_mut().rewind()?;
            std::io::copy(file.as_file_mut(), &mut into)?;
            into.flush()?;
            into.sync_all()
        }
        Err((_, error)) => Err(error),
        Ok(()) => Ok(()),
    }
}

/// Mode and owner of the replaced file or folder, if there is one.
pub(super) struct Replaced(#[cfg_attr(not(unix), allow(dead_code))] Option<std::fs::Metadata>);

#[cfg(unix)]
impl Replaced {
    /// Reads them from a path.
    pub(super) fn at(path: &Path) -> Self {
        Self(std::fs::metadata(path).ok())
    }

    /// Options to open the replacement with: private until it has its mode; new files by the umask.
    pub(super) fn as_private(&self) -> tempfile::Builder<'static, 'static> {
        use std::os::unix::fs::PermissionsExt;
        let mut builder = tempfile::Builder::new();
        if self.0.is_none() {
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        builder
    }

    /// Sets mode and owner of the replacement; of the owner as much as is permitted.
    pub(super) fn give_to(&self, file: &File) -> IoResult<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let Some(old) = &self.0 else { return Ok(()) };
        let new = file.metadata()?;
        let mut mode = old.mode() & 0o777;
        if (old.uid(), old.gid()) != (new.uid(), new.gid())
            && fchown(file, Some(old.uid()), Some(old.gid())).is_err()
            && old.gid() != new.gid()
            && fchown(file, None, Some(old.gid())).is_err()
        {
            // rights of one group must not pass to another
            mode = mode & !0o070 | (mode & 0o007) << 3;
        }
        file.set_permissions(std::fs::Permissions::from_mode(mode))
    }
}

#[cfg(not(unix))]
impl Replaced {
    pub(super) fn at(_: &Path) -> Self {
        Self(None)
    }

    pub(super) fn as_private(&self) -> tempfile::Builder<'static, 'static> {
        tempfile::Builder::new()
    }

    pub(super) fn give_to(&self, _: &File) -> IoResult<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_renamed_onto_is_written_into() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("mounted");
        std::fs::write(&target, "a longer old text").expect("written");
        let with = |kind: ErrorKind| {
            let mut file = NamedTempFile::new_in(folder.path()).expect("a file");
            file.write_all(b"new").expect("written");
            put_by(file, &target, |file, _| Err((file, kind.into())))
        };
        assert!(with(ErrorKind::PermissionDenied).is_err());
        assert_eq!(std::fs::read_to_string(&target).expect("a file"), "a longer old text");
        for kind in [ErrorKind::CrossesDevices, ErrorKind::ResourceBusy] {
            with(kind).expect("copied");
            assert_eq!(std::fs::read_to_string(&target).expect("a file"), "new");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_failed_sync_is_an_error_and_none_to_be_had_is_not() {
        for (kind, fine) in [
            (ErrorKind::InvalidInput, true),
            (ErrorKind::Unsupported, true),
            (ErrorKind::StorageFull, false),
            (ErrorKind::Other, false),
        ] {
            assert_eq!(unless_unsupported(Err(kind.into())).is_ok(), fine, "{kind:?}");
        }
        let folder = tempfile::tempdir().expect("a folder");
        sync_folder(folder.path()).expect("synced");
        let error = sync_folder(&folder.path().join("gone")).expect_err("no folder").to_string();
        assert!(error.contains("gone: cannot sync the folder"), "{error}");
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_to_what_is_not_there_yet() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("inner")).expect("made");
        symlink("inner/second", at("first")).expect("a link");
        symlink("../target", at("inner/second")).expect("a link");
        symlink("circle", at("circle")).expect("a link");
        assert_eq!(followed(&at("first")), at("inner/../target"));
        assert_eq!(followed(&at("circle")), at("circle"));
        assert_eq!(followed(&at("none")), at("none"));
        std::fs::write(at("target"), "there").expect("written");
        let real = std::fs::canonicalize(at("target")).expect("a file");
        assert_eq!(followed(&at("first")), real);
    }
}
