//! `extract table merge` and `extract table diff`.

use std::fmt::Write;
use std::path::PathBuf;

use base::statistics as stats;
use command::{Common, Ending, not_an_input, result_path, wrote};
use extract::latency::{LatencyTable, RowChange};
use serde_json::json;
use tracing::warn;

use super::describe::{describe_machine, document};

#[derive(clap::Subcommand)]
pub enum Pairs {
    /// Put the sessions of tables of one device and engine together
    Merge(Merge),
    /// Compare the layers that two tables hold
    Diff(Diff),
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract table merge monday.json tuesday.json --out both.json")]
pub struct Merge {
    /// Tables, of which the later ones are added to the first
    #[arg(value_name = "TABLE.json", num_args = 2.., required = true)]
    tables: Vec<PathBuf>,
    /// The merged table
    #[arg(long, value_name = "TABLE.json", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[command(after_help = "Example:\n  extract table diff monday.json tuesday.json")]
pub struct Diff {
    /// First table
    #[arg(value_name = "A.json")]
    first: PathBuf,
    /// Second table
    #[arg(value_name = "B.json")]
    second: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl Pairs {
    /// The flags of every command.
    pub fn common(&self) -> &Common {
        match self {
            Self::Merge(merge) => &merge.common,
            Self::Diff(diff) => &diff.common,
        }
    }

    pub fn run(&self) -> anyhow::Result<Ending> {
        match self {
            Self::Merge(merge) => merge.run(),
            Self::Diff(diff) => diff.run(),
        }
    }
}

impl Merge {
    fn run(&self) -> anyhow::Result<Ending> {
        let output = &self.common;
        let inputs: Vec<&PathBuf> = self.tables.iter().collect();
        not_an_input(&self.out, &inputs)?;
        let mut table = LatencyTable::read(&self.tables[0])?;
        for path in &self.tables[1..] {
            let added = table.merge(&LatencyTable::read(path)?)?;
            for space in added.stale {
                warn!("{space} could not be fitted again: no table holds the space");
            }
        }
        table.write(&self.out)?;
        wrote(&self.out);
        let text = format!(
            "{} layers of {} sessions\n{}",
            table.rows().len(),
            table.sessions().len(),
            describe_machine(&table)
        );
        output.print(&document(&table), || text)?;
        Ok(Ending::Done)
    }
}

/// Layers that are listed: those that differ most.
const LISTED: usize = 20;

impl Diff {
    fn run(&self) -> anyhow::Result<Ending> {
        let output = &self.common;
        let first = LatencyTable::read(&self.first)?;
        let second = LatencyTable::read(&self.second)?;
        if let Err(error) = first.check_same_setting(&second.device, &second.engine) {
            warn!("{error}");
        }
        let mut changes = first.changes(&second);
        changes.sort_by(|a, b| a.ratio().ln().abs().total_cmp(&b.ratio().ln().abs()).reverse());
        let only = |a: &LatencyTable, b: &LatencyTable| {
            a.rows().keys().filter(|key| !b.rows().contains_key(*key)).cloned().collect::<Vec<_>>()
        };
        let only_first = only(&first, &second);
        let only_second = only(&second, &first);
        let mut ratios: Vec<f64> = changes.iter().map(RowChange::ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| {
            ratios.get((share * ratios.len().saturating_sub(1) as f64).round() as usize).copied()
        };
        let apart = changes.iter().filter(|change| !overlap(change)).count();
        let document = json!({
            "layers": changes, "only_in_first": only_first, "only_in_second": only_second,
            "ratio": { "median": (!ratios.is_empty()).then(|| stats::median(&ratios)), "p5": at(0.05), "p95": at(0.95) },
            "intervals_apart": apart,
        });
        let mut text = format!(
            "{} layers in both, {} and {} in one only",
            changes.len(),
            only_first.len(),
            only_second.len()
        );
        if let (Some(low), Some(high)) = (at(0.05), at(0.95)) {
            let _ = write!(
                text,
                "\nsecond / first: median {:.4}, 5 % {low:.3}, 95 % {high:.3}; 95 % intervals of {apart} do not overlap\n",
                stats::median(&ratios)
            );
        }
        for change in changes.iter().take(LISTED) {
            let before = change.before.us;
            let after = change.after.us;
            let mark =
                if change.before.accepted && change.after.accepted { "" } else { "  (one does not count)" };
            let _ = write!(
                text,
                "\n{before:>12.3} {after:>12.3} us  x {:.3}  {}{mark}",
                change.ratio(),
                change.layer
            );
        }
        output.print(&document, || text)?;
        Ok(Ending::Done)
    }
}

fn overlap(change: &RowChange) -> bool {
    match (change.before.interval_us, change.after.interval_us) {
        (Some(a), Some(b)) => a[0] <= b[1] && b[0] <= a[1],
        _ => true,
    }
}
