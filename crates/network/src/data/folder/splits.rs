//! The folders of the splits, found by their usual names in any case.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Expected layout of a folder of images.
pub(super) const LAYOUT: &str =
    "give a folder with train/CLASS/ and images in it, and optionally val/ and test/ alike";

const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 3] = ["val", "valid", "validation"];
const TEST: [&str; 2] = ["test", "testing"];

/// Folders that a message names.
const NAMED: usize = 5;

/// Where the splits of a data set lie.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SplitFolders {
    pub train: PathBuf,
    pub val: Option<PathBuf>,
    pub test: Option<PathBuf>,
    /// Names of the folders that are no split's.
    others: Vec<String>,
}

impl SplitFolders {
    /// Finds them in `folder`.
    ///
    /// # Errors
    /// If there is none of training images, two for one split, or a file in the place of one.
    pub fn find(folder: &Path) -> Result<Self> {
        let mut splits = [Vec::new(), Vec::new(), Vec::new()];
        let mut others = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(Error::io("open the folder", folder))? {
            let entry = entry.map_err(Error::io("read", folder))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            let lower = name.to_lowercase();
            let split = [&TRAIN[..], &VAL, &TEST].iter().position(|names| names.contains(&lower.as_str()));
            match split {
                Some(split) if path.is_dir() => splits[split].push(name),
                Some(_) => {
                    let got = if path.exists() { "a file" } else { "a link to nowhere" };
                    return Err(Error::invalid(path.display(), "kind", "a folder of images", got)
                        .and_then_do("mend or rename it"));
                }
                None if path.is_dir() && !name.starts_with('.') => others.push(name),
                None => {}
            }
        }
        others.sort();
        let [train, val, test] = splits;
        let one = |mut names: Vec<String>, what: &str| match names.as_mut_slice() {
            [] => Ok(None),
            [name] => Ok(Some(folder.join(name))),
            names => {
                names.sort();
                Err(Error::invalid(
                    folder.display(),
                    format!("folders of {what} images"),
                    "one",
                    names.join(" and "),
                )
                .and_then_do("rename or remove all but one"))
            }
        };
        let Some(train) = one(train, "training")? else {
            let got = match others.as_slice() {
                [] => "no such folder".to_string(),
                others => format!("no such folder, only {}", listed(others)),
            };
            let place = folder.join(TRAIN[0]);
            return Err(Error::invalid(place.display(), "folder", "training images", got).and_then_do(LAYOUT));
        };
        Ok(Self { train, val: one(val, "validation")?, test: one(test, "test")?, others })
    }

    /// A warning of folders that are not read.
    pub fn warning(&self) -> Vec<String> {
        if self.others.is_empty() {
            return Vec::new();
        }
        let others = listed(&self.others);
        vec![format!("not looked into: {others}; name a folder val or test if it holds such images")]
    }
}

fn listed(names: &[String]) -> String {
    let named: Vec<String> = names.iter().take(NAMED).map(|name| format!("{name}/")).collect();
    let more = match names.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}
