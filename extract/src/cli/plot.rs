//! `extract plot`: a picture of accuracy against cost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use extract::latency::{LatencyModel, LatencyTable};
use extract::plot::{Panel, Series, svg};
use extract::search::{Found, index::Candidate};
use serde_json::json;
use supernet::accuracy_file::{self, AccuracyFile};
use supernet::file::write_atomically;
use supernet::space::cost;

use super::{Common, Outcome, Output, not_an_input};

/// Draw the accuracy of evaluated sub-networks against MACs and latency, as SVG
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract plot --accuracy accuracy.jsonl --latency-table table.json --found found.json --out picture.svg"
)]
pub struct Arguments {
    /// Evaluated sub-networks, as `supernet sample` writes them
    #[arg(long, value_name = "FILE")]
    accuracy: PathBuf,
    /// Draw latency too, as this table sums it
    #[arg(long, value_name = "TABLE.json")]
    latency_table: Option<PathBuf>,
    /// Draw the front of a search too (`extract search --front`), or what it found
    #[arg(long, value_name = "FILE")]
    found: Option<PathBuf>,
    /// What stands above the picture [default: the space's name]
    #[arg(long)]
    title: Option<String>,
    /// The picture
    #[arg(long, value_name = "FILE.svg")]
    out: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let output = Output::new(&arguments.common);
    let inputs = [Some(&arguments.accuracy), arguments.latency_table.as_ref(), arguments.found.as_ref()];
    not_an_input(&arguments.out, &inputs.into_iter().flatten().collect::<Vec<_>>())?;
    let file = accuracy_file::read(&arguments.accuracy)?;
    let table = arguments.latency_table.as_deref().map(LatencyTable::read).transpose()?;
    let found = arguments.found.as_deref().map(Found::read).transpose()?;
    let candidates = found.map_or_else(Vec::new, |found| match found.front.is_empty() {
        true => vec![found.best],
        false => found.front,
    });
    let mut panels = vec![panel(&file, "MMACs", &candidates, macs(&file)?, |found| found.macs as f64 / 1e6)];
    // a search's front is one of latency; over MACs a line would go to and fro
    panels[0].series.iter_mut().for_each(|series| series.joined = false);
    if let Some(table) = &table {
        let name = format!("latency on {} [ms]", table.device.name);
        panels.push(panel(&file, &name, &candidates, latency(&file, table)?, |found| found.latency_ms));
    }
    let title = arguments.title.clone().unwrap_or_else(|| format!("Sub-networks of {}", file.space.name()));
    write_atomically(&arguments.out, svg(&title, &panels).as_bytes())?;
    let document = json!({ "out": arguments.out.display().to_string(), "points": file.rows.len(), "candidates": candidates.len() });
    output.result(arguments.out.display(), &document)?;
    Ok(Outcome::Done)
}

fn macs(file: &AccuracyFile) -> anyhow::Result<Vec<f64>> {
    let of = |row: &accuracy_file::AccuracyRow| Ok(cost(&file.space.lower(&row.arch)?).macs as f64 / 1e6);
    file.rows.iter().map(of).collect()
}

fn latency(file: &AccuracyFile, table: &LatencyTable) -> anyhow::Result<Vec<f64>> {
    let model = LatencyModel::new(table, &file.space);
    let of = |row: &accuracy_file::AccuracyRow| Ok(model.network(&file.space.lower(&row.arch)?)?.us / 1e3);
    file.rows.iter().map(of).collect()
}

/// A series a resolution, and what a search expects.
fn panel(
    file: &AccuracyFile,
    x: &str,
    candidates: &[Candidate],
    costs: Vec<f64>,
    of: impl Fn(&Candidate) -> f64,
) -> Panel {
    let mut by_side: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
    for (row, cost) in file.rows.iter().zip(costs) {
        by_side.entry(row.arch.resolution).or_default().push((cost, 100.0 * row.top1));
    }
    let name = |side| format!("{side} x {side}");
    let series = |(side, points)| Series { name: name(side), points, joined: false };
    let mut series: Vec<Series> = by_side.into_iter().map(series).collect();
    let expected = candidates.iter().map(|found| (of(found), 100.0 * found.accuracy));
    let mut points: Vec<_> = expected.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if !points.is_empty() {
        let joined = points.len() > 1;
        let name = if joined { "front of the search, as expected" } else { "found, as expected" };
        series.push(Series { name: name.to_string(), points, joined });
    }
    let split = file.rows.first().map_or_else(String::new, |row| format!("{} ", row.split));
    Panel { x: x.to_string(), y: format!("{split}top-1 [%]"), series }
}
