//! Classifies images with an exported model.

use std::path::Path;

use candle_core::{Device, Tensor};
use serde::Serialize;
use supernet::Error;
use supernet::data::{Image, ImageFile, plain_view};
use supernet::file;
use supernet::kernels::Kernels;
use supernet::model_folder::ModelFolder;
use supernet::nn::FoldedNetwork;

use crate::error::Result;

/// A model that is ready to classify.
pub struct Classifier {
    model: ModelFolder,
    network: FoldedNetwork,
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
    pub fn load(folder: &Path, kernels: Kernels) -> Result<Self> {
        let model = ModelFolder::read(folder)?;
        let network = FoldedNetwork::new(&model.network(kernels)?)?;
        Ok(Self { model, network })
    }

    /// What the folder's configuration says.
    pub fn model(&self) -> &ModelFolder {
        &self.model
    }

    /// Logits, one a class, of an image file: png or jpeg of any size, or `.npy` with `[C, H, W]` f32 values that
    /// are normalised already.
    ///
    /// # Errors
    /// If the file is no such image, or an array of another shape than the model's input.
    pub fn logits(&self, path: &Path) -> Result<Vec<f32>> {
        let input = &self.model.config.input;
        let shape = [input.channels, input.resolution, input.resolution];
        let npy = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        let values = if npy { read_npy(path, shape)? } else { self.read_image(path)? };
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
        let score = |&index: &usize| Score {
            class: self.model.config.classes[index].clone(),
            probability: weights[index] / total,
        };
        order.iter().take(count).map(score).collect()
    }

    fn read_image(&self, path: &Path) -> Result<Vec<f32>> {
        let input = &self.model.config.input;
        let file = ImageFile::read(path).map_err(|error| error.and_then_do("or give an array as .npy"))?;
        let [height, width] = file.size();
        let pixels = file.into_pixels(input.channels).ok_or_else(|| {
            let expected = format!("an array of {} channels as .npy", input.channels);
            Error::invalid(path.display(), "channels", expected, "an image")
        })?;
        let mut values = vec![0.0; input.channels * input.resolution * input.resolution];
        let image = Image::new(&pixels, [height, width, input.channels])?;
        plain_view(image, input.resolution, &self.model.normalisation()?, &mut values);
        Ok(values)
    }
}

fn read_npy(path: &Path, shape: [usize; 3]) -> Result<Vec<f32>> {
    let bytes = file::read(path)?;
    npy_from_bytes(&path.display().to_string(), &bytes, shape)
}

/// Values of a `.npy` array of f32 in C order (numpy's format 1 to 3) of exactly this shape; `place` names it in
/// messages.
///
/// # Errors
/// If the bytes are no such array, or a value is not finite.
pub fn npy_from_bytes(place: &str, bytes: &[u8], shape: [usize; 3]) -> Result<Vec<f32>> {
    let wrong = |field: &str, expected: String, got: String| Error::invalid(place, field, expected, got);
    let (header, data) = split_npy(bytes)
        .ok_or_else(|| wrong("header", "numpy's .npy format".to_string(), "something else".to_string()))?;
    let header: String = header.split_whitespace().collect();
    let list = |dims: &[usize]| dims.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    for (field, expected) in [
        ("dtype", "'descr':'<f4'".to_string()),
        ("order", "'fortran_order':False".to_string()),
        ("shape", format!("'shape':({})", list(&shape))),
    ] {
        if !header.contains(&expected) {
            return Err(wrong(field, expected, header).into());
        }
    }
    let length: usize = shape.iter().product();
    if data.len() != 4 * length {
        return Err(wrong("data", format!("{} bytes", 4 * length), format!("{} bytes", data.len())).into());
    }
    let values: Vec<f32> =
        data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(wrong("values", "finite numbers".to_string(), value.to_string()).into()),
        None => Ok(values),
    }
}

/// Header text and data of a `.npy` file.
fn split_npy(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (&[major, _], rest) = rest.split_first_chunk::<2>()?;
    if !(1..=3).contains(&major) {
        return None;
    }
    let (length, rest) = if major == 1 {
        let (length, rest) = rest.split_first_chunk::<2>()?;
        (usize::from(u16::from_le_bytes(*length)), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*length) as usize, rest)
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[f32]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data.iter().flat_map(|value| value.to_le_bytes()));
        bytes
    }

    #[test]
    fn arrays_are_read_and_broken_ones_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.npy");
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2), }\n";
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("written");
            read_npy(&path, [1, 2, 2]).map_err(|error| error.to_string())
        };
        let data = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(read(&npy(good, &data)), Ok(data.to_vec()));
        for (bytes, part) in [
            (npy(&good.replace("<f4", "<f8"), &data), "dtype"),
            (npy(&good.replace("2, 2", "2, 3"), &data), "shape"),
            (npy(&good.replace("False", "True"), &data), "order"),
            (npy(good, &data[..3]), "data: expected 16 bytes, got 12 bytes"),
            (npy(good, &[1.0, 2.0, 3.0, f32::NAN]), "values"),
            (b"PNG".to_vec(), "header"),
            (npy(good, &data)[..20].to_vec(), "header"),
        ] {
            assert!(read(&bytes).expect_err(part).contains(part), "{part}");
        }
    }
}
