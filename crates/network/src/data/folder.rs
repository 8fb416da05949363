//! Folders of images or arrays, one folder per class: `train/CLASS/…`, optional `val/` and `test/` alike, or flat with a list of
//! labels, as ImageNet's validation images lie.
//!
//! An optional `dataset.toml` in the folder says whether images may be mirrored.

mod label_list;
mod splits;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::splits::SplitFolders;
use super::about::About;
use super::catalogue::Files;
use super::classes::composed;
use super::dataset::Late;
use super::look::Listed;
use super::passed_over::{Contents, PassedOver};
use super::{Split, idx};
use crate::error::{Error, Result};

/// Folders in a class's folder are looked into this deep.
const DEEPEST: usize = 8;

/// The folders of each class, by its name: two where the name is written in two ways that are one in Unicode.
type ClassFolders = BTreeMap<String, Vec<PathBuf>>;

/// The files of the data set in `folder`. Natural images may be mirrored by default.
pub(super) fn list(
    folder: &Path,
    contents: Contents,
    about: impl Fn(&Path) -> Result<About>,
) -> Result<Files> {
    let found = SplitFolders::find(folder)?;
    let about = about(folder)?;
    let name = about.name.clone().unwrap_or_else(|| idx::folder_name(folder));
    let source = match contents {
        Contents::Images => format!("image files in a folder {name}"),
        Contents::Arrays => format!("numpy arrays in a folder {name}"),
    };
    let origin = about.into_origin(name, source)?;
    let classes: Vec<String> = class_folders(&found.train)?.into_keys().collect();
    if classes.is_empty() {
        return Err(Error::invalid(found.train.display(), "classes", "a folder for each", "none")
            .and_then_do(splits::LAYOUT));
    }
    let mut warnings = found.warning();
    let train = list_split(Split::Train, &found.train, contents, &classes, &mut warnings)?;
    let val = found.val.as_deref();
    let val = val.map(|val| list_split(Split::Val, val, contents, &classes, &mut warnings));
    let name_of = |folder: &Path| idx::folder_name(folder);
    let val_from = match &found.val {
        Some(val) => format!("from {}/", name_of(val)),
        None => format!("a fixed tenth of each class of {}/", name_of(&found.train)),
    };
    let test = found.test.map(Late::Folder);
    Ok(Files { origin, classes, train, val: val.transpose()?, test, val_from, warnings })
}

/// The files of a split; warns of skipped ones.
pub(super) fn list_split(
    split: Split,
    folder: &Path,
    contents: Contents,
    classes: &[String],
    warnings: &mut Vec<String>,
) -> Result<Listed> {
    let mut over = PassedOver::of(contents);
    let folders = class_folders(folder)?;
    let known = folders.keys().any(|name| classes.contains(name));
    let listed = contents == Contents::Images && split != Split::Train && !known;
    let labels = if listed { label_list::find(folder, split)? } else { None };
    let files = match labels {
        Some(labels) => labels.files(classes, &mut over)?,
        None => {
            if folders.is_empty() && contents == Contents::Images {
                label_list::refuse_without(folder)?;
            }
            check_classes(folder, &folders, classes)?;
            files_by_class(folder, &folders, &mut over)?
        }
    };
    warnings.extend(over.in_words().map(|words| format!("passed over in {split}: {words}")));
    Ok(Listed { split, place: folder.to_path_buf(), files })
}

/// The folders in `folder`, by name; hidden ones are ignored.
fn class_folders(folder: &Path) -> Result<ClassFolders> {
    let mut folders = ClassFolders::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("open the folder", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name();
        let path = entry.path();
        if name.to_string_lossy().starts_with('.') || !path.is_dir() {
            continue;
        }
        let name = name.into_string().map_err(|name| {
            Error::invalid(folder.display(), "name of a class", "UTF-8", name.display())
                .and_then_do("rename it")
        })?;
        folders.entry(composed(&name)).or_default().push(path);
    }
    folders.values_mut().for_each(|paths| paths.sort());
    Ok(folders)
}

/// A split has the classes of training, all and no others.
fn check_classes(folder: &Path, folders: &ClassFolders, classes: &[String]) -> Result<()> {
    let missing = classes.iter().find(|class| !folders.contains_key(*class));
    // names are sorted, as the folders were
    let unknown = folders.keys().find(|name| classes.binary_search(name).is_err());
    let (expected, got) = match (missing, unknown) {
        (Some(class), _) => (format!("a folder `{class}` as in train"), "none".to_string()),
        (None, Some(name)) => ("the classes of train".to_string(), format!("a folder `{name}` besides")),
        (None, None) => return Ok(()),
    };
    Err(Error::invalid(folder.display(), "classes", expected, got)
        .and_then_do("every split needs the same classes; add images of it, or remove the class"))
}

/// The image files of each class, which has at least one, by label and path.
fn files_by_class(
    folder: &Path,
    folders: &ClassFolders,
    over: &mut PassedOver,
) -> Result<Vec<(PathBuf, u32)>> {
    let mut files = Vec::new();
    for (label, paths) in folders.values().enumerate() {
        let mut images = Vec::new();
        let mut own = PassedOver::of(over.contents());
        for path in paths {
            list_into(path, DEEPEST, &mut images, &mut own)?;
        }
        if images.is_empty() {
            return Err(empty(&paths[0], &own));
        }
        images.sort();
        files.extend(images.into_iter().map(|path| (path, label as u32)));
        over.add(own);
    }
    let mut beside = Vec::new();
    let mut own = PassedOver::of(over.contents());
    for entry in shown_in(folder)? {
        if entry.kind != Kind::Folder {
            list_file(entry, &mut beside, &mut own);
        }
    }
    own.outside = beside.len();
    over.add(own);
    Ok(files)
}

fn empty(folder: &Path, over: &PassedOver) -> Error {
    let got = over.in_words().unwrap_or_else(|| "none".to_string());
    let (field, advice) = match over.contents() {
        Contents::Images => ("images", "add images, convert them, or remove the class"),
        Contents::Arrays => ("arrays", "add .npy files, or remove the class"),
    };
    Error::invalid(folder.display(), field, "at least one", got).and_then_do(advice)
}

/// Image files of a folder and of those in it, up to `depth` folders deep; other files are counted. Hidden ones are ignored.
fn list_into(folder: &Path, depth: usize, images: &mut Vec<PathBuf>, over: &mut PassedOver) -> Result<()> {
    for entry in shown_in(folder)? {
        let path = &entry.path;
        match entry.kind {
            Kind::Folder if leads_back(path, folder) => over.no_files += 1,
            Kind::Folder if depth == 0 => over.too_deep += files_below(path),
            Kind::Folder => list_into(path, depth - 1, images, over)?,
            _ => list_file(entry, images, over),
        }
    }
    Ok(())
}

/// An entry of a folder.
struct Entry {
    path: PathBuf,
    kind: Kind,
}

/// Kind of the entry; of a link, the kind of its target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Folder,
    File,
    /// A link to nowhere.
    Dangling,
    /// A pipe or a device, which has no end.
    Other,
}

impl Kind {
    fn of(kind: std::fs::FileType) -> Self {
        match kind {
            kind if kind.is_dir() => Self::Folder,
            kind if kind.is_file() => Self::File,
            _ => Self::Other,
        }
    }
}

/// The entries of a folder that are not hidden. Only links need a call each: the folder has the kinds of all others.
fn shown_in(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("open the folder", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = match entry.file_type().map_err(Error::io("read", &path))? {
            kind if kind.is_symlink() => match std::fs::metadata(&path) {
                Ok(found) => Kind::of(found.file_type()),
                Err(_) => Kind::Dangling,
            },
            kind => Kind::of(kind),
        };
        entries.push(Entry { path, kind });
    }
    Ok(entries)
}

/// Takes an entry that is no folder for an image, or counts it.
fn list_file(Entry { path, kind }: Entry, images: &mut Vec<PathBuf>, over: &mut PassedOver) {
    match kind {
        Kind::Dangling => over.dangling += 1,
        // a file that cannot be read is reported when its image is read
        Kind::File if over.takes(&path) => images.push(path),
        Kind::File => {}
        Kind::Folder | Kind::Other => over.no_files += 1,
    }
}

/// The files in a folder and its folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagesIn {
    /// Image files, by path.
    pub images: Vec<PathBuf>,
    /// The other entries, in words.
    pub passed_over: Option<String>,
}

/// The image files in a folder and its folders, recognized as in a class's folder; files with an ending of `also` are taken
/// too.
///
/// # Errors
/// If a folder cannot be read.
pub fn images_in(folder: &Path, also: &[&'static str]) -> Result<ImagesIn> {
    let mut images = Vec::new();
    let mut over = PassedOver::taking(also);
    list_into(folder, DEEPEST, &mut images, &mut over)?;
    images.sort();
    Ok(ImagesIn { images, passed_over: over.in_words() })
}

/// Files in a folder and below; folders that cannot be opened count as one, and links are not followed.
fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 1 };
    let seen = entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    seen.map(|entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files_below(&entry.path()),
        _ => 1,
    })
    .sum()
}

/// Whether a folder in `folder` is a link to one that it lies in, which would be looked into for ever.
fn leads_back(path: &Path, folder: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    path.is_symlink() && real(path).zip(real(folder)).is_some_and(|(path, folder)| folder.starts_with(path))
}

#[cfg(test)]
mod tests;
