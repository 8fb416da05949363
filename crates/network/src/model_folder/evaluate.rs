//! Evaluation of an exported network on a split, from its folder and the images alone.

use kernels::Backend;

use super::ModelFolder;
use crate::data::{Dataset, Split, eval_batches};
use crate::error::Result;
use crate::eval::{Evaluation, judged};

/// Images that are computed together.
const BATCH: usize = 200;

impl ModelFolder {
    /// The network's results for a split, in order of images: its accuracy, and the class predicted for each image.
    ///
    /// # Errors
    /// If the data set lacks the split, its classes are not the network's, or its images do not fit.
    pub fn evaluate(&self, dataset: &Dataset, split: Split, backend: &Backend) -> Result<Evaluation> {
        let dataset = self.see(dataset)?;
        let images = dataset.split(split)?;
        let batches = eval_batches(images, dataset.preprocess(), self.config.input.resolution, BATCH);
        let images = judged(&self.network(backend)?, batches)?;
        Ok(Evaluation { classes: self.config.classes.len(), images })
    }
}
