//! The forms in which a data set can be given, in one table, from which recognition, help, errors and
//! completion follow.

use std::path::Path;

use super::about::About;
use super::catalogue::Kind;
use super::passed_over::Contents;
use super::{digits, folder, idx, list, npy_folder};
use crate::error::{Error, Result};

/// A form in which a data set can be given.
#[derive(Clone, Copy, Debug)]
pub struct DataFormat {
    /// The prefix: `idx:`; the whole text where there is no argument.
    pub prefix: &'static str,
    /// The argument after the prefix, in one word; empty where there is none.
    pub argument: &'static str,
    /// A few words of help.
    pub about: &'static str,
    /// Lists the data set; given are the argument and the user's `dataset.toml`.
    open: fn(&Path, Option<&Path>) -> Result<Kind>,
}

/// All formats. A format is a module and a line here.
const FORMATS: [DataFormat; 5] = [
    DataFormat {
        prefix: "digits",
        argument: "",
        about: "embedded",
        open: |_, _| digits::open().map(Kind::read),
    },
    DataFormat {
        prefix: "idx:",
        argument: "FOLDER",
        about: "MNIST's format",
        open: |folder, toml| idx::open(folder, |at| About::read(Path::new(at), toml)).map(Kind::read),
    },
    DataFormat {
        prefix: "folder:",
        argument: "FOLDER",
        about: "images, one folder per class",
        open: |at, toml| folder::list(at, Contents::Images, |at| About::read(at, toml)).map(Kind::files),
    },
    DataFormat {
        prefix: "list:",
        argument: "FILE.csv",
        about: "columns path, label and split",
        open: |file, toml| list::read(file, |at| About::read(at, toml)).map(Kind::files),
    },
    DataFormat {
        prefix: "npy:",
        argument: "FOLDER",
        about: "numpy arrays, one folder per class",
        open: |at, toml| npy_folder::open(at, |at| About::read(at, toml)).map(Kind::read),
    },
];

impl DataFormat {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.into_iter()
    }

    /// The form that users write: `idx:FOLDER`.
    pub fn form(&self) -> String {
        format!("{}{}", self.prefix, self.argument)
    }

    /// This format's argument in `spec`, if `spec` is of this format.
    fn argument_of<'a>(&self, spec: &'a str) -> Option<&'a str> {
        let rest = spec.strip_prefix(self.prefix)?;
        (rest.is_empty() == self.argument.is_empty()).then_some(rest)
    }

    /// All forms with a few words on each, for the help of a command.
    pub fn help() -> String {
        listed(FORMATS.map(|format| format!("`{}` ({})", format.form(), format.about)))
    }
}

/// Lists what `spec` names.
pub(super) fn open(spec: &str, dataset_toml: Option<&Path>) -> Result<Kind> {
    let found = FORMATS.iter().find_map(|format| Some((format, format.argument_of(spec)?)));
    let Some((format, argument)) = found else {
        let forms = listed(FORMATS.map(|format| format.form()));
        return Err(Error::invalid("data", "form", forms, format!("\"{spec}\"")));
    };
    (format.open)(Path::new(argument), dataset_toml)
}

/// `a, b or c`.
fn listed<const N: usize>(forms: [String; N]) -> String {
    match forms.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => forms.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_recognized_by_its_word_and_its_argument() {
        fn recognized(spec: &str) -> Option<(&str, &str)> {
            let formats = DataFormat::all();
            let found: Vec<_> =
                formats.filter_map(|format| Some((format.prefix, format.argument_of(spec)?))).collect();
            assert!(found.len() < 2, "{spec}: {found:?}");
            found.first().copied()
        }
        assert_eq!(recognized("digits"), Some(("digits", "")));
        assert_eq!(recognized("idx:a:b"), Some(("idx:", "a:b")));
        assert_eq!(recognized("folder:digits"), Some(("folder:", "digits")));
        assert_eq!(recognized("list:x.csv"), Some(("list:", "x.csv")));
        for spec in ["", "digits:", "digits:x", "idx", "idx:", "lists:x", " digits", "Folder:x"] {
            assert_eq!(recognized(spec), None, "{spec}");
        }
    }

    #[test]
    fn help_names_each_form_once() {
        let help = DataFormat::help();
        for format in DataFormat::all() {
            assert_eq!(help.matches(&format!("`{}`", format.form())).count(), 1, "{help}");
        }
    }
}
