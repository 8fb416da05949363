//! Files in a folder of images or arrays that are neither: counted, so that none is skipped in silence.

use std::collections::BTreeMap;
use std::path::Path;

use super::image_file;

/// Endings of image files; the content decides the format.
const ENDINGS: [&str; 16] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "tif", "tiff", "gif", "ppm", "pgm", "pbm",
    "pnm", "pam",
];

/// Endings of image formats that are not read.
const UNREAD: [&str; 13] =
    ["avif", "heic", "heif", "jxl", "jp2", "j2k", "svg", "psd", "exr", "tga", "ico", "dcm", "dng"];

/// Kind of the files in a data set's folders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Contents {
    /// Images of any format that is read.
    #[default]
    Images,
    /// numpy's arrays.
    Arrays,
}

impl Contents {
    /// A message about images, with this kind's word.
    fn said(self, words: &str) -> String {
        match self {
            Self::Images => words.to_string(),
            Self::Arrays => words.replace("image", "array"),
        }
    }
}

/// Files of a split that are not read, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PassedOver {
    contents: Contents,
    /// Endings of files that are taken too.
    also: Vec<&'static str>,
    no_images: BTreeMap<String, usize>,
    unread: BTreeMap<String, usize>,
    /// Links to nowhere.
    pub dangling: usize,
    /// Files in folders that lie too deep.
    pub too_deep: usize,
    /// Pipes, devices, and links to a folder that they lie in.
    pub no_files: usize,
    /// Images that lie next to the folders of classes.
    pub outside: usize,
    /// Images that a list of labels does not name.
    pub unlisted: usize,
}

impl PassedOver {
    /// Nothing yet; files of these endings are taken as images are.
    pub fn taking(also: &[&'static str]) -> Self {
        Self { also: also.to_vec(), ..Self::default() }
    }

    /// Nothing yet, in a folder of these.
    pub fn of(contents: Contents) -> Self {
        Self { contents, ..Self::default() }
    }

    /// Kind of the files that are read.
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Whether a file is to be read as an image; one that is not is counted. A file without an ending is judged by its
    /// content, one with another ending than an image's is none.
    pub fn takes(&mut self, path: &Path) -> bool {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        if self.contents == Contents::Arrays {
            return self.takes_array(ending);
        }
        let ending = match ending {
            Some(ending) if ENDINGS.contains(&ending.as_str()) => return true,
            Some(ending) if self.also.contains(&ending.as_str()) => return true,
            None if image_file::begins_as_image(path) => return true,
            Some(ending) => format!(".{ending}"),
            None => "without ending".to_string(),
        };
        let unread = UNREAD.contains(&ending.trim_start_matches('.'));
        let counts = if unread { &mut self.unread } else { &mut self.no_images };
        *counts.entry(ending).or_default() += 1;
        false
    }

    /// Whether a file of this ending is to be read as an array.
    fn takes_array(&mut self, ending: Option<String>) -> bool {
        if ending.as_deref() == Some("npy") {
            return true;
        }
        let ending = ending.map_or_else(|| "without ending".to_string(), |ending| format!(".{ending}"));
        *self.no_images.entry(ending).or_default() += 1;
        false
    }

    /// Adds the skipped files of another folder.
    pub fn add(&mut self, other: Self) {
        let Self { no_images, unread, dangling, too_deep, no_files, outside, unlisted, .. } = other;
        for (counts, more) in [(&mut self.no_images, no_images), (&mut self.unread, unread)] {
            more.into_iter().for_each(|(kind, count)| *counts.entry(kind).or_default() += count);
        }
        self.dangling += dangling;
        self.too_deep += too_deep;
        self.no_files += no_files;
        self.outside += outside;
        self.unlisted += unlisted;
    }

    /// Takes a file that was read otherwise, as a list of labels, out of the count.
    pub fn forget(&mut self, path: &Path) {
        let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy().to_lowercase()));
        if let Some(count) = ending.and_then(|ending| self.no_images.get_mut(&ending)) {
            *count -= 1;
        }
        self.no_images.retain(|_, count| *count > 0);
    }

    /// The skipped files, if there are any: `3 files that are no images (2 .txt, 1 without ending), 1 dangling link`.
    pub fn in_words(&self) -> Option<String> {
        let kinds = |counts: &BTreeMap<String, usize>| {
            let each: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            format!("({})", each.join(", "))
        };
        let total = |counts: &BTreeMap<String, usize>| counts.values().sum::<usize>();
        let parts = [
            (total(&self.no_images), "file that is no image", "files that are no images"),
            (total(&self.unread), "image of a kind that is not read", "images of kinds that are not read"),
            (self.dangling, "dangling link", "dangling links"),
            (self.too_deep, "file deeper than 8 folders", "files deeper than 8 folders"),
            (self.no_files, "pipe, device or link that leads back", "pipes, devices or links that lead back"),
            (
                self.outside,
                "image next to the folders of the classes",
                "images next to the folders of the classes",
            ),
            (
                self.unlisted,
                "image that the list of labels does not name",
                "images that the list of labels does not name",
            ),
        ];
        let mut words = Vec::new();
        for (at, (count, one, many)) in parts.into_iter().enumerate().filter(|(_, part)| part.0 > 0) {
            let kinds = match at {
                0 => format!(" {}", kinds(&self.no_images)),
                1 => format!(" {}", kinds(&self.unread)),
                _ => String::new(),
            };
            words.push(format!("{count} {}{kinds}", if count == 1 { one } else { many }));
        }
        (!words.is_empty()).then(|| self.contents.said(&words.join(", ")))
    }
}
