//! `extract explain`: why a search chose its sub-network.

use std::path::{Path, PathBuf};

use base::Error;
use base::file::write_atomically;
use command::{Common, Ending, not_an_input, result_path, stop_flag, wrote};
use extract::accuracy::AccuracyEstimator;
use extract::plot::{Panel, PlotPoint, Series, Style, svg};
use extract::search::explain::{Alternative, DeviceLayers, Expected, Explaining, Explanation, Relaxed, Seen};
use extract::search::{Found, LATENCY, TOP1};
use serde_json::json;
use space::Extent;
use tracing::warn;

use super::backend;
use super::search::devices::{self, Devices};
use super::table::space_at;

/// Explain a search's result: what every other choice would give and cost, where the time goes, what relaxed limits
/// would buy, and why it is not the largest sub-network
#[derive(clap::Args)]
#[command(after_help = "Example:
  extract explain found.json --space fashion --estimator estimator.safetensors --latency-table table.json
  extract explain found.json --space fashion --estimator estimator.safetensors --latency-table table.json --svg why.svg")]
pub struct Arguments {
    /// The result of `extract search`
    #[arg(value_name = "found.json")]
    found: PathBuf,
    /// Preset name or TOML file
    #[arg(long)]
    space: String,
    /// Only these of the space's input resolutions, as in the search
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    resolutions: Vec<Extent>,
    /// The estimator of the search
    #[arg(long, value_name = "FILE")]
    estimator: PathBuf,
    #[command(flatten)]
    tables: devices::TableFlags,
    /// Also draw the alternatives and the layers' latencies
    #[arg(long, value_name = "FILE.svg", requires = devices::ANY_TABLE, value_parser = result_path())]
    svg: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let stop = stop_flag()?;
    if let Some(svg) = &arguments.svg {
        let inputs = [&arguments.found, &arguments.estimator].into_iter().chain(arguments.tables.inputs());
        not_an_input(svg, &inputs.collect::<Vec<_>>())?;
    }
    let found = Found::read(&arguments.found)?;
    let space = space_at(&arguments.space, &arguments.resolutions)?;
    if space.fingerprint() != found.space_fingerprint {
        let expected = format!("{} ({})", found.space, found.space_fingerprint);
        let got = format!("{} ({})", space.name(), space.fingerprint());
        let error = Error::invalid(arguments.found.display(), "space", expected, got);
        return Err(error.and_then_do("give the --space and --resolutions of the search").into());
    }
    let estimator = AccuracyEstimator::read(&arguments.estimator)?.with_backend(&backend()?)?;
    if !found.estimator.is_empty() && estimator.hash()? != found.estimator {
        warn!("{} was found with another estimator than this one", arguments.found.display());
    }
    let devices = arguments.tables.read(&space)?;
    check_tables(&found, &devices, &arguments.found)?;
    let tables: Vec<_> = devices.tables.iter().map(|device| (device.metric(), &device.table)).collect();
    let explaining = Explaining {
        found: &found,
        space: &space,
        estimator: &estimator,
        index: &devices.index,
        devices: &devices.named,
        tables: &tables,
        kind: devices.kind,
        stop: &stop,
    };
    let Some(explanation) = explaining.explain()? else { return Ok(Ending::Interrupted) };
    if let Some(path) = &arguments.svg {
        let title = format!("{} on {}", explanation.best.arch, found.space);
        write_atomically(path, svg(&title, &panels(&explanation, &found)).as_bytes())?;
        wrote(path);
    }
    arguments.common.print(&json!(explanation), || text(&explanation, &found))?;
    Ok(Ending::Done)
}

/// Refuses to explain limits on devices whose tables are missing; warns of tables other than the search's.
fn check_tables(found: &Found, devices: &Devices, place: &Path) -> anyhow::Result<()> {
    for (name, _) in found.limits.iter() {
        let is_known = |known: &str| known == name;
        let known = devices.index.metrics().iter().chain(devices.named.iter().flat_map(|one| one.metrics()));
        if name != TOP1 && !known.map(|metric| metric.name.as_str()).any(is_known) {
            let error = Error::invalid(place.display(), "limits", "metrics with a table", name);
            return Err(error.and_then_do("give the tables of the search").into());
        }
    }
    for device in &devices.tables {
        let theirs = match &device.name {
            Some(name) => found.devices.get(name).map(|device| &device.latency_table),
            None => found.latency_table.as_ref(),
        };
        let kind = match &device.name {
            Some(name) => found.devices.get(name).map(|device| device.latency.kind),
            None => found.latency.as_ref().map(|latency| latency.kind),
        };
        if let Some(kind) = kind.filter(|kind| *kind != devices.kind && device.table.is_undisturbed()) {
            let expected = format!("{kind}, as in {}", place.display());
            return Err(Error::invalid("--latency", "kind", expected, devices.kind).into());
        }
        if theirs.is_some_and(|theirs| *theirs != device.table.hash()) {
            warn!("{} was found with another latency table than this one", place.display());
        }
    }
    Ok(())
}

/// A difference in words, with its interval: points of accuracy, or per cent of the explained value.
fn more(metric: &str, value: &Expected) -> String {
    let before = value.mean - value.difference;
    let (scale, decimals, unit) = match metric {
        TOP1 => (100.0, 2, " points"),
        _ if before != 0.0 => (100.0 / before, 1, " %"),
        _ => (1.0, 0, ""),
    };
    let signed = |difference: f64| format!("{:+.*}", decimals, scale * difference);
    let interval = match (value.low, value.high) {
        // costs that are counted have none
        (Some(low), Some(high)) if low < high => {
            format!(" ({} to {})", signed(low - before), signed(high - before))
        }
        _ => String::new(),
    };
    format!("{}{unit}{interval}", signed(value.difference))
}

/// The metrics that a reader looks at: accuracy first, then what is limited, or the latencies.
fn headline(found: &Found, seen: &Seen) -> Vec<String> {
    let of_search = |name: &&String| {
        found.limits.of(name).is_some() || (found.limits == Default::default() && name.starts_with(LATENCY))
    };
    let others = seen.metrics.keys().filter(|name| *name != TOP1).filter(of_search);
    std::iter::once(TOP1.to_string()).chain(others.cloned()).collect()
}

fn differences(found: &Found, seen: &Seen) -> String {
    let names = headline(found, seen);
    let parts =
        names.iter().filter_map(|name| Some(format!("{name} {}", more(name, seen.metrics.get(name)?))));
    parts.collect::<Vec<_>>().join(", ")
}

/// Alternatives in words that are printed of each kind.
const SHOWN: usize = 12;

fn text(explanation: &Explanation, found: &Found) -> String {
    let Explanation { best, choices, layers, nearest, relaxed, largest } = explanation;
    let mut lines = vec![format!("arch          {}", best.arch)];
    let accuracy = &best.metrics[TOP1];
    // an interval of predictions may reach beyond what an accuracy can be
    let per_cent = |share: f64| 100.0 * share.clamp(0.0, 1.0);
    let interval = match (accuracy.low, accuracy.high) {
        (Some(low), Some(high)) => format!(", {:.2} to {:.2} %", per_cent(low), per_cent(high)),
        _ => String::new(),
    };
    lines.push(format!("accuracy      {:.2} % expected{interval}", per_cent(accuracy.mean)));
    if found.evaluator.is_some() || !found.evaluated.is_empty() {
        lines.push(
            "              it was found by evaluations; the differences below are predictions".to_string(),
        );
    }
    let gain = |one: &&Alternative| -one.seen.metrics[TOP1].difference;
    let mut broken: Vec<&Alternative> = choices.iter().filter(|one| !one.breaks.is_empty()).collect();
    let mut kept: Vec<&Alternative> = choices.iter().filter(|one| one.breaks.is_empty()).collect();
    for list in [&mut broken, &mut kept] {
        list.sort_by(|a, b| gain(a).total_cmp(&gain(b)));
    }
    lines.push(format!("\n{} other choices break a limit; those that would give most:", broken.len()));
    lines.extend(broken.iter().take(SHOWN).map(|one| alternative(one, found)));
    lines.push(format!("\n{} other choices keep the limits, and give:", kept.len()));
    lines.extend(kept.iter().take(SHOWN).map(|one| alternative(one, found)));
    layers.iter().for_each(|device| lines.extend(waterfall(device)));
    if !nearest.is_empty() {
        lines.push("\nnearest on the front:".to_string());
        lines.extend(nearest.iter().map(|near| format!("  {}  {}", differences(found, near), near.arch)));
    }
    if !relaxed.is_empty() {
        lines.push("\nwith a relaxed limit:".to_string());
        lines.extend(relaxed.iter().map(|one: &Relaxed| {
            let more = 100.0 * (one.factor - 1.0);
            format!("  {} {more:+.0} %: {}  {}", one.metric, differences(found, &one.seen), one.seen.arch)
        }));
    }
    lines.push(format!("\nthe largest: {}", differences(found, &largest.seen)));
    let is_better = largest.seen.metrics[TOP1].difference > 0.0;
    lines.push(match largest.breaks.as_slice() {
        [] if is_better => {
            "  it keeps all limits, and is predicted to be better than what was found".to_string()
        }
        [] => "  it keeps all limits, and is predicted to be no better than what was found".to_string(),
        breaks => format!("  it breaks the limits on {}", breaks.join(", ")),
    });
    lines.join("\n")
}

fn alternative(one: &Alternative, found: &Found) -> String {
    let changes = one.changes.iter().map(|change| {
        let [from, to] = [&change.from, &change.to].map(|value| value.as_deref().unwrap_or("absent"));
        format!("{}: {from} -> {to}", change.choice)
    });
    let changes: Vec<String> = changes.collect();
    // a depth brings the choices of its layers with it
    let shown = match changes.as_slice() {
        [first, _, _, ..] => format!("{first}, and {} more ({})", changes.len() - 1, one.seen.arch),
        all => all.join(", "),
    };
    format!("  {shown}  {}", differences(found, &one.seen))
}

/// The layers that take longest, and their shares.
fn waterfall(device: &DeviceLayers) -> Vec<String> {
    let total = device.constant_us + device.layers.iter().map(|layer| layer.us).sum::<f64>();
    let mut layers: Vec<_> = device.layers.iter().collect();
    layers.sort_by(|a, b| b.us.total_cmp(&a.us));
    let line = |us: f64, words: &str| format!("  {us:>10.3} us {:>5.1} %  {words}", 100.0 * us / total);
    let mut lines = vec![format!("\n{} by layer, {total:.3} us in all:", device.metric)];
    lines.extend(layers.iter().take(SHOWN).map(|layer| line(layer.us, &layer.layer)));
    let rest: f64 = layers.iter().skip(SHOWN).map(|layer| layer.us).sum();
    if layers.len() > SHOWN {
        lines.push(line(rest, &format!("{} other layers", layers.len() - SHOWN)));
    }
    if device.constant_us != 0.0 {
        lines.push(line(device.constant_us, "in addition to the layers"));
    }
    lines
}

/// Alternatives by latency and accuracy, and the latency that adds up over the layers.
fn panels(explanation: &Explanation, found: &Found) -> Vec<Panel> {
    let mut panels = Vec::new();
    for device in &explanation.layers {
        let point = |seen: &Seen| {
            let latency = seen.metrics.get(&device.metric)?.mean / 1e3;
            Some(PlotPoint { at: (latency, 100.0 * seen.metrics[TOP1].mean), ..PlotPoint::default() })
        };
        let of = |broken: bool| {
            let chosen = explanation.choices.iter().filter(move |one| one.breaks.is_empty() != broken);
            chosen.filter_map(|one| point(&one.seen)).collect::<Vec<_>>()
        };
        let series = |name: &str, points, style| Series { name: name.to_string(), points, style };
        panels.push(Panel {
            x: format!("{} [ms]", device.metric),
            y: "expected top-1 [%]".to_string(),
            limit: found.limits.of(&device.metric).map(|limit| limit / 1e3),
            series: vec![
                series("another choice, keeps the limits", of(false), Style::Dots),
                series("another choice, breaks a limit", of(true), Style::Dots),
                series("found", point(&explanation.best).into_iter().collect(), Style::Rings),
            ],
        });
        let mut sum = device.constant_us;
        let mut points = vec![PlotPoint { at: (0.0, sum / 1e3), ..PlotPoint::default() }];
        for (at, layer) in device.layers.iter().enumerate() {
            sum += layer.us;
            points.push(PlotPoint { at: (at as f64 + 1.0, sum / 1e3), ..PlotPoint::default() });
        }
        panels.push(Panel {
            x: "layers".to_string(),
            y: format!("{} up to here [ms]", device.metric),
            limit: None,
            series: vec![series("layers of what was found", points, Style::Joined)],
        });
    }
    panels
}
