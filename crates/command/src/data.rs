//! `--data`: one parser and one help text for all commands.

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use network::data::DataFormat;

/// A parser of a data set's form. It accepts any text, since errors are reported when the data set is opened; shells
/// complete it from the table of formats.
pub fn data_form() -> impl TypedValueParser<Value = String> {
    Form(StringValueParser::new())
}

/// The help of a flag for a data set: its purpose, then all forms.
pub fn data_help(what: &str) -> String {
    format!("{what}: {}", DataFormat::help())
}

#[derive(Clone)]
struct Form(StringValueParser);

impl TypedValueParser for Form {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        self.0.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(
            DataFormat::all().map(|format: DataFormat| PossibleValue::new(format.prefix).help(format.about)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Arg, Command};

    #[test]
    fn any_text_is_taken_and_the_known_forms_are_offered() {
        let arg = Arg::new("data").long("data").value_parser(data_form());
        let offered: Vec<_> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_string()).collect();
        assert_eq!(offered, DataFormat::all().map(|format| format.prefix).collect::<Vec<_>>());
        let matches = Command::new("test").arg(arg).try_get_matches_from(["test", "--data", "folder:a b"]);
        let given = matches.expect("any text").get_one::<String>("data").cloned();
        assert_eq!(given.as_deref(), Some("folder:a b"));
        assert!(
            data_help("Images").starts_with("Images: `digits` (embedded), `idx:FOLDER` (MNIST's format), ")
        );
    }
}
