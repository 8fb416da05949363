//! `extract plot`: a picture of accuracy against cost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base::file::write_atomically;
use extract::latency::{LatencyModel, LatencyTable};
use extract::plot::{Panel, PlotPoint, Series, Style, svg};
use extract::search::{Candidate, Found, LATENCY, Limits};
use network::accuracy_file::{self, AccuracyFile, AccuracyRow};
use network::eval::Accuracy;
use serde_json::json;
use space::{Extent, cost};

use command::{Common, Ending, not_an_input, result_path, warn_of_interrupted};

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
    /// Title above the picture [default: the space's name]
    #[arg(long)]
    title: Option<String>,
    /// The picture
    #[arg(long, value_name = "FILE.svg", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    let inputs = [Some(&arguments.accuracy), arguments.latency_table.as_ref(), arguments.found.as_ref()];
    not_an_input(&arguments.out, &inputs.into_iter().flatten().collect::<Vec<_>>())?;
    let file = accuracy_file::read(&arguments.accuracy)?;
    let table = arguments.latency_table.as_deref().map(LatencyTable::read).transpose()?;
    let found = arguments.found.as_deref().map(Found::read).transpose()?;
    if let Some(path) = &arguments.found {
        warn_of_interrupted(std::slice::from_ref(&path.display().to_string()));
    }
    let limits = found.as_ref().map_or_else(Limits::default, |found| found.limits.clone());
    let mut panels = vec![Panel {
        limit: limits.of("macs").map(|macs| macs / 1e6),
        ..panel("MMACs", &file, macs(&file)?)
    }];
    // a search's front is one of latency; over MACs a line would go to and fro
    panels[0]
        .series
        .extend(searched(found.as_ref(), Style::Dots, |found| Some((found.mean("macs")? / 1e6, None))));
    if let Some(table) = &table {
        let name = format!("latency on {} [ms]", table.device.name);
        let mut panel = panel(&name, &file, latency(&file, table)?);
        panel.limit = limits.of(LATENCY).map(|us| us / 1e3);
        panel.series.extend(searched(found.as_ref(), Style::Joined, |found| {
            let latency = found.latency_ms()?;
            let upper = found.latency_upper_ms()?;
            Some((latency, Some((latency, upper))))
        }));
        panels.push(panel);
    }
    let candidates = found.as_ref().map_or(0, |found| found.front.len().max(1));
    let title = arguments.title.clone().unwrap_or_else(|| format!("Sub-networks of {}", file.space.name()));
    write_atomically(&arguments.out, svg(&title, &panels).as_bytes())?;
    let document = json!({ "out": arguments.out.display().to_string(), "points": file.rows.len(), "candidates": candidates });
    output.print(&document, || arguments.out.display().to_string())?;
    Ok(Ending::Done)
}

/// A cost, and the ends of its interval where it has one.
type Cost = (f64, Option<(f64, f64)>);

fn macs(file: &AccuracyFile) -> anyhow::Result<Vec<Cost>> {
    file.rows
        .iter()
        .map(|row: &AccuracyRow| Ok((cost(&file.space.lower(&row.arch)?).macs as f64 / 1e6, None)))
        .collect()
}

fn latency(file: &AccuracyFile, table: &LatencyTable) -> anyhow::Result<Vec<Cost>> {
    let model = LatencyModel::new(table, &file.space);
    file.rows
        .iter()
        .map(|row: &AccuracyRow| {
            let latency = model.network(&file.space.lower(&row.arch)?)?;
            let median = latency.us / 1e3;
            let high = latency.high_us / 1e3;
            Ok((median, Some((median, high))))
        })
        .collect()
}

/// The evaluated sub-networks, one series per resolution.
fn panel(x: &str, file: &AccuracyFile, costs: Vec<Cost>) -> Panel {
    let mut by_side: BTreeMap<Extent, Vec<PlotPoint>> = BTreeMap::new();
    for (row, (cost, across)) in file.rows.iter().zip(costs) {
        let correct = (row.top1 * row.n as f64).round() as usize;
        let up = Accuracy { correct, n: row.n as usize }.interval();
        let point =
            PlotPoint { at: (cost, 100.0 * row.top1), across, up: Some((100.0 * up[0], 100.0 * up[1])) };
        by_side.entry(row.arch.resolution).or_default().push(point);
    }
    let split = file.rows.first().map_or_else(String::new, |row| format!("{} ", row.split));
    let y = format!("{split}top-1 [%]");
    Panel {
        x: x.to_string(),
        y,
        limit: None,
        series: by_side
            .into_iter()
            .map(|(side, points)| Series { name: format!("{side} x {side}"), points, style: Style::Dots })
            .collect(),
    }
}

/// The interval of a candidate's accuracy in per cent, as far as a share of images can be: from 0 to 100 %.
fn interval(candidate: &Candidate) -> Option<(f64, f64)> {
    let accuracy = candidate.accuracy();
    // a linear predictor may expect more than all, and an interval holds its point
    let low = candidate.accuracy_low()?.max(0.0);
    let high = candidate.accuracy_high()?.min(1.0);
    Some((100.0 * low.min(accuracy), 100.0 * high.max(accuracy)))
}

/// A search's expectations: its front, and the chosen sub-network.
fn searched(
    found: Option<&Found>,
    front: Style,
    of: impl Fn(&Candidate) -> Option<Cost>,
) -> impl Iterator<Item = Series> {
    let point = |candidate: &Candidate| {
        let (cost, across) = of(candidate)?;
        Some(PlotPoint { at: (cost, 100.0 * candidate.accuracy()), across, up: interval(candidate) })
    };
    let mut series = Vec::new();
    if let Some(found) = found {
        let mut points: Vec<PlotPoint> = found.front.iter().filter_map(point).collect();
        points.sort_by(|a, b| a.at.0.total_cmp(&b.at.0));
        if !points.is_empty() {
            series.push(Series {
                name: "front of the search, as expected".to_string(),
                points,
                style: front,
            });
        }
        let points: Vec<PlotPoint> = point(&found.best).into_iter().collect();
        if !points.is_empty() {
            series.push(Series { name: "found, as expected".to_string(), points, style: Style::Rings });
        }
    }
    series.into_iter()
}
