//! What several commands take, and how it is read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use base::machine;
use clap::Args;
use clap::builder::{PathBufValueParser, RangedU64ValueParser, TypedValueParser};
use kernels::{Kernels, Precision};
use network::checkpoint::Supernet;
use network::data::{Catalogue, Dataset, Looking, MIDDLE_SHARE, Preprocess, Resize};
use space::{Arch, SearchSpace, arch_file};

/// Looking at images for less than this leaves no index.
const WORTH_KEEPING: Duration = Duration::from_secs(1);

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
    /// Warns of images that are left out and files that are passed over.
    pub fn warn(&self, warnings: &[String]) {
        warnings.iter().for_each(|warning| self.tell(format!("warning: {warning}")));
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
}

/// Which images.
#[derive(Args)]
pub struct Data {
    /// `digits`, `idx:FOLDER` (MNIST's format), `folder:FOLDER` (images, one folder per class) or `list:FILE.csv` (columns
    /// path, label and split)
    #[arg(long)]
    pub data: String,
    /// What to know of the images beside themselves (flip, class names) [default: dataset.toml in their folder]
    #[arg(long, value_name = "FILE")]
    pub dataset_toml: Option<PathBuf>,
}

/// How many validation images are counted on.
#[derive(Args)]
pub struct ValImages {
    /// Count on at most so many validation images, drawn with a constant seed [default: all]
    #[arg(long, value_name = "N", value_parser = within(1..=1_000_000_000))]
    val_images: Option<usize>,
}

impl ValImages {
    /// The data set with as many.
    pub fn of(&self, dataset: Dataset) -> Dataset {
        self.val_images.map_or(dataset.clone(), |most| dataset.with_val_images(most))
    }
}

/// What of an image is shown.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shown {
    Middle,
    Stretch,
}

impl Shown {
    /// As data.
    pub fn resize(self) -> Resize {
        match self {
            Self::Middle => Resize::Middle(MIDDLE_SHARE),
            Self::Stretch => Resize::Stretch,
        }
    }

    /// The preprocessing with it.
    pub fn of(self, preprocess: Preprocess) -> Preprocess {
        Preprocess { resize: self.resize(), ..preprocess }
    }
}

impl Data {
    /// Lists the data set's files and classes; no image is decoded yet, so that what is wrong can be told at once.
    pub fn list(&self) -> anyhow::Result<Catalogue> {
        Ok(Catalogue::open(&self.data, self.dataset_toml.as_deref())?)
    }

    /// Looks at the images; says how many there are, and which are left out.
    pub fn look(&self, common: &Common, catalogue: Catalogue) -> anyhow::Result<Dataset> {
        let bar = common.bar(0, "looking at images {bar:30} {pos}/{len}  ETA {eta}");
        let looking = Looking::default().with_index_in(machine::cache_folder());
        let looking = looking.keeping_from(WORTH_KEEPING).telling(move |done, of| {
            if done == 1 {
                // of this split; another may have been looked at before
                bar.reset();
                bar.set_length(of as u64);
            }
            bar.set_position(done as u64);
            if done == of {
                bar.finish_and_clear();
            }
        });
        let dataset = catalogue.look_with(&looking)?;
        common.tell(dataset.in_words());
        common.warn(&dataset.warnings());
        Ok(dataset)
    }

    /// Lists the data set that a supernet is judged on.
    pub fn list_for(&self, supernet: &Supernet) -> anyhow::Result<Catalogue> {
        let catalogue = self.list()?;
        supernet.check_classes(&catalogue)?;
        Ok(catalogue)
    }

    /// Looks at the images that a supernet is judged on, as it sees them; warns where it was trained on others.
    pub fn look_for(
        &self,
        common: &Common,
        catalogue: Catalogue,
        supernet: &Supernet,
        inherits: bool,
    ) -> anyhow::Result<Dataset> {
        let dataset = self.look(common, catalogue)?;
        if supernet.trained_on(&dataset) == Some(false) {
            common.tell(format!("warning: the supernet was trained on other images than {}", dataset.name()));
        }
        Ok(supernet.see(&dataset, inherits)?)
    }
}

/// The batch that is wanted, or all training images where they are fewer, with a note to the user.
pub fn smaller_batch(common: &Common, wanted: usize, dataset: &Dataset) -> usize {
    let images = dataset.train().len();
    if images < wanted {
        common.tell(format!(
            "note: {} has {images} training images, fewer than a batch of {wanted}: steps are of {images} images, and learning \
             rates that follow the batch are lower in proportion",
            dataset.name()
        ));
    }
    wanted.min(images)
}

/// A reader of whole numbers within bounds.
pub fn within(bounds: std::ops::RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// A reader of the path of a result. A lone dash is none: standard output has the command's own words.
pub fn result_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.as_os_str() == "-" {
        true => Err("a path is needed, for standard output has the command's own words; /dev/stdout, or ./- for a file of that name"),
        false => Ok(path),
    })
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

/// A flag that Ctrl-C, SIGTERM and the loss of the terminal set; a second signal ends the process at once, but for a hangup,
/// which shell and system may both send. Under `nohup` there are no hangups.
pub fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    #[cfg(unix)]
    if !base::machine::ignores_hangups() {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, stop.clone())?;
    }
    Ok(stop)
}
