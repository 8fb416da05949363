//! `supernet eval`: accuracy of sub-networks.

use std::path::PathBuf;

use anyhow::ensure;
use base::document::printed;
use base::file::write_atomically;
use command::{Common, Ending, ValImages, print_lines, read_archs, result_path, warn_of};
use network::checkpoint::Supernet;
use network::data::{Dataset, Split};
use network::eval::{Evaluation, Evaluator};
use serde_json::{Value, json};
use space::Arch;
use tracing::info;

use super::arguments::{Compute, Data};

/// Evaluate sub-networks: calibrate batch norms on training images, then measure top-1, loss, top-5 and each class on
/// a split
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet eval --supernet run/supernet.safetensors --data digits --arch largest --arch random:1 --split test
  supernet eval --supernet run/supernet.safetensors --data digits --arch largest --predictions predictions.csv

With --json: loss, top5 (if there are more than five classes), per_class, and confusion, with a row
per class and a column per predicted class.")]
pub struct Arguments {
    /// The trained weights
    #[arg(long, value_name = "FILE")]
    supernet: PathBuf,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    val_images: ValImages,
    /// `largest`, `smallest`, `random:SEED`, canonical text, or a file that holds a sub-network; may be repeated
    #[arg(long, required = true, num_args = 1..)]
    arch: Vec<String>,
    /// Images to evaluate on: `val`, `test` or `train`
    #[arg(long, default_value = "val")]
    split: Split,
    /// Use the batch norm statistics of an imported supernet instead of calibrating
    #[arg(long)]
    inherit_bn: bool,
    /// Write the sub-network's prediction for each image: file or number, label, predicted class, probability
    #[arg(long, value_name = "FILE.csv", value_parser = result_path())]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        self.check_predictions()?;
        let backend = self.compute.backend()?;
        let supernet = Supernet::read(&self.supernet)?.on(&backend)?;
        let archs = read_archs(&supernet.space, &self.arch)?;
        let inherited = self.inherit_bn.then(|| supernet.statistics()).transpose()?;
        let catalogue = self.data.list_for(&supernet)?;
        catalogue.check_split(self.split)?;
        let dataset = self.data.look_for(&self.common, catalogue, &supernet, self.inherit_bn)?;
        let dataset = self.val_images.of(dataset);
        let known = dataset.warnings().len();
        let count = dataset.split(self.split)?.len();
        if self.split == Split::Test {
            info!("{count} test images");
        }
        warn_of(&dataset.warnings()[known..]);
        let evaluator = Evaluator::new(&supernet, &dataset, &backend);
        let mut results = Vec::new();
        for arch in &archs {
            let evaluation = evaluator.evaluate(arch, inherited, self.split)?;
            if let Some(path) = &self.predictions {
                write_atomically(path, predictions(&evaluation, &dataset, self.split)?.as_bytes())?;
                info!("wrote {}", path.display());
            }
            if !self.common.json {
                print_lines(&self.described(arch, &evaluation, &dataset))?;
            }
            results.push(self.document(arch, &evaluation, &dataset));
        }
        if self.common.json {
            print_lines(&printed(&json!({ "results": results })))?;
        }
        Ok(Ending::Done)
    }

    /// Refuses predictions that cannot be written, before anything is read.
    fn check_predictions(&self) -> anyhow::Result<()> {
        let Some(path) = &self.predictions else { return Ok(()) };
        ensure!(self.arch.len() == 1, "--predictions: expected one --arch, got {}", self.arch.len());
        let real = |path: &PathBuf| std::fs::canonicalize(path).ok();
        let same = real(path).is_some_and(|found| real(&self.supernet) == Some(found));
        ensure!(!same, "--predictions {}: expected another file than the input", path.display());
        Ok(())
    }

    fn document(&self, arch: &Arch, evaluation: &Evaluation, dataset: &Dataset) -> Value {
        let mut per_class = Vec::new();
        for (name, counted) in dataset.classes().iter().zip(evaluation.per_class()) {
            let top1 = (counted.n > 0).then(|| counted.top1());
            per_class
                .push(json!({ "class": name, "n": counted.n, "correct": counted.correct, "top1": top1 }));
        }
        let accuracy = evaluation.accuracy();
        let mut document = json!({
            "arch": arch,
            "split": self.split,
            "n": accuracy.n,
            "interval": accuracy.interval(),
            "per_class": per_class,
            "confusion": evaluation.confusion(),
        });
        for metric in dataset.task().metrics() {
            document[metric.name] = json!(evaluation.value(metric));
        }
        document
    }

    fn described(&self, arch: &Arch, evaluation: &Evaluation, dataset: &Dataset) -> String {
        let classes = dataset.classes();
        let headline = dataset.task().headline().words;
        let mut text = format!("{} {headline} {}  {arch}\n", self.split, evaluation.accuracy());
        text += &format!("    loss {:.4}", evaluation.loss());
        if let Some(top5) = evaluation.top5() {
            text += &format!(", top-5 {:.2} %", 100.0 * top5);
        }
        let counted = evaluation.per_class().into_iter().enumerate().filter(|(_, counted)| counted.n > 0);
        if let Some((class, counted)) =
            counted.min_by(|(_, one), (_, other)| one.top1().total_cmp(&other.top1()))
        {
            let name = &classes[class];
            let share = 100.0 * counted.top1();
            text += &format!("; least accurate class {name}, {share:.1} % of {}", counted.n);
        }
        if let Some(most) = evaluation.most_confused() {
            let [label, predicted] = [most.label, most.predicted].map(|class| &classes[class]);
            text += &format!("; most often {label} is taken for {predicted}, {} times", most.count);
        }
        text
    }
}

/// One line per image, as in RFC 4180.
fn predictions(evaluation: &Evaluation, dataset: &Dataset, split: Split) -> anyhow::Result<String> {
    let images = dataset.split(split)?;
    let classes = dataset.classes();
    let mut text = "image,label,predicted,probability\n".to_string();
    for (index, result) in evaluation.images.iter().enumerate() {
        let image = images.path(index).map_or_else(|| index.to_string(), |path| path.display().to_string());
        let [label, predicted] = [result.label, result.predicted].map(|class| field(&classes[class]));
        text += &format!("{},{label},{predicted},{:.6}\n", field(&image), result.probability);
    }
    Ok(text)
}

fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}
