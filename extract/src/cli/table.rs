//! `extract table`: what a latency table holds, and how much of a space it covers.

use std::fmt::Write;
use std::path::PathBuf;

use extract::latency::{Coverage, LatencyTable};
use serde_json::json;

use super::{Common, Outcome, Output, read_space};

/// Show a latency table, and which layers of a space it lacks
#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract table table.json --space fashion")]
pub struct Arguments {
    /// The table that `extract measure` wrote
    #[arg(value_name = "TABLE.json")]
    table: PathBuf,
    /// Preset name or TOML file: say which of its layers the table lacks
    #[arg(long)]
    space: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let table = LatencyTable::read(&arguments.table)?;
    let coverage = match &arguments.space {
        Some(space) => Some(table.coverage(&read_space(space)?)?),
        None => None,
    };
    let document = json!({
        "entries": table.rows().len(), "unconverged": table.unconverged(), "device": table.device,
        "engine": table.engine, "hash": table.hash(), "rows": table.rows(), "coverage": coverage,
    });
    output.result(describe(&table, coverage.as_ref()), &document)?;
    Ok(Outcome::Done)
}

fn describe(table: &LatencyTable, coverage: Option<&Coverage>) -> String {
    let (device, engine) = (&table.device, &table.engine);
    let mut text = format!(
        "device    {} ({}, {} {}, {} cores)\nengine    {} {}, {} threads, {}, batch {}\nprotocol  {}\nentries   {}, of which {} unconverged\n",
        device.name,
        device.cpu,
        device.os,
        device.arch,
        device.cores,
        engine.engine,
        engine.engine_version,
        engine.threads,
        engine.dtype,
        engine.batch,
        table.protocol,
        table.rows().len(),
        table.unconverged(),
    );
    // writing to a string cannot fail
    let _ = writeln!(text, "\n{:>12}  {:>23}  {:>7}  layer", "median us", "95 % interval", "samples");
    for (key, row) in table.rows() {
        let interval = format!("[{:.3}, {:.3}]", row.low_us, row.high_us);
        let mark = if row.converged { "" } else { "  (unconverged)" };
        let _ = writeln!(text, "{:>12.3}  {interval:>23}  {:>7}  {key}{mark}", row.median_us, row.samples);
    }
    if let Some(Coverage { layers, missing }) = coverage {
        let _ = writeln!(text, "\ncovers {} of {layers} layers of the space", layers - missing.len());
        for key in missing {
            let _ = writeln!(text, "missing  {key}");
        }
    }
    text.trim_end().to_string()
}
