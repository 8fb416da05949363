//! `extract compare`: two found sub-networks side by side.

use std::collections::{BTreeMap, BTreeSet};

use base::Error;
use command::{Common, Ending};
use extract::search::explain::{ChoiceChange, changes};
use extract::search::{Candidate, Found};
use serde_json::{Value, json};
use space::arch_file;

/// Compare two results of searches: which choices differ, and by how much each metric
#[derive(clap::Args)]
#[command(after_help = "Example:
  extract compare phone.json hub.json
  extract compare found.json 'found.json#front[0]' --json")]
pub struct Arguments {
    /// A found.json, or a place on its front such as `found.json#front[3]`
    #[arg(value_name = "A")]
    one: String,
    /// Another one, of the same space
    #[arg(value_name = "B")]
    other: String,
    /// The space's TOML file, if it is no preset
    #[arg(long)]
    space: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

fn read(text: &str) -> anyhow::Result<(Found, Candidate)> {
    let (path, place) = arch_file::split_place(text);
    let found = Found::read(path.as_ref())?;
    let candidate = match place {
        None => found.best.clone(),
        Some(place) => {
            let count = found.front.len();
            let none = || {
                let expected = format!("a place below {count}, the length of the front");
                Error::invalid(path, "front", expected, place).and_then_do("search with --front")
            };
            found.front.get(place).cloned().ok_or_else(none)?
        }
    };
    Ok((found, candidate))
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let (found, one) = read(&arguments.one)?;
    let (of_other, other) = read(&arguments.other)?;
    if found.space != of_other.space {
        let (expected, got) = (format!("{}, as in {}", found.space, arguments.one), &of_other.space);
        return Err(Error::invalid(&arguments.other, "space", expected, got).into());
    }
    let space = match &arguments.space {
        Some(space) => space::open(space)?,
        None => space::preset(&found.space).map_err(|error| error.and_then_do("give its file as --space"))?,
    };
    let changes = changes(&space, &one.arch, &other.arch)?;
    let names: BTreeSet<&String> = one.values.keys().chain(other.values.keys()).collect();
    let metrics: BTreeMap<&str, [Option<f64>; 2]> =
        names.into_iter().map(|name| (name.as_str(), [one.mean(name), other.mean(name)])).collect();
    let document = json!({
        "one": one.arch, "other": other.arch,
        "choices": changes,
        "metrics": metrics.iter().map(|(name, values)| (*name, of_metric(*values))).collect::<BTreeMap<_, _>>(),
    });
    arguments.common.print(&document, || {
        let mut lines = vec![format!("A             {}", one.arch), format!("B             {}", other.arch)];
        let wide = changes.iter().map(|one| one.choice.chars().count()).max().unwrap_or(0);
        for ChoiceChange { choice, from, to } in &changes {
            let [one, other] = [from, to].map(|value| value.as_deref().unwrap_or("absent"));
            lines.push(format!("choice        {choice:<wide$}  {one} in A, {other} in B"));
        }
        if changes.is_empty() {
            lines.push("choice        all are equal".to_string());
        }
        lines.extend(metrics.iter().map(|(name, values)| {
            let form = found.metrics.get(*name).or(of_other.metrics.get(*name));
            in_words(name, form.map_or("", |form| &form.unit), *values)
        }));
        lines.join("\n")
    })?;
    Ok(Ending::Done)
}

fn of_metric([one, other]: [Option<f64>; 2]) -> Value {
    json!({ "one": one, "other": other, "difference": one.zip(other).map(|(one, other)| other - one) })
}

/// A metric's line: both values, and what B has more.
fn in_words(name: &str, unit: &str, values: [Option<f64>; 2]) -> String {
    let shown = |value: f64| match unit {
        "share" => format!("{:.2} %", 100.0 * value),
        "1" => format!("{value}"),
        unit => format!("{value} {unit}"),
    };
    let [one, other] = values.map(|value| value.map_or_else(|| "unknown".to_string(), shown));
    let more = match values {
        [Some(one), Some(other)] if unit == "share" => {
            format!(" ({:+.2} points)", 100.0 * (other - one))
        }
        [Some(one), Some(other)] if one != 0.0 => format!(" ({:+.1} %)", 100.0 * (other / one - 1.0)),
        _ => String::new(),
    };
    format!("{name:<14}{one} in A, {other} in B{more}")
}
