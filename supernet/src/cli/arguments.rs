//! Flags that several commands share.

use std::path::PathBuf;

use clap::Args;
use command::{Common, data_form, data_help, look_at, with_environment};
use kernels::{Backend, Precision};
use network::checkpoint::Supernet;
use network::data::{Catalogue, Dataset, MIDDLE_SHARE, Preprocess, Resize};
use tracing::{info, warn};

/// The images.
#[derive(Args)]
pub struct Data {
    #[arg(long, value_parser = data_form(), help = data_help("Images"), hide_possible_values = true)]
    pub data: String,
    /// Facts about the images (flip, class names) [default: dataset.toml in their folder]
    #[arg(long, value_name = "FILE")]
    pub dataset_toml: Option<PathBuf>,
}

/// The part of an image that evaluation uses.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shown {
    Middle,
    Stretch,
}

impl Shown {
    /// The resizing as data.
    pub fn resize(self) -> Resize {
        match self {
            Self::Middle => Resize::Middle(MIDDLE_SHARE),
            Self::Stretch => Resize::Stretch,
        }
    }

    /// The preprocessing with this resizing.
    pub fn of(self, preprocess: Preprocess) -> Preprocess {
        Preprocess { resize: self.resize(), ..preprocess }
    }
}

impl Data {
    /// Lists the data set's files and classes; no image is decoded yet, so that errors are reported at once.
    pub fn list(&self) -> anyhow::Result<Catalogue> {
        Ok(Catalogue::open(&self.data, self.dataset_toml.as_deref())?)
    }

    /// Looks through the images; reports how many there are, and which are left out.
    pub fn look(&self, common: &Common, catalogue: Catalogue) -> anyhow::Result<Dataset> {
        look_at(common, catalogue)
    }

    /// Lists the data set that a supernet is evaluated on.
    pub fn list_for(&self, supernet: &Supernet) -> anyhow::Result<Catalogue> {
        let catalogue = self.list()?;
        supernet.check_classes(&catalogue)?;
        Ok(catalogue)
    }

    /// Looks through the images that a supernet is evaluated on, preprocessed for it; warns if it was trained on
    /// others.
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

/// The requested batch, or all training images if they are fewer, with a note to the user.
pub fn smaller_batch(requested: usize, dataset: &Dataset) -> usize {
    let images = dataset.train().len();
    if images < requested {
        info!(
            "note: {} has {images} training images, fewer than a batch of {requested}: steps are of {images} images, and learning \
             rates that follow the batch are lower in proportion",
            dataset.name()
        );
    }
    requested.min(images)
}

/// The device to compute on, and its precision.
#[derive(Args)]
pub struct Compute {
    /// Where to compute: `cpu`, or `cuda:0` and so on for an NVIDIA GPU
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Precision of a GPU: f32; tf32, which rounds the operands of products; or bf16, which also stores activations
    /// rounded
    #[arg(long, value_name = "f32|tf32|bf16", default_value_t = Precision::F32)]
    precision: Precision,
}

impl Compute {
    /// The backend of the device; on a CPU the one that the environment names, else the fastest.
    pub fn backend(&self) -> anyhow::Result<Backend> {
        with_environment(Backend::on_device(&self.device, self.precision)?)
    }
}
