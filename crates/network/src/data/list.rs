//! `list:FILE.csv`: a file that names images, their classes and their splits.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base::file;

use super::about::About;
use super::catalogue::Files;
use super::classes::composed;
use super::csv::Table;
use super::dataset::Late;
use super::look::Listed;
use super::{Split, idx};
use crate::error::{Error, Result};

/// One line: an image, its class and its split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedImage {
    /// Where the line begins, counted from 1.
    pub line: usize,
    /// From the list's folder on.
    pub path: PathBuf,
    /// The class's name.
    pub class: String,
    /// The split.
    pub split: Split,
}

/// The files that a list names.
pub(super) fn read(path: &Path, about: impl Fn(&Path) -> Result<About>) -> Result<Files> {
    let place = path.display().to_string();
    let text = file::read_text(path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let about = about(folder)?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let name = about.name.clone().or(stem).unwrap_or_else(|| idx::folder_name(folder));
    let source = format!("image files that a list {name} names");
    let origin = about.into_origin(name, source)?;
    let images = list_from_text(&place, &text)?;
    let classes: BTreeSet<&String> =
        images.iter().filter(|image| image.split == Split::Train).map(|image| &image.class).collect();
    if classes.is_empty() {
        return Err(Error::invalid(&place, "training images", "at least one", "none")
            .and_then_do("write train into the column split of images to train on"));
    }
    let labels: BTreeMap<&String, u32> = classes.iter().copied().zip(0..).collect();
    let of = |split| of_split(split, &images, &labels, path);
    let train = of(Split::Train)?;
    let val = of(Split::Val)?;
    let test = of(Split::Test)?;
    let train = train.ok_or_else(|| Error::invalid(&place, "training images", "at least one", "none"))?;
    let val_from = match &val {
        Some(_) => "those that the list says".to_string(),
        None => "a fixed tenth of each class of train".to_string(),
    };
    let classes = classes.into_iter().cloned().collect();
    Ok(Files { origin, classes, train, val, test: test.map(Late::Files), val_from, warnings: Vec::new() })
}

/// The images of a split, by label and path; `None` if there are none.
fn of_split(
    split: Split,
    images: &[ListedImage],
    labels: &BTreeMap<&String, u32>,
    list: &Path,
) -> Result<Option<Listed>> {
    let place = list.display();
    let folder = list.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    for image in images.iter().filter(|image| image.split == split) {
        let label = labels.get(&image.class).ok_or_else(|| {
            let field = format!("line {}", image.line);
            let got = format!("`{}`", image.class);
            Error::invalid(&place, field, "a class that has training images", got)
                .and_then_do("every split needs the same classes")
        })?;
        files.push((folder.join(&image.path), *label));
    }
    if files.is_empty() {
        return Ok(None);
    }
    files.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
    let listed = Listed { split, place: list.to_path_buf(), files };
    let counts = listed.counts(labels.len());
    if let Some((class, _)) = labels.iter().find(|(_, label)| counts[**label as usize] == 0) {
        let expected = format!("some of class `{class}`");
        return Err(Error::invalid(&place, format!("{split} images"), expected, "none")
            .and_then_do("every split needs the same classes; add images of it, or remove the class"));
    }
    Ok(Some(listed))
}

/// The lines of a list: a header with the columns `path`, `label` and `split`, then an image per line; `place` names it
/// in messages.
///
/// # Errors
/// If it is no such list, a field is empty, a split is none, or an image stands in one split twice.
pub fn list_from_text(place: &str, text: &str) -> Result<Vec<ListedImage>> {
    let table = Table::of_text(place, text)?;
    let [path, label, split] = table.columns(place, ["path", "label", "split"])?;
    let mut images = Vec::with_capacity(table.rows.len());
    let mut seen: BTreeMap<(PathBuf, Split), usize> = BTreeMap::new();
    for row in table.rows {
        let wrong =
            |expected: &str, got: String| Error::invalid(place, format!("line {}", row.line), expected, got);
        let field = |column: usize, name: &str| match row.fields[column].trim() {
            "" => Err(wrong(&format!("a {name}"), "none".to_string())),
            field => Ok(field.to_string()),
        };
        let path = PathBuf::from(field(path, "path")?);
        let class = composed(&field(label, "label")?);
        let named = field(split, "split")?;
        let split =
            split_named(&named).ok_or_else(|| wrong("a split: train, val or test", format!("`{named}`")))?;
        if let Some(line) = seen.insert((path.clone(), split), row.line) {
            let got = format!("{} as in line {line}", path.display());
            return Err(wrong("another image of the split", got).and_then_do("remove a line"));
        }
        images.push(ListedImage { line: row.line, path, class, split });
    }
    Ok(images)
}

/// The split of a name in use, in any case.
fn split_named(name: &str) -> Option<Split> {
    match name.to_lowercase().as_str() {
        "train" | "training" => Some(Split::Train),
        "val" | "valid" | "validation" => Some(Split::Val),
        "test" | "testing" => Some(Split::Test),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
