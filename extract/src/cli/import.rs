//! `extract import`: files of PyTorch's `ofa` package, and times of whole networks, become ours.

use std::path::PathBuf;

use extract::accuracy::{AccuracyEstimator, EstimatorOrigin, ImportedPredictor};
use extract::latency::{DeviceFacts, EngineFacts};
use extract::ofa::exchange;
use extract::ofa::table::OfaTable;
use latency::{LatencyTable, LatencyValidation, SpaceFit};
use serde_json::json;
use space::Arch;
use study::table::Columns;

use command::{Common, Ending, not_an_input, result_path, wrote};

/// Turn files of PyTorch's ofa package, or times of whole networks, into this toolkit's
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract import table note10_160_lookup_table.yaml note10_176_lookup_table.yaml --out note10.json\n  extract import predictor acc_predictor.pth --space ofa-mbv3-w1.2 --out estimator.safetensors\n  extract import networks phone.csv --space fashion --device-name phone --out phone.json"
)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Table(Table),
    Predictor(Predictor),
    Networks(Networks),
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
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    common: Common,
}

/// Make a latency table of whole sub-networks that another program measured: for devices that run no single layers
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract import networks phone.csv --space fashion --device-name phone --out phone.json\n\nThe file has a header and the columns arch and latency_ms. Sub-networks drawn at random are best, 100 or more:\nsupernet space fashion --arch random:1 random:2 names some. Every fifth is not fitted to, and says how far predictions are off."
)]
struct Networks {
    /// The sub-networks and their times, as comma-separated values
    #[arg(value_name = "FILE.csv")]
    file: PathBuf,
    /// Preset name or TOML file of their space
    #[arg(long)]
    space: String,
    /// The table
    #[arg(long, value_name = "TABLE.json", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    device: Device,
    /// Images that ran at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    engine_batch: u16,
    /// Number type that it computed with there
    #[arg(long, value_name = "NAME", default_value = "f32")]
    engine_dtype: String,
    #[command(flatten)]
    common: Common,
}

/// Where another program measured.
#[derive(clap::Args)]
struct Device {
    /// Name of the device
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    device_name: String,
    /// Engine that ran the layers there
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    engine_name: String,
    /// Threads that it computed with there
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    engine_threads: u16,
}

impl Device {
    fn facts(&self, dtype: &str, batch: usize) -> (DeviceFacts, EngineFacts) {
        let (cpu, os, arch) = Default::default();
        let device = DeviceFacts { name: self.device_name.clone(), cpu, os, arch, cores: 0 };
        let engine = EngineFacts {
            engine: self.engine_name.clone(),
            engine_version: String::new(),
            threads: usize::from(self.engine_threads),
            dtype: dtype.to_string(),
            batch,
        };
        (device, engine)
    }
}

impl Arguments {
    pub fn common(&self) -> &Common {
        match &self.what {
            What::Table(table) => &table.common,
            What::Predictor(predictor) => &predictor.common,
            What::Networks(networks) => &networks.common,
        }
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    match &arguments.what {
        What::Table(table) => run_table(table),
        What::Predictor(predictor) => run_predictor(predictor),
        What::Networks(networks) => run_networks(networks),
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
    let (device, engine) = arguments.device.facts("f32", 1);
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

fn run_networks(arguments: &Networks) -> anyhow::Result<Ending> {
    let Networks { file, out, common, .. } = arguments;
    not_an_input(out, &[file])?;
    let space = space::open(&arguments.space)?;
    let columns = Columns::read(file)?;
    let place = file.display().to_string();
    let mut measured = Vec::with_capacity(columns.len());
    for (line, (text, ms)) in columns.of("arch")?.iter().zip(columns.numbers("latency_ms")?).enumerate() {
        let arch: Arch = text
            .parse()
            .map_err(|error: base::Error| error.in_place(format!("{place}, line {}", line + 2)))?;
        measured.push((arch, 1e3 * ms));
    }
    let (device, engine) =
        arguments.device.facts(&arguments.engine_dtype, usize::from(arguments.engine_batch));
    let table = LatencyTable::of_networks(&place, device, engine, &space, &measured)?;
    table.write(out)?;
    wrote(out);
    let validation = table.fit_of(&space).map(SpaceFit::validation);
    let unseen = table.unaccepted();
    let document = json!({
        "entries": table.rows().len(), "unseen": unseen, "networks": measured.len(), "validation": validation,
        "hash": table.hash(),
    });
    common.print(&document, || {
        let mut lines = vec![format!("{} layers of {} sub-networks", table.rows().len(), measured.len())];
        if unseen > 0 {
            lines.push(format!("{unseen} layers are of kinds that none has: they follow from all others"));
        }
        if let Some(LatencyValidation { n, within_5pct, within_10pct, mape, spearman, .. }) = validation {
            lines.push(format!(
                "{n} sub-networks that had no part in it: {:.1} % within 5 %, {:.1} % within 10 %, mean error {:.1} %, Spearman {spearman:.3}",
                100.0 * within_5pct,
                100.0 * within_10pct,
                100.0 * mape
            ));
        }
        lines.join("\n")
    })?;
    Ok(Ending::Done)
}
