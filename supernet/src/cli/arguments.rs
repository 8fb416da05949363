//! What several commands take, and how it is read.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use supernet::checkpoint::Supernet;
use supernet::data::{Dataset, Skipped};
use supernet::kernels::{Kernels, Precision};
use supernet::space::{Arch, SearchSpace, arch_file};

/// Flags that every command has.
#[derive(Args)]
pub struct Common {
    /// One JSON document on stdout, nothing else there
    #[arg(long)]
    pub json: bool,
    /// No progress and no messages but errors
    #[arg(long)]
    pub quiet: bool,
    /// Threads to compute with [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

impl Common {
    /// Opens a data set; says which of its images are left out.
    pub fn open_data(&self, spec: &str) -> anyhow::Result<Dataset> {
        let dataset = Dataset::open(spec)?;
        self.tell_skipped(&dataset.skipped());
        Ok(dataset)
    }

    /// Says which images are left out.
    pub fn tell_skipped(&self, skipped: &[&Skipped]) {
        if let [first, rest @ ..] = skipped {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            self.tell(format!("warning: an image is left out: {}{more}", first.reason));
        }
    }

    /// Reads the sub-networks that a user wrote; warns of files of interrupted searches.
    pub fn read_archs(&self, space: &SearchSpace, texts: &[String]) -> anyhow::Result<Vec<Arch>> {
        let mut archs = Vec::with_capacity(texts.len());
        for text in texts {
            archs.push(arch_file::read(space, text)?);
            if arch_file::is_interrupted(text) {
                self.tell(format!("warning: {text}: {}", arch_file::INTERRUPTED));
            }
        }
        Ok(archs)
    }

    /// Opens the data set that a supernet is judged on; warns where it was trained on another.
    pub fn open_data_for(&self, supernet: &Supernet, spec: &str) -> anyhow::Result<Dataset> {
        let dataset = self.open_data(spec)?;
        dataset.check_fits(&supernet.space)?;
        if supernet.trained_on(&dataset) == Some(false) {
            self.tell(format!("warning: the supernet was trained on other images than {}", dataset.name()));
        }
        Ok(dataset)
    }
}

/// A reader of whole numbers within bounds.
pub fn within(bounds: std::ops::RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// Where to compute, and with what.
#[derive(Args)]
pub struct Compute {
    /// Where to compute: `cpu`, or `cuda:0` and so on for an NVIDIA GPU
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// What a GPU computes with: f32; tf32, which rounds what products read; or bf16, which keeps activations so too
    #[arg(long, value_name = "f32|tf32|bf16", default_value_t = Precision::F32)]
    precision: Precision,
}

impl Compute {
    /// The kernels of the device; on a CPU those that the environment asks for, else the fastest.
    pub fn kernels(&self) -> anyhow::Result<Kernels> {
        let kernels = Kernels::on_device(&self.device, self.precision)?;
        match std::env::var("ONCE_FOR_ALL_KERNELS") {
            Ok(name) if kernels.gpu().is_none() => {
                Kernels::named(&name).context("environment variable ONCE_FOR_ALL_KERNELS")
            }
            _ => Ok(kernels),
        }
    }
}

/// A flag that Ctrl-C and SIGTERM set; a second signal ends the process at once.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}
