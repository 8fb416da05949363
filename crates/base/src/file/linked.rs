//! A second place for a file, whose content then outlasts the next file of its name.

use std::fs::File;
use std::path::Path;

use super::place::{folder_of, followed, sync_folder};
use super::{beside_prefix, remove_abandoned, write_atomically_with};
use crate::error::{Error, Result};

/// Puts the content of `from` at `to` as well: as a hard link where the file system has those, else as a copy. It appears
/// whole, or the old file at `to` remains. A file that is renamed onto `from` later leaves `to` as it is; a program that
/// writes into `from` changes both.
///
/// # Errors
/// If `from` cannot be read, or `to` cannot be written.
pub fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    match link(&followed(from), to) {
        Ok(()) => sync_folder(&folder_of(to)),
        Err(_) => copy_atomically(from, to),
    }
}

/// Copies a file; the copy appears whole or not at all.
///
/// # Errors
/// As [`link_or_copy`].
pub fn copy_atomically(from: &Path, to: &Path) -> Result<()> {
    File::open(from).map_err(Error::io("read", from))?;
    write_atomically_with(to, |file| std::io::copy(&mut File::open(from)?, file).map(drop))
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    let folder = folder_of(to);
    let prefix = beside_prefix(to);
    remove_abandoned(&folder, &prefix);
    let hidden = tempfile::Builder::new()
        .prefix(&prefix)
        .make_in(&folder, |hidden| std::fs::hard_link(from, hidden))?
        .into_temp_path();
    std::fs::rename(&hidden, to)
    // onto another link to the same file nothing is renamed: the hidden name then goes as its value is dropped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{read, tests::names, write_atomically};

    #[test]
    fn what_is_linked_outlasts_the_next_file_of_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for place in [link_or_copy, copy_atomically] {
            write_atomically(&at("a"), b"first").expect("written");
            for _ in 0..2 {
                place(&at("a"), &at("b")).expect("linked, or copied");
                assert_eq!(names(folder.path()), ["a", "b"], "and nothing else");
            }
            write_atomically(&at("a"), b"second").expect("written");
            assert_eq!(read(&at("b")).expect("a file"), b"first");
            place(&at("b"), &at("a")).expect("put back");
            assert_eq!(read(&at("a")).expect("a file"), b"first");
        }
        let error = link_or_copy(&at("none"), &at("b")).expect_err("nothing there").to_string();
        assert!(error.contains("none: cannot read"), "{error}");
        assert_eq!(read(&at("b")).expect("a file"), b"first");
    }
}
