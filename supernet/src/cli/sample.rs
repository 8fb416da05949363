//! `supernet sample`: the data set that accuracy is predicted from.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use base::random::rng_for;
use command::{Common, Ending, ValImages, result_path, stop_flag, within};
use network::accuracy_file::{AccuracyHeader, AccuracyRow, Writer, check_appendable};
use network::checkpoint::Supernet;
use network::data::Split;
use network::eval::{Calibration, Judge};
use serde_json::json;
use space::{Arch, SearchSpace, sampler};

use super::arguments::{Compute, Data};

/// Measure the accuracy of random sub-networks on validation images, one row each
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet sample --supernet run/supernet.safetensors --data digits --count 300 --seed 1 --out accuracy.jsonl

A file that is there already is gone on with: rows that it has are not measured again.")]
pub struct Arguments {
    /// The trained weights
    #[arg(long, value_name = "FILE")]
    supernet: PathBuf,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    val_images: ValImages,
    /// Sub-networks in all
    #[arg(long, value_name = "N", value_parser = within(1..=1_000_000_000))]
    count: usize,
    /// Seed that draws them
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training images to calibrate each with
    #[arg(long, default_value_t = Calibration::default().images, value_name = "N", value_parser = within(1..=1_000_000_000))]
    calibration_images: usize,
    /// Where the rows go
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let kernels = self.compute.kernels()?;
        let supernet = Supernet::read(&self.supernet)?.on(&kernels)?;
        let catalogue = self.data.list_for(&supernet)?;
        check_appendable(&self.out, &supernet.space, &supernet.hash)?;
        let dataset = self.data.look_for(&self.common, catalogue, &supernet, false)?;
        let dataset = self.val_images.of(dataset);
        let stop = stop_flag()?;
        let calibration = Calibration { images: self.calibration_images, ..Calibration::default() };
        let header = AccuracyHeader {
            space: supernet.space.clone(),
            supernet: supernet.hash.clone(),
            data: dataset.hash().to_string(),
            calibration,
        };
        let (mut writer, rows) = Writer::resume(&self.out, &header)?;
        let (space, weights) = (&supernet.space, &supernet.weights);
        let judge = Judge { space, weights, dataset: &dataset, calibration, kernels };
        let known: BTreeSet<Arch> = rows.iter().map(|row| row.arch.clone()).collect();
        let bar = self.common.bar(self.count as u64, "{bar:30} {pos}/{len} sub-networks  {msg}  ETA {eta}");
        let mut interrupted = false;
        for arch in draw(space, self.count, self.seed) {
            interrupted = stop.load(Ordering::Relaxed);
            if interrupted {
                break;
            }
            if !known.contains(&arch) {
                let Some(accuracy) = judge.accuracy_unless(&stop, &arch, Split::Val)? else {
                    interrupted = true;
                    break;
                };
                bar.set_message(format!("top-1 {:.2} %", 100.0 * accuracy.top1()));
                let (top1, n) = (accuracy.top1(), accuracy.n as u64);
                writer.append(&AccuracyRow { arch, top1, split: Split::Val, n })?;
            }
            bar.inc(1);
        }
        let (resumed, rows) = (rows.len(), bar.position());
        bar.finish_and_clear();
        let out = self.out.display().to_string();
        let document =
            json!({ "out": out, "rows": rows, "resumed_from_rows": resumed, "finished": !interrupted });
        self.common.print(&document, || out.clone())?;
        Ok(if interrupted { Ending::Interrupted } else { Ending::Done })
    }
}

/// Different sub-networks, the largest and the smallest first: they bound what can be expected.
fn draw(space: &SearchSpace, count: usize, seed: u64) -> Vec<Arch> {
    let mut rng = rng_for("accuracy rows", seed, &[]);
    let mut seen = BTreeSet::new();
    let mut drawn = Vec::new();
    let ends = [sampler::largest(space), sampler::smallest(space)];
    let randoms = std::iter::repeat_with(|| sampler::random(space, &mut rng));
    // A space may hold fewer networks than asked for: the tries are bounded.
    for arch in ends.into_iter().chain(randoms).take(count.saturating_mul(100)) {
        if drawn.len() == count {
            break;
        }
        if seen.insert(arch.clone()) {
            drawn.push(arch);
        }
    }
    drawn
}
