//! `extract strategies`: what a search can be run with.

use command::{Common, Ending};
use extract::search::{STRATEGIES, StrategyKind};
use serde_json::{Value, json};

/// List the search strategies, their parameters and the defaults of these
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract strategies evolution")]
pub struct Arguments {
    /// Only this strategy
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let listed = match &arguments.name {
        Some(name) => vec![StrategyKind::named(name)?],
        None => STRATEGIES.to_vec(),
    };
    let document = json!({ "version": 1, "strategies": listed.iter().map(of_strategy).collect::<Vec<_>>() });
    arguments.common.print(&document, || listed.iter().map(text).collect::<Vec<_>>().join("\n\n"))?;
    Ok(Ending::Done)
}

fn of_strategy(kind: &StrategyKind) -> Value {
    let parameters: Vec<Value> = kind
        .parameters
        .iter()
        .map(|one| json!({ "name": one.name, "default": one.default, "what": one.what }))
        .collect();
    json!({ "name": kind.name, "what": kind.what, "parameters": parameters })
}

fn text(kind: &StrategyKind) -> String {
    let mut lines = vec![format!("{}: {}", kind.name, kind.what)];
    for one in kind.parameters {
        lines.push(format!("  {:<24}{}", format!("{}={}", one.name, one.default), one.what));
    }
    lines.join("\n")
}
