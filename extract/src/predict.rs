//! Classifies images with an exported model.

use std::path::{Path, PathBuf};

use base::Error;
use base::file;
use candle_core::{Device, Tensor};
use kernels::Backend;
use network::data::{Image, ImageFile, NpyArray, PixelKind, Preprocess, images_in, plain_view};
use network::model_folder::ModelFolder;
use network::nn::FoldedNetwork;
use serde::Serialize;

use crate::error::Result;

/// A model that is ready to classify.
pub struct Classifier {
    model: ModelFolder,
    network: FoldedNetwork,
}

/// The images that `paths` name: files as they stand, and of a folder all images in it and in its folders, by path. Files
/// that are no images are counted, in words, with their folder.
///
/// # Errors
/// If a folder cannot be read, or holds no image.
pub fn images_at(paths: &[PathBuf]) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let mut images = Vec::new();
    let mut passed_over = Vec::new();
    for path in paths {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let found = images_in(path, &["npy"])?;
        if found.images.is_empty() {
            let got = found.passed_over.unwrap_or_else(|| "none".to_string());
            return Err(Error::invalid(path.display(), "images", "at least one", got).into());
        }
        images.extend(found.images);
        passed_over
            .extend(found.passed_over.map(|words| format!("passed over in {}: {words}", path.display())));
    }
    Ok((images, passed_over))
}

/// One class with its share of the probability.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// The class's name.
    pub class: String,
    /// Softmax of the logits, 0 to 1.
    pub probability: f64,
}

impl Classifier {
    /// Loads an exported folder.
    ///
    /// # Errors
    /// If a file of it is missing, broken, or changed since the export.
    pub fn load(folder: &Path, backend: &Backend) -> Result<Self> {
        let model = ModelFolder::read(folder)?;
        let network = FoldedNetwork::new(&model.network(backend)?)?;
        Ok(Self { model, network })
    }

    /// The folder's configuration.
    pub fn model(&self) -> &ModelFolder {
        &self.model
    }

    /// Logits, one a class, of an image file of any size and format that is read, or `.npy` with `[C, H, W]` values that
    /// are normalized already; of a model for arrays of floats, of `.npy` as its training had them.
    ///
    /// # Errors
    /// If the file is no such image, or an array of another shape than the model's input.
    pub fn logits(&self, path: &Path) -> Result<Vec<f32>> {
        let input = &self.model.config.input;
        let shape = [input.channels, input.resolution.height, input.resolution.width];
        let preprocess = self.model.preprocess()?;
        let is_array = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        let values = match (preprocess.values, is_array) {
            (PixelKind::Floats, true) => self.read_array(path, &preprocess)?,
            (PixelKind::Floats, false) => {
                return Err(Error::invalid(path.display(), "kind", "an array as .npy", "another file")
                    .and_then_do("the network was trained on arrays of floats")
                    .into());
            }
            (PixelKind::Bytes, true) => array_at(path)?.into_floats(&path.display().to_string(), shape)?,
            (PixelKind::Bytes, false) => self.read_image(path, &preprocess)?,
        };
        let images = Tensor::from_vec(values, (1, shape[0], shape[1], shape[2]), &Device::Cpu)?;
        let logits: Vec<f32> = self.network.forward(&images)?.flatten_all()?.to_vec1()?;
        match logits.iter().find(|logit| !logit.is_finite()) {
            Some(logit) => Err(Error::invalid(path.display(), "logits", "finite numbers", logit)
                .and_then_do("the values of the image are too large for the network")
                .into()),
            None => Ok(logits),
        }
    }

    /// The most probable classes, falling; at most `count`.
    pub fn top(&self, logits: &[f32], count: usize) -> Vec<Score> {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order
            .iter()
            .take(count)
            .map(|&index: &usize| Score {
                class: self.model.config.classes[index].clone(),
                probability: weights[index] / total,
            })
            .collect()
    }

    /// An array as the network sees it, resized where it is of another size.
    fn read_array(&self, path: &Path, preprocess: &Preprocess) -> Result<Vec<f32>> {
        let input = &self.model.config.input;
        let (values, shape) = array_at(path)?.into_image(&path.display().to_string())?;
        if shape[2] != input.channels {
            return Err(Error::invalid(path.display(), "channels", input.channels, shape[2]).into());
        }
        let mut shown = vec![0.0; input.channels * input.resolution.plane()];
        plain_view(Image::of_floats(&values, shape)?, input.resolution, preprocess, &mut shown);
        Ok(shown)
    }

    fn read_image(&self, path: &Path, preprocess: &Preprocess) -> Result<Vec<f32>> {
        let input = &self.model.config.input;
        let file = ImageFile::read(path).map_err(|error| error.or_do("or give an array as .npy"))?;
        let file = file.oriented(preprocess.orient);
        let [height, width] = file.size();
        let pixels = file.into_pixels(input.channels, preprocess.grey).ok_or_else(|| {
            let expected = format!("an array of {} channels as .npy", input.channels);
            Error::invalid(path.display(), "channels", expected, "an image")
        })?;
        let mut values = vec![0.0; input.channels * input.resolution.plane()];
        let image = Image::new(&pixels, [height, width, input.channels])?;
        plain_view(image, input.resolution, preprocess, &mut values);
        Ok(values)
    }
}

fn array_at(path: &Path) -> Result<NpyArray> {
    Ok(NpyArray::from_bytes(&path.display().to_string(), &file::read(path)?)?)
}
