//! A complete run with default settings.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kernels::Backend;
use network::checkpoint::Supernet;
use network::data::Dataset;
use space::SearchSpace;

use super::{TrainConfig, Trainer};
use crate::error::Result;
use crate::train::observer::Observer;
use crate::train::recipe::Recipe;
use crate::train::run_folder::RunFolder;

/// Seed 0, a checkpoint every five minutes, the CPU's fastest kernels.
impl Default for TrainConfig {
    fn default() -> Self {
        Self { seed: 0, checkpoint_every: Duration::from_secs(300), backend: Backend::detect() }
    }
}

/// Trains a supernet from fresh weights with [`TrainConfig::default`], in a folder that holds no run yet. Pass `&mut
/// ()` to observe nothing.
///
/// # Errors
/// If the folder is used, data and space do not fit, or as [`Trainer::run`].
pub fn train(
    space: &SearchSpace,
    dataset: &Arc<Dataset>,
    recipe: &Recipe,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<Supernet> {
    let run = RunFolder::open(folder, false)?;
    let config = TrainConfig::default();
    let mut trainer = Trainer::new(space.clone(), dataset.clone(), recipe, run, config)?;
    trainer.run_to_end(observer)
}

impl Trainer {
    /// Trains until all steps are taken, and reads the written supernet.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    pub fn run_to_end(&mut self, observer: &mut dyn Observer) -> Result<Supernet> {
        self.run(&AtomicBool::new(false), observer)?;
        Ok(Supernet::read(&self.folder.supernet())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::ErrorKind;

    #[test]
    fn a_run_leaves_what_it_returns_and_is_not_trained_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("run");
        let space = space::preset("tiny").expect("a preset");
        let dataset = Arc::new(Dataset::open("digits").expect("embedded"));
        let recipe = Recipe::progressive().scaled(0.0001);
        let train = || super::train(&space, &dataset, &recipe, &at, &mut ());
        let supernet = train().expect("trained");
        let written = Supernet::read(&at.join("supernet.safetensors")).expect("written");
        assert_eq!((supernet.hash, &supernet.space), (written.hash, &space));
        assert_eq!(train().err().expect("used").kind(), ErrorKind::Occupied);
    }
}
