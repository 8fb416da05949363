//! Logs: `tracing` events of libraries and commands, one line per event on stderr.
//!
//! A line is the event's message, with `warning: ` or `error: ` before it. Progress bars make room for it.

use std::fmt::{self, Write as _};
use std::sync::Mutex;

use anyhow::anyhow;
use base::timing::unix_time;
use indicatif::{ProgressBar, WeakProgressBar};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::output::print_message;

/// Environment variable for the form of logs.
const VARIABLE: &str = "ONCE_FOR_ALL_LOG";

/// The crates whose events are logged; those of other crates are not.
const TARGETS: [&str; 9] =
    ["base", "space", "kernels", "latency", "search", "network", "command", "supernet", "extract"];

/// The form of an event's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The message, for people.
    Text,
    /// A JSON object with all of its fields, for programs.
    Json,
}

impl Form {
    fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Logs events from now on: only errors if `quiet`, else notes and warnings too.
///
/// # Errors
/// If the environment names an unknown form; events are then logged as text.
pub fn log_events(quiet: bool) -> anyhow::Result<()> {
    let requested = std::env::var(VARIABLE).ok();
    let form = requested.as_deref().map_or(Some(Form::Text), Form::named);
    let lines =
        Lines { most: if quiet { Level::ERROR } else { Level::INFO }, form: form.unwrap_or(Form::Text) };
    // only a second command in one process finds a subscriber here, which logs events too
    let _ = tracing::subscriber::set_global_default(lines);
    match (form, requested) {
        (None, Some(requested)) => {
            Err(anyhow!("environment variable {VARIABLE}: expected text or json, got {requested}"))
        }
        _ => Ok(()),
    }
}

/// The bar that is shown, if any.
static BAR: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// From now on lines are written above this bar.
pub(crate) fn make_room(bar: &ProgressBar) {
    *BAR.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(bar.downgrade());
}

fn bar() -> Option<ProgressBar> {
    BAR.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).as_ref().and_then(WeakProgressBar::upgrade)
}

/// Writes a line for each event.
struct Lines {
    /// The least urgent level that is logged.
    most: Level,
    form: Form,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let owner = metadata.target().split("::").next().unwrap_or_default();
        metadata.is_event() && *metadata.level() <= self.most && TARGETS.contains(&owner)
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(self.most.into())
    }

    fn event(&self, event: &Event<'_>) {
        let line = line_of(event, self.form);
        match bar() {
            Some(bar) => bar.suspend(|| print_message(line)),
            None => print_message(line),
        }
    }

    // nothing uses spans

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line_of(event: &Event<'_>, form: Form) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let level = *event.metadata().level();
    match form {
        Form::Text if level == Level::ERROR => format!("error: {}", fields.message),
        Form::Text if level == Level::WARN => format!("warning: {}", fields.message),
        Form::Text => fields.message,
        Form::Json => {
            let Fields { message, mut others } = fields;
            let level = level.as_str().to_ascii_lowercase();
            let target = event.metadata().target();
            for (name, value) in [("level", level), ("target", target.to_string()), ("message", message)] {
                others.insert(name.to_string(), Value::String(value));
            }
            others.insert("time".to_string(), json!(unix_time()));
            Value::Object(others).to_string()
        }
    }
}

/// The fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_string(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // writing to a string cannot fail
            let _ = write!(self.message, "{value:?}");
        } else {
            self.add(field, Value::String(format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            _ => self.add(field, value.into()),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Collects the lines that [`Lines`] would print.
    struct Kept {
        lines: Lines,
        lines_seen: Arc<Mutex<Vec<String>>>,
    }

    impl Subscriber for Kept {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            self.lines.enabled(metadata)
        }

        fn event(&self, event: &Event<'_>) {
            self.lines_seen.lock().expect("one thread").push(line_of(event, self.lines.form));
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.lines.new_span(span)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    fn logged(most: Level, form: Form) -> Vec<String> {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let subscriber = Kept { lines: Lines { most, form }, lines_seen: kept.clone() };
        tracing::subscriber::with_default(subscriber, || {
            let left = 3;
            let path = "a \"b\".json";
            tracing::info!(left, share = 0.5, "{left} of {} {{}}", 7);
            tracing::warn!(path, "left out: {path}");
            tracing::error!("it failed");
            tracing::debug!("not logged");
            tracing::info!(target: "ort::session", "another's");
        });
        kept.lock().expect("one thread").clone()
    }

    #[test]
    fn a_line_is_the_message_after_its_level() {
        let lines = ["3 of 7 {}", "warning: left out: a \"b\".json", "error: it failed"];
        assert_eq!(logged(Level::INFO, Form::Text), lines);
        assert_eq!(logged(Level::ERROR, Form::Text), &lines[2..]);
    }

    #[test]
    fn json_has_all_fields() {
        let lines = logged(Level::INFO, Form::Json);
        let objects: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        assert_eq!(objects.len(), 3);
        assert_eq!((&objects[0]["left"], &objects[0]["share"]), (&json!(3), &json!(0.5)));
        assert_eq!((&objects[0]["level"], &objects[0]["message"]), (&json!("info"), &json!("3 of 7 {}")));
        assert_eq!((&objects[1]["level"], &objects[1]["path"]), (&json!("warn"), &json!("a \"b\".json")));
        assert_eq!(objects[2]["target"], json!("command::log::tests"));
        assert!(objects[0]["time"].is_f64());
    }

    #[test]
    fn forms_have_names() {
        assert_eq!(
            (Form::named("json"), Form::named("text"), Form::named("xml")),
            (Some(Form::Json), Some(Form::Text), None)
        );
    }
}
