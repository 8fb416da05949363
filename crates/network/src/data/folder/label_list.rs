//! Images of a split that lie in one folder, with a file that says the class of each: ImageNet's validation images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use base::file;

use super::{DEEPEST, list_into};
use crate::data::Split;
use crate::data::classes::composed;
use crate::data::csv::Table;
use crate::data::passed_over::PassedOver;
use crate::error::{Error, Result};

/// Columns `path,label`; paths from the folder on.
const LABELS: &str = "labels.csv";
/// Tiny ImageNet's: file, class and a box, with tabs between them.
const ANNOTATIONS: &str = "val_annotations.txt";
/// Numbers in an order that only the devkit's `meta.mat` defines.
const GROUND_TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";

/// A file that says the class of each image of a folder.
pub(super) struct LabelList {
    folder: PathBuf,
    path: PathBuf,
    /// Line, image and class.
    rows: Vec<(usize, String, String)>,
    /// Whether images are named by their files' names alone, without folder and ending.
    by_stem: bool,
}

/// The list next to the images of a split, if there is one.
pub(super) fn find(folder: &Path, split: Split) -> Result<Option<LabelList>> {
    let solution = format!("LOC_{split}_solution.csv");
    let candidates = [folder.join(LABELS), folder.join(ANNOTATIONS), folder.join(&solution)];
    let beside = folder.parent().map(|parent| parent.join(&solution));
    let mut found: Vec<PathBuf> =
        candidates.into_iter().chain(beside).filter(|path| path.is_file()).collect();
    let Some(path) = found.pop() else { return Ok(None) };
    if let Some(other) = found.pop() {
        let got = format!("{} and {}", other.display(), path.display());
        return Err(Error::invalid(folder.display(), "lists of labels", "one", got).and_then_do("remove one"));
    }
    let place = path.display().to_string();
    let text = file::read_text(&path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rows = match name.as_str() {
        LABELS => of_columns(&place, &text, ["path", "label"])?,
        ANNOTATIONS => of_tabs(&place, &text)?,
        // several objects of one class: its name, four numbers, its name again
        _ => of_columns(&place, &text, ["ImageId", "PredictionString"])?
            .into_iter()
            .map(|(line, image, objects)| {
                (line, image, objects.split_whitespace().next().unwrap_or_default().to_string())
            })
            .collect(),
    };
    Ok(Some(LabelList { folder: folder.to_path_buf(), by_stem: name != LABELS, path, rows }))
}

fn of_columns(place: &str, text: &str, names: [&str; 2]) -> Result<Vec<(usize, String, String)>> {
    let table = Table::of_text(place, text)?;
    let [image, label] = table.columns(place, names)?;
    Ok(table
        .rows
        .into_iter()
        .map(|row| (row.line, row.fields[image].clone(), row.fields[label].clone()))
        .collect())
}

fn of_tabs(place: &str, text: &str) -> Result<Vec<(usize, String, String)>> {
    let mut rows = Vec::new();
    for (line, text) in text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let mut fields = text.split('\t').map(str::to_string);
        let (Some(image), Some(label)) = (fields.next(), fields.next()) else {
            let field = format!("line {}", line + 1);
            return Err(Error::invalid(place, field, "an image and its class with a tab between", text));
        };
        rows.push((line + 1, image, label));
    }
    Ok(rows)
}

impl LabelList {
    /// The images with their labels, by label and path; what the list does not name is counted.
    pub fn files(self, classes: &[String], over: &mut PassedOver) -> Result<Vec<(PathBuf, u32)>> {
        let mut images = Vec::new();
        let mut own = PassedOver::default();
        list_into(&self.folder, DEEPEST, &mut images, &mut own)?;
        own.forget(&self.path);
        over.add(own);
        let mut there: HashMap<String, PathBuf> =
            images.into_iter().map(|path| (self.key(&path), path)).collect();
        let labels: BTreeMap<&String, u32> = classes.iter().zip(0..).collect();
        let place = self.path.display();
        let mut files = Vec::with_capacity(self.rows.len());
        for (line, image, class) in &self.rows {
            let class = composed(class.trim());
            let label = labels.get(&class).ok_or_else(|| {
                Error::invalid(&place, format!("line {line}"), "a class of train", format!("`{class}`"))
                    .and_then_do("name it as its folder in train/")
            })?;
            // one that is not there is named when it is looked for
            let named = self.folder.join(image.trim());
            let path = there.remove(&self.key(&named)).unwrap_or(named);
            files.push((path, *label));
        }
        over.unlisted += there.len();
        files.sort_by(|one, other| (one.1, &one.0).cmp(&(other.1, &other.0)));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let got = format!("{} again", pair[0].0.display());
            return Err(Error::invalid(&place, "images", "each once", got).and_then_do("remove a line"));
        }
        let named: HashSet<u32> = files.iter().map(|file| file.1).collect();
        if let Some(class) = labels.iter().find(|(_, label)| !named.contains(label)) {
            return Err(Error::invalid(&place, "images", format!("some of class `{}`", class.0), "none")
                .and_then_do("every split needs the same classes; add images of it, or remove the class"));
        }
        Ok(files)
    }

    /// The name that identifies an image.
    fn key(&self, path: &Path) -> String {
        let name = if self.by_stem { path.file_stem().map(Path::new) } else { None };
        name.unwrap_or_else(|| path.strip_prefix(&self.folder).unwrap_or(path)).to_string_lossy().into_owned()
    }
}

/// The error of images that lie in one folder without a list of their classes.
pub(super) fn refuse_without(folder: &Path) -> Result<()> {
    let mut images = Vec::new();
    let mut over = PassedOver::default();
    list_into(folder, 0, &mut images, &mut over)?;
    let beside = folder.parent().map(|parent| parent.join(GROUND_TRUTH));
    let truth = [Some(folder.join(GROUND_TRUTH)), beside].into_iter().flatten().any(|path| path.is_file());
    let got = match (truth, images.len()) {
        (true, _) => format!("{GROUND_TRUTH}, whose numbers only the devkit's meta.mat explains"),
        (false, 0) => "none".to_string(),
        (false, count) => format!("{count} images without any"),
    };
    let expected = format!("a folder for each, or a list {LABELS}, LOC_val_solution.csv or {ANNOTATIONS}");
    Err(Error::invalid(folder.display(), "classes", expected, got)
        .and_then_do("write labels.csv into it: a line path,label, then one such line per image"))
}
