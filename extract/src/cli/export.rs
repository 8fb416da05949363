//! `extract export`: a sub-network as files that are shipped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base::timing::unix_seconds;
use command::{Common, Ending, ValImages, data_form, data_help, result_path, warn_of_interrupted, wrote};
use extract::export::{Exported, Format, NormStatistics, Request, check_destination, export};
use extract::search::Found;
use kernels::{Backend, Precision};
use network::checkpoint::Supernet;
use network::data::Dataset;
use network::eval::Calibration;
use serde_json::{Value, json};
use space::{Arch, arch_file};
use tracing::{info, warn};

use super::{OnDevice, open_data};

/// Export a sub-network, verified against the supernet before the folder appears
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  extract export --supernet run/supernet.safetensors --arch found.json --data digits --out model\n  extract export --supernet run/supernet.safetensors --arch net.config --data digits --format ofa,onnx --out model\n  extract export --supernet run/supernet.safetensors --arch found.json --front --data digits --out models\n  extract export --supernet imported.safetensors --arch found.json --inherit-bn --out model"
)]
pub struct Arguments {
    /// The trained weights
    #[arg(long, value_name = "FILE")]
    supernet: PathBuf,
    /// found.json, or `largest`, `smallest`, `random:SEED`, canonical text, another file that holds a sub-network
    #[arg(long)]
    arch: String,
    // its help comes from the table of formats
    #[arg(
        long,
        required_unless_present = "inherit_bn",
        value_parser = data_form(),
        help = data_help("Images to calibrate with and to count accuracy on"),
        hide_possible_values = true
    )]
    data: Option<String>,
    /// Export each sub-network of the front of the found.json that --arch names, into the folders 0, 1, … of --out
    #[arg(long)]
    front: bool,
    /// Facts about the images (flip, class names) [default: dataset.toml in their folder]
    #[arg(long, value_name = "FILE", requires = "data")]
    dataset_toml: Option<PathBuf>,
    #[command(flatten)]
    val_images: ValImages,
    /// Folder to write; an earlier export there is replaced
    #[arg(long, value_name = "FOLDER", value_parser = result_path())]
    out: PathBuf,
    /// Formats to write, separated by commas; safetensors, which `extract predict` reads, is always written. ofa:
    /// net.config and run.config next to it, for PyTorch's package; onnx: model.onnx
    #[arg(
        long,
        value_name = "FORMAT,…",
        default_value = "safetensors",
        value_delimiter = ',',
        value_parser = ["safetensors", "ofa", "onnx"]
    )]
    format: Vec<String>,
    /// Training images to gather statistics on
    #[arg(
        long,
        value_name = "N",
        default_value_t = Calibration::default().images,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
    )]
    calibration_images: usize,
    /// Use the batch norm statistics stored in an imported supernet (its largest network's) instead of
    /// calibrating. Color images are then normalized as ImageNet's; without --data no accuracy is counted and
    /// classes are numbered
    #[arg(long, conflicts_with = "calibration_images")]
    inherit_bn: bool,
    #[command(flatten)]
    on: OnDevice,
    #[command(flatten)]
    pub common: Common,
}

/// The search's result, if the sub-network is given as a `found.json` for this supernet, or as a place on its front.
fn found(arch: &str, supernet: &Supernet) -> Option<Found> {
    let (arch, place) = arch_file::split_place(arch);
    let mut found = found_in(arch, supernet)?;
    if let Some(candidate) = place.and_then(|place| found.front.get(place)) {
        found.best = candidate.clone();
    }
    Some(found)
}

fn found_in(arch: &str, supernet: &Supernet) -> Option<Found> {
    let holds_found = base::file::read_text(Path::new(arch)).is_ok_and(|text| text.contains("\"found\""));
    let found = match Found::read(Path::new(arch)) {
        Ok(found) if found.supernet == supernet.hash => return Some(found),
        Ok(found) => found,
        Err(error) => {
            if holds_found {
                warn!("what the search expects is left out: {error}");
            }
            return None;
        }
    };
    if found.evaluator.is_some() {
        info!("note: {arch} was found by a program's evaluations: what they were is left out");
        return None;
    }
    if found.supernet.is_empty() {
        info!(
            "note: {arch} was found with an imported estimator, of no supernet that is known: what it expects is left out"
        );
        return None;
    }
    let theirs = &found.supernet;
    let ours = &supernet.hash;
    warn!("{arch} was found for another supernet ({theirs}, not {ours}): what it expects is left out");
    None
}

/// The images, where there are any; warns where the supernet was trained on others.
fn open_dataset(
    output: &Common,
    arguments: &Arguments,
    supernet: &Supernet,
) -> anyhow::Result<Option<Dataset>> {
    let Some(data) = &arguments.data else { return Ok(None) };
    let dataset = open_data(output, data, arguments.dataset_toml.as_deref(), supernet)?;
    if supernet.trained_on(&dataset) == Some(false) {
        warn!("the supernet was trained on other images than {}", dataset.name());
    }
    Ok(Some(arguments.val_images.of(dataset)))
}

/// Where the statistics come from; without images only the supernet is left.
fn statistics<'a>(arguments: &Arguments, dataset: Option<&'a Dataset>) -> NormStatistics<'a> {
    let calibration = Calibration { images: arguments.calibration_images, ..Calibration::default() };
    match dataset {
        Some(dataset) if !arguments.inherit_bn => NormStatistics::Calibrated { dataset, calibration },
        dataset => NormStatistics::Inherited { dataset },
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<Ending> {
    let backend = arguments.on.backend(Precision::F32)?;
    let supernet = Supernet::read(&arguments.supernet)?;
    let exports = exports(arguments)?;
    for Export { arch, .. } in &exports {
        arch_file::read(&supernet.space, arch)?;
    }
    if arguments.front {
        let out = &arguments.out;
        std::fs::create_dir_all(out).map_err(base::Error::io("create the folder", out))?;
    }
    exports.iter().try_for_each(|one| check_destination(&one.out))?;
    warn_of_interrupted([&arguments.arch]);
    if arguments.inherit_bn {
        supernet.statistics()?;
    }
    let dataset = open_dataset(&arguments.common, arguments, &supernet)?;
    let exporter = Exporter { arguments, supernet: &supernet, dataset: dataset.as_ref(), backend };
    let mut done = Vec::with_capacity(exports.len());
    for one in &exports {
        done.push(exporter.export(one)?);
    }
    let texts = || done.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>().join("\n\n");
    match (arguments.front, done.first()) {
        (false, Some((document, _))) => arguments.common.print(document, texts)?,
        _ => {
            let documents: Vec<&Value> = done.iter().map(|(document, _)| document).collect();
            arguments.common.print(&json!({ "front": documents }), texts)?;
        }
    }
    Ok(Ending::Done)
}

/// A sub-network to export, and its folder.
struct Export {
    arch: String,
    out: PathBuf,
}

/// The sub-network of --arch, or each of its front.
fn exports(arguments: &Arguments) -> anyhow::Result<Vec<Export>> {
    let Arguments { arch, out, .. } = arguments;
    if !arguments.front {
        return Ok(vec![Export { arch: arch.clone(), out: out.clone() }]);
    }
    let count = Found::read(Path::new(arch))?.front.len();
    if count == 0 {
        let error = base::Error::invalid(arch, "front", "at least one sub-network", "none");
        return Err(error.and_then_do("search with --front").into());
    }
    let place =
        |place: usize| Export { arch: format!("{arch}#front[{place}]"), out: out.join(place.to_string()) };
    let own: Vec<String> = (0..count).map(|place| place.to_string()).collect();
    let others = std::fs::read_dir(out).ok().into_iter().flatten().flatten().map(|entry| entry.file_name());
    if let Some(other) = others.into_iter().find(|name| own.iter().all(|own| name != own.as_str())) {
        return Err(base::Error::Occupied {
            path: out.clone(),
            reason: format!("it holds {}, which is none of the folders of this front", other.display()),
            next: "remove it, or choose another folder".to_string(),
        }
        .into());
    }
    Ok((0..count).map(place).collect())
}

/// What all exports of a command have in common.
struct Exporter<'a> {
    arguments: &'a Arguments,
    supernet: &'a Supernet,
    dataset: Option<&'a Dataset>,
    backend: Backend,
}

impl Exporter<'_> {
    /// Exports a sub-network; what is printed of it, as JSON and as text.
    fn export(&self, Export { arch: given, out }: &Export) -> anyhow::Result<(Value, String)> {
        let Self { arguments, supernet, dataset, backend } = self;
        let arch = arch_file::read(&supernet.space, given)?;
        let formats: Vec<_> = Format::ALL
            .into_iter()
            .filter(|format| arguments.format.iter().any(|name| name == format.name()))
            .collect();
        let found = found(given, supernet);
        let run = BTreeMap::from([("unix_seconds".to_string(), json!(unix_seconds()))]);
        let plain = Request::new(supernet, &arch, statistics(arguments, *dataset));
        let mut request = Request { backend: backend.clone(), formats: &formats, run, ..plain };
        if let Some(Found { best, selected_on, .. }) = &found {
            request = request.expecting(best, selected_on.clone());
        }
        let exported = export(&request, out)?;
        wrote(out);
        Ok(printed(&exported, &arch, out))
    }
}

fn printed(exported: &Exported, arch: &Arch, out: &Path) -> (Value, String) {
    let verification = &exported.verification;
    let origin = &exported.model.config.origin;
    let folder = out.display().to_string();
    let mut document = json!({
        "folder": folder, "arch": arch, "inputs": verification.inputs,
        "max_abs_difference": verification.max_abs_difference,
        "reference_difference": verification.reference_difference,
        "folded_difference": verification.folded_difference,
        "measured": origin.measured, "predicted_top1": origin.predicted_top1,
        "files": exported.model.config.files.keys().collect::<Vec<_>>(),
    });
    let mut onnx = String::new();
    if let Some(compared) = &verification.onnx {
        document["onnx"] = json!(compared);
        onnx = format!("\n              {}", super::verify::compared(compared));
    }
    let counted = origin.measured.as_ref().map_or_else(String::new, |measured| {
        let selected = measured.selected_on.as_ref().map_or("", |_| ", which it was selected by");
        let top1 = 100.0 * measured.top1;
        format!("\ntop-1         {top1:.2} % of {} {} images{selected}", measured.n, measured.split)
    });
    let predicted =
        origin.predicted_top1.map_or_else(String::new, |top1| format!(" ({:.2} % expected)", 100.0 * top1));
    let text = format!(
        "arch          {arch}{counted}{predicted}\nverified      {} images, all logits equal bit for bit{onnx}\nfolder        {folder}",
        verification.inputs
    );
    (document, text)
}
