//! `extract import`: files of PyTorch's `ofa` package become ours.

use std::path::PathBuf;

use extract::accuracy::{AccuracyEstimator, EstimatorOrigin, ImportedPredictor};
use extract::latency::{DeviceFacts, EngineFacts};
use extract::ofa::exchange;
use extract::ofa::table::OfaTable;
use serde_json::json;

use command::{Common, Ending, not_an_input, result_path, wrote};

/// Turn files of PyTorch's ofa package into this toolkit's
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract import table note10_160_lookup_table.yaml note10_176_lookup_table.yaml --out note10.json\n  extract import predictor acc_predictor.pth --space ofa-mbv3-w1.2 --out estimator.safetensors"
)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Table(Table),
    Predictor(Predictor),
}

/// Convert an accuracy predictor of ofa.tutorial or ofa.nas to an estimator
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract import predictor acc_predictor.pth --space ofa-mbv3-w1.2 --out estimator.safetensors"
)]
struct Predictor {
    /// The predictor as torch.save wrote it, or a safetensors file with the same names
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Preset name or TOML file of the space whose sub-networks it knows
    #[arg(long)]
    space: String,
    /// Input sizes that a predictor of ofa.nas was made with, as its image_size_list has them [default: the space's]
    #[arg(long, value_name = "PIXELS", value_delimiter = ',')]
    resolutions: Vec<usize>,
    /// The estimator's file
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// Convert YAML latency tables, one file per resolution, to one table
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract import table note10_160_lookup_table.yaml note10_176_lookup_table.yaml --out note10.json"
)]
struct Table {
    /// The tables of one device
    #[arg(value_name = "FILE.yaml", required = true)]
    files: Vec<PathBuf>,
    /// The table
    #[arg(long, value_name = "TABLE.json", value_parser = result_path())]
    out: PathBuf,
    /// Name of the device
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    device_name: String,
    /// Engine that ran the layers there
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    engine_name: String,
    /// Threads that it computed with there
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    engine_threads: u16,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    pub fn common(&self) -> &Common {
        match &self.what {
            What::Table(table) => &table.common,
            What::Predictor(predictor) => &predictor.common,
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.what {
        What::Table(table) => run_table(table),
        What::Predictor(predictor) => run_predictor(predictor),
    }
}

fn run_predictor(arguments: &Predictor) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    not_an_input(&arguments.out, &[&arguments.file])?;
    let space = space::open(&arguments.space)?;
    let estimator = AccuracyEstimator::import_file(&space, &arguments.file, &arguments.resolutions)?;
    estimator.write(&arguments.out)?;
    wrote(&arguments.out);
    let document = json!({ "space": space.name(), "origin": estimator.origin(), "hash": estimator.hash()? });
    output.print(&document, || describe(&estimator))?;
    Ok(Ending::Done)
}

fn describe(estimator: &AccuracyEstimator) -> String {
    let EstimatorOrigin::Imported(ImportedPredictor { kind, file, blake3, resolutions, per_cent }) =
        estimator.origin()
    else {
        return String::new();
    };
    let sizes: Vec<_> = resolutions.iter().map(usize::to_string).collect();
    let unit = if *per_cent { "per cent; its last layer was divided by 100" } else { "shares" };
    [
        format!("predictor    {kind} of ofa, {file}"),
        format!("blake3       {blake3}"),
        format!("space        {}", estimator.space().name()),
        format!("input sizes  {}", sizes.join(" ")),
        format!("predicts     {unit}"),
        "             (no rows came with it, so its error is not known)".to_string(),
    ]
    .join("\n")
}

fn run_table(arguments: &Table) -> anyhow::Result<Ending> {
    let output = &arguments.common;
    not_an_input(&arguments.out, &arguments.files.iter().collect::<Vec<_>>())?;
    let tables =
        arguments.files.iter().map(|file| OfaTable::read(file)).collect::<extract::Result<Vec<_>>>()?;
    let (cpu, os, arch) = Default::default();
    let device = DeviceFacts { name: arguments.device_name.clone(), cpu, os, arch, cores: 0 };
    let engine = EngineFacts {
        engine: arguments.engine_name.clone(),
        engine_version: String::new(),
        threads: usize::from(arguments.engine_threads),
        dtype: "f32".to_string(),
        batch: 1,
    };
    let place = arguments.out.display().to_string();
    let table = exchange::import(&place, &tables, device, engine)?;
    table.write(&arguments.out)?;
    wrote(&arguments.out);
    let entries = table.rows().len();
    let unconverged = table.unconverged();
    let document = json!({ "entries": entries, "unconverged": unconverged, "hash": table.hash() });
    output.print(&document, || format!("{entries} layers of {} files", tables.len()))?;
    Ok(Ending::Done)
}
