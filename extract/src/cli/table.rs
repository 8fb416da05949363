//! `extract table`: what a latency table holds, how much of a space it covers, whether it holds true, and tables put
//! together or side by side.

mod describe;
mod pairs;
mod validate;

use std::path::PathBuf;

use command::{Common, Ending, result_path, wrote};
use extract::latency::LatencyTable;
use extract::ofa::exchange;
use serde_json::json;
use space::{self, Extent, SearchSpace};

use super::OnDevice;
use super::engine::EngineChoice;

pub use describe::{describe_batch, describe_fit, describe_machine};

/// Show a latency table, which layers of a space it lacks, and how well it predicts whole sub-networks
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  extract table table.json --space fashion --validate 20\n  extract table merge monday.json tuesday.json --out both.json\n  extract table diff monday.json tuesday.json"
)]
pub struct Arguments {
    #[command(subcommand)]
    pairs: Option<pairs::Pairs>,
    /// The table that `extract measure` wrote
    #[arg(value_name = "TABLE.json", required = true)]
    table: Option<PathBuf>,
    /// Preset name or TOML file: say which of its layers the table lacks
    #[arg(long)]
    space: Option<String>,
    /// Only these of the space's input resolutions
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', requires = "space")]
    resolutions: Vec<Extent>,
    /// Measure this many random whole sub-networks on this machine, and compare them with what the table predicts; then
    /// add them to the table as a session
    #[arg(long, value_name = "N", requires = "space", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100_000))]
    validate: u32,
    /// Measure these whole sub-networks too: found.json, canonical text, `largest`, …
    #[arg(long, requires = "space", num_args = 1..)]
    arch: Vec<String>,
    /// Leave the table as it is after --validate or --arch
    #[arg(long)]
    no_add: bool,
    /// Seconds after which no further visit is begun [default: 1 per sub-network, at least 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    budget: Option<u64>,
    /// Decides which sub-networks are drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Engine that runs them: native, or onnxruntime:LIB with its shared library
    #[arg(long, default_value = "native")]
    engine: EngineChoice,
    #[command(flatten)]
    on: OnDevice,
    /// Write the space's layers as latency tables of PyTorch's ofa too, one YAML file per resolution
    #[arg(long, value_name = "FOLDER", value_parser = result_path(), requires = "space")]
    export_ofa: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    /// The flags of every command, of the sub-command if there is one.
    pub fn common(&self) -> &Common {
        self.pairs.as_ref().map_or(&self.common, pairs::Pairs::common)
    }
}

/// A space, at some of its resolutions or at all.
pub fn space_at(name: &str, resolutions: &[Extent]) -> anyhow::Result<SearchSpace> {
    let space = space::open(name)?;
    Ok(if resolutions.is_empty() { space } else { space.at_resolutions(resolutions)? })
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    if let Some(pairs) = &arguments.pairs {
        return pairs.run();
    }
    let output = &arguments.common;
    let path = arguments.table.as_deref().expect("required without a sub-command");
    let table = LatencyTable::read(path)?;
    let space = arguments.space.as_deref().map(|name| space_at(name, &arguments.resolutions)).transpose()?;
    match &space {
        Some(space) if arguments.validate > 0 || !arguments.arch.is_empty() => {
            validate::validate(arguments, table, path, space)
        }
        _ => show(arguments, output, &table, space.as_ref()),
    }
}

fn show(
    arguments: &Arguments,
    output: &Common,
    table: &LatencyTable,
    space: Option<&SearchSpace>,
) -> anyhow::Result<Ending> {
    let coverage = space.map(|space| table.coverage(space)).transpose()?;
    if let (Some(folder), Some(space)) = (&arguments.export_ofa, space) {
        let tables = exchange::export(table, space)?;
        std::fs::create_dir_all(folder).map_err(base::Error::io("create", folder))?;
        for (resolution, ofa) in tables {
            let path = folder.join(format!("{resolution}_lookup_table.yaml"));
            ofa.write(&path)?;
            wrote(&path);
        }
    }
    let mut document = describe::document(table);
    document["coverage"] = json!(coverage);
    output.print(&document, || describe::describe(table, coverage.as_ref()))?;
    Ok(Ending::Done)
}
