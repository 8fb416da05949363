//! `supernet eval`: accuracy of sub-networks.

use std::path::PathBuf;

use serde_json::json;
use supernet::checkpoint::Supernet;
use supernet::data::Split;
use supernet::eval::{Calibration, Judge};

use super::Ending;
use super::arguments::{Common, Compute, Data, ValImages};
use super::output::print_lines;

/// Evaluate sub-networks: calibrate batch norms on training images, then top-1 on a split
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet eval --supernet run/supernet.safetensors --data digits --arch largest --arch random:1 --split test")]
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
    /// Which images to count on: `val`, `test` or `train`
    #[arg(long, default_value = "val")]
    split: Split,
    /// Take the batch norms' statistics that lie in an imported supernet instead of calibrating
    #[arg(long)]
    inherit_bn: bool,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let kernels = self.compute.kernels()?;
        let supernet = Supernet::read(&self.supernet)?.on(kernels)?;
        let archs = self.common.read_archs(&supernet.space, &self.arch)?;
        let inherited = self.inherit_bn.then(|| supernet.statistics()).transpose()?;
        let catalogue = self.data.list_for(&supernet)?;
        catalogue.check_split(self.split)?;
        let dataset = self.data.look_for(&self.common, catalogue, &supernet, self.inherit_bn)?;
        let dataset = self.val_images.of(dataset);
        let known = dataset.warnings().len();
        let count = dataset.split(self.split)?.len();
        if self.split == Split::Test {
            self.common.tell(format!("{count} test images"));
        }
        self.common.warn(&dataset.warnings()[known..]);
        let judge = Judge {
            space: &supernet.space,
            weights: &supernet.weights,
            dataset: &dataset,
            calibration: Calibration::default(),
            kernels,
        };
        let mut results = Vec::new();
        for arch in archs {
            let accuracy = match inherited {
                Some(statistics) => judge.accuracy_inheriting(&arch, statistics, self.split)?,
                None => judge.accuracy(&arch, self.split)?,
            };
            if !self.common.json {
                print_lines(&format!("{} top-1 {accuracy}  {arch}", self.split))?;
            }
            results.push(json!({
                "arch": arch,
                "split": self.split,
                "n": accuracy.n,
                "top1": accuracy.top1(),
                "interval": accuracy.interval(),
            }));
        }
        if self.common.json {
            print_lines(&format!("{:#}", json!({ "results": results })))?;
        }
        Ok(Ending::Done)
    }
}
