//! `supernet bench`: what a step costs on this machine.

use std::sync::Arc;

use serde_json::json;
use supernet::bench::{Bench, LoadBench, Mode, Subject, bench, bench_loader};
use supernet::space::{self, arch_file};

use super::Ending;
use super::arguments::{Common, check_device, kernels, within};
use super::profile::{recorded, table};

/// Time whole steps on random images, or the loading of real ones
#[derive(clap::Args)]
#[command(after_help = "Example:
  supernet bench --space ofa-mbv3-w1.0 --arch largest --resolution 64 --batch 32
  supernet bench --space ofa-mbv3-w1.0 --arch uniform --resolution 64 --batch 32 --mode shrink
  supernet bench --space ofa-mbv3-w1.0 --arch largest --resolution 64 --batch 32 --profile
  supernet bench --data folder:images --resolution 224 --batch 64")]
pub struct Arguments {
    /// A preset's name or a TOML file
    #[arg(long, required_unless_present = "data")]
    space: Option<String>,
    /// Time the loading of training images alone, decoded and augmented: `idx:FOLDER`, `folder:FOLDER`, …
    #[arg(long, conflicts_with_all = ["space", "arch", "mode", "profile"])]
    data: Option<String>,
    /// As for `eval`, taken in turn; or `uniform` for another random sub-network each step
    #[arg(long, default_value = "largest", num_args = 1..)]
    arch: Vec<String>,
    /// Side of the images
    #[arg(long, value_name = "R", value_parser = within(1..=4096))]
    resolution: usize,
    /// Images a step
    #[arg(long, value_name = "N", value_parser = within(1..=65_536))]
    batch: usize,
    /// Steps that are timed
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = within(1..=1_000_000))]
    steps: usize,
    /// Steps before, not timed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = within(0..=1_000_000))]
    warmup: usize,
    /// What a step is: train (one sub-network), shrink (teacher and four), infer, or calibrate
    #[arg(long, default_value = "train")]
    mode: ModeName,
    /// Where to compute: `cpu`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Print what each kind of layer took in each kernel
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ModeName {
    Train,
    Shrink,
    Infer,
    Calibrate,
}

/// Pixels of a step's images: more are a slip of the hand, and no memory holds their activations.
const MOST_PIXELS: usize = 1 << 30;

impl Arguments {
    pub fn run(&self) -> anyhow::Result<Ending> {
        check_device(&self.device)?;
        if self.batch * self.resolution * self.resolution > MOST_PIXELS {
            anyhow::bail!("--batch and --resolution: expected at most {MOST_PIXELS} pixels a step");
        }
        let Some(space) = &self.space else { return self.load() };
        let space = space::open(space)?;
        let subject = match self.arch.as_slice() {
            [uniform] if uniform == "uniform" => Subject::Uniform,
            texts => {
                let archs = texts.iter().map(|text| arch_file::read(&space, text));
                Subject::Fixed(archs.collect::<supernet::Result<_>>()?)
            }
        };
        let mode = match self.mode {
            ModeName::Train => Mode::Train,
            ModeName::Shrink => Mode::Shrink,
            ModeName::Infer => Mode::Infer,
            ModeName::Calibrate => Mode::Calibrate,
        };
        let (kernels, profile) = recorded(kernels()?, self.profile);
        let Self { resolution, batch, steps, warmup, .. } = *self;
        let setup = Bench { space, subject, resolution, batch, steps, warmup, mode, kernels, profile };
        let bar = self.common.bar((steps + warmup) as u64, "{bar:30} {pos}/{len} steps");
        let report = bench(&setup, |_| bar.inc(1))?;
        bar.finish_and_clear();
        let mut document = json!(report);
        document["kernels"] = json!(kernels.name());
        document["threads"] = json!(rayon::current_num_threads());
        self.common.print(&document, || {
            let memory = report.peak_rss_mb.map_or_else(String::new, |mb| format!(", peak memory {mb:.0} MB"));
            let profile = report.profile.as_ref().map_or_else(String::new, |rows| {
                format!("{}\n", table(rows, steps, report.total_ms))
            });
            format!(
                "{profile}{:.1} ms a step (10 % to 90 %: {:.1} to {:.1}), {:.1} images/s{memory}, {} kernels, {} threads",
                report.step_ms.median,
                report.step_ms.p10,
                report.step_ms.p90,
                report.images_per_second,
                kernels.name(),
                rayon::current_num_threads()
            )
        })?;
        Ok(Ending::Done)
    }

    /// Times the loader by itself.
    fn load(&self) -> anyhow::Result<Ending> {
        let dataset = Arc::new(self.common.open_data(self.data.as_deref().unwrap_or_default())?);
        let Self { resolution, batch, steps, warmup, .. } = *self;
        let setup = LoadBench { dataset, resolution, batch, steps, warmup };
        let bar = self.common.bar((steps + warmup) as u64, "{bar:30} {pos}/{len} batches");
        let report = bench_loader(&setup, |_| bar.inc(1))?;
        bar.finish_and_clear();
        let mut document = json!(report);
        document["threads"] = json!(rayon::current_num_threads());
        self.common.print(&document, || {
            let rate = report.images_per_second;
            format!("{rate:.1} images/s loaded, {} threads", rayon::current_num_threads())
        })?;
        Ok(Ending::Done)
    }
}
