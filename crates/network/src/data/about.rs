//! `dataset.toml`: the facts of a data set that its images do not contain.

use std::path::{Path, PathBuf};

use base::file;
use serde::Deserialize;

use super::DatasetOrigin;
use crate::error::{Error, Result};

/// The file's name in the data set's folder.
pub(super) const NAME: &str = "dataset.toml";

/// Content of the file; every field is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct About {
    /// A short name, in place of the folder's.
    pub name: Option<String>,
    /// Where the images come from and under which license.
    pub source: Option<String>,
    /// Whether a mirrored image still shows its class.
    pub flip: Option<bool>,
    /// Names of the classes by label, where no folders name them.
    pub classes: Option<Vec<String>>,
    /// The file that said it.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl About {
    /// The origin of image files, whose classes have names already; mirrored by default, as natural images may be.
    pub fn into_origin(self, name: String, source: String) -> Result<DatasetOrigin> {
        if let (Some(_), Some(path)) = (&self.classes, &self.path) {
            return Err(Error::invalid(
                path.display(),
                "classes",
                "none: the images' classes have names",
                "some",
            )
            .and_then_do("rename the classes there, or leave it out"));
        }
        let source = self.source.unwrap_or(source);
        let flip = self.flip.unwrap_or(true);
        Ok(DatasetOrigin { name, source, flip })
    }

    /// Reads `file`, or `dataset.toml` in the folder if there is one.
    pub fn read(folder: &Path, file: Option<&Path>) -> Result<Self> {
        let path = file.map_or_else(|| folder.join(NAME), Path::to_path_buf);
        if file.is_none() && !path.is_file() {
            return Ok(Self::default());
        }
        let text = file::read_text(&path)?;
        let form = "`name`, `source`, `flip` and `classes` in TOML";
        let about: Self = toml::from_str(&text)
            .map_err(|error| Error::invalid(path.display(), "text", form, error.to_string().trim_end()))?;
        let classes = about.classes.iter().flatten();
        if let Some(class) = classes.clone().find(|class| classes.clone().filter(|c| c == class).count() > 1)
        {
            return Err(Error::invalid(
                path.display(),
                "classes",
                "each name once",
                format!("`{class}` twice"),
            ));
        }
        if about.classes.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid(path.display(), "classes", "a name for each", "none"));
        }
        Ok(Self { path: Some(path), ..about })
    }
}
