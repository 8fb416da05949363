//! `supernet sample`: the accuracies that an estimator is fitted to.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use command::{Common, Ending, ValImages, result_path, stop_flag, within};
use network::accuracy_file::{AccuracyHeader, Writer, check_appendable};
use network::checkpoint::Supernet;
use network::eval::{Calibration, Evaluator};
use serde_json::json;
use space::Arch;
use supernet::{accuracy_row, drawn};

use super::arguments::{Compute, Data};

/// Measure the accuracy of random sub-networks on validation images, one row each
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet sample --supernet run/supernet.safetensors --data digits --count 300 --seed 1 --out accuracy.jsonl

An existing file is continued: its rows are not measured again.")]
pub struct Arguments {
    /// The trained weights
    #[arg(long, value_name = "FILE")]
    supernet: PathBuf,
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    val_images: ValImages,
    /// Total number of sub-networks
    #[arg(long, value_name = "N", value_parser = within(1..=1_000_000_000))]
    count: usize,
    /// Seed of the sub-networks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training images to calibrate each sub-network with
    #[arg(long, default_value_t = Calibration::default().images, value_name = "N", value_parser = within(1..=1_000_000_000))]
    calibration_images: usize,
    /// File to append the results to
    #[arg(long, value_name = "FILE", value_parser = result_path())]
    out: PathBuf,
    #[command(flatten)]
    compute: Compute,
    #[command(flatten)]
    pub common: Common,
}

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        let backend = self.compute.backend()?;
        let supernet = Supernet::read(&self.supernet)?.on(&backend)?;
        let catalogue = self.data.list_for(&supernet)?;
        check_appendable(&self.out, &supernet.space, &supernet.hash)?;
        let dataset = self.data.look_for(&self.common, catalogue, &supernet, false)?;
        let dataset = self.val_images.of(dataset);
        let stop = stop_flag()?;
        let calibration = Calibration { images: self.calibration_images, ..Calibration::default() };
        let header = AccuracyHeader::new(&supernet, &dataset, calibration);
        let (mut writer, rows) = Writer::resume(&self.out, &header)?;
        let evaluator = Evaluator::new(&supernet, &dataset, &backend).calibrating(calibration);
        let known: BTreeSet<Arch> = rows.iter().map(|row| row.arch.clone()).collect();
        let bar = self.common.bar(self.count as u64, "{bar:30} {pos}/{len} sub-networks  {msg}  ETA {eta}");
        let mut interrupted = false;
        for arch in drawn(&supernet.space, self.count, self.seed) {
            interrupted = stop.load(Ordering::Relaxed);
            if interrupted {
                break;
            }
            if !known.contains(&arch) {
                let Some(row) = accuracy_row(&evaluator, arch, &stop)? else {
                    interrupted = true;
                    break;
                };
                bar.set_message(format!("top-1 {:.2} %", 100.0 * row.top1));
                writer.append(&row)?;
            }
            bar.inc(1);
        }
        let resumed = rows.len();
        let rows = bar.position();
        bar.finish_and_clear();
        let out = self.out.display().to_string();
        let document =
            json!({ "out": out, "rows": rows, "resumed_from_rows": resumed, "finished": !interrupted });
        self.common.print(&document, || out.clone())?;
        Ok(if interrupted { Ending::Interrupted } else { Ending::Done })
    }
}
