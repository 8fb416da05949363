//! What several commands take, and how it is read.

use std::path::PathBuf;

use clap::Args;
use command::{Common, data_form, data_help, look_at, with_environment};
use kernels::{Backend, Precision};
use network::checkpoint::Supernet;
use network::data::{Catalogue, Dataset, MIDDLE_SHARE, Preprocess, Resize};
use tracing::{info, warn};

/// Which images.
#[derive(Args)]
pub struct Data {
    #[arg(long, value_parser = data_form(), help = data_help("Images"), hide_possible_values = true)]
    pub data: String,
    /// What to know of the images beside themselves (flip, class names) [default: dataset.toml in their folder]
    #[arg(long, value_name = "FILE")]
    pub dataset_toml: Option<PathBuf>,
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
        look_at(common, catalogue)
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
            warn!("the supernet was trained on other images than {}", dataset.name());
        }
        Ok(supernet.see(&dataset, inherits)?)
    }
}

/// The batch that is wanted, or all training images where they are fewer, with a note to the user.
pub fn smaller_batch(wanted: usize, dataset: &Dataset) -> usize {
    let images = dataset.train().len();
    if images < wanted {
        info!(
            "note: {} has {images} training images, fewer than a batch of {wanted}: steps are of {images} images, and learning \
             rates that follow the batch are lower in proportion",
            dataset.name()
        );
    }
    wanted.min(images)
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
    pub fn backend(&self) -> anyhow::Result<Backend> {
        with_environment(Backend::on_device(&self.device, self.precision)?)
    }
}
