//! Labelled images of one size in memory, and what is known of their pixels.
//!
//! Does not know where the images came from, nor what the classes are called.

use serde::{Deserialize, Serialize};

use super::preprocess::Grey;
use crate::error::{Error, Result};

/// One image, borrowed: rows of pixels, the channels of a pixel side by side.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    pixels: &'a [u8],
    shape: [usize; 3],
}

impl<'a> Image<'a> {
    /// An image of `shape` [height, width, channels].
    ///
    /// # Errors
    /// If a size is 0 or the pixels are not as many as the shape says.
    pub fn new(pixels: &'a [u8], shape: [usize; 3]) -> Result<Self> {
        check_shape("image", pixels.len(), 1, shape)?;
        Ok(Self { pixels, shape })
    }

    /// Pixel values [H, W, C].
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// Height, width and channels.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }
}

/// Labelled images of one size: a split of a data set. Never empty, every label below the number of classes.
#[derive(Debug, Clone)]
pub struct ImageSet {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    shape: [usize; 3],
}

impl ImageSet {
    /// Images `pixels` [N, H, W, C] with as many `labels`; `shape` is [height, width, channels].
    ///
    /// # Errors
    /// If there is no image, the lengths disagree, or a label is not below `classes`.
    pub fn new(pixels: Vec<u8>, labels: Vec<u32>, shape: [usize; 3], classes: usize) -> Result<Self> {
        check_shape("image set", pixels.len(), labels.len(), shape)?;
        if let Some((i, label)) = labels.iter().enumerate().find(|(_, label)| **label as usize >= classes) {
            let expected = format!("below the number of classes, {classes}");
            return Err(Error::invalid("image set", format!("label {i}"), expected, label));
        }
        Ok(Self { pixels, labels, shape })
    }

    /// How many images there are; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Height, width and channels of every image.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The class of image `i`, which is below [`ImageSet::len`].
    pub fn label(&self, i: usize) -> u32 {
        self.labels[i]
    }

    /// The classes of all images, in order.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Pixel values [H, W, C] of image `i`, which is below [`ImageSet::len`].
    pub fn pixels(&self, i: usize) -> &[u8] {
        let size = self.image_size();
        &self.pixels[i * size..(i + 1) * size]
    }

    /// Pixel values [N, H, W, C] of all images.
    pub fn all_pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The images for which `keep` says so, in the same order; `None` if it keeps none.
    pub(super) fn filter(&self, keep: impl Fn(usize) -> bool) -> Option<Self> {
        let kept: Vec<usize> = (0..self.len()).filter(|i| keep(*i)).collect();
        let mut pixels = Vec::with_capacity(kept.len() * self.image_size());
        kept.iter().for_each(|i| pixels.extend_from_slice(self.pixels(*i)));
        let labels: Vec<u32> = kept.iter().map(|i| self.label(*i)).collect();
        (!labels.is_empty()).then_some(Self { pixels, labels, shape: self.shape })
    }

    /// The same images with 1 channel or 3: a brightness is three equal colours, colours become their brightness. `None`
    /// where a number is neither.
    pub(super) fn with_channels(&self, channels: usize, grey: Grey) -> Option<Self> {
        let [height, width, own] = self.shape;
        let pixels = match (own, channels) {
            _ if own == channels => self.pixels.clone(),
            (1, 3) => self.pixels.iter().flat_map(|value| [*value; 3]).collect(),
            (3, 1) => self.pixels.chunks_exact(3).map(|rgb| grey.of([rgb[0], rgb[1], rgb[2]])).collect(),
            _ => return None,
        };
        Some(Self { pixels, labels: self.labels.clone(), shape: [height, width, channels] })
    }

    /// The same images with each label replaced by what it is in `labels`.
    pub(super) fn relabelled(&self, labels: &[u32]) -> Self {
        let labels = self.labels.iter().map(|label| labels[*label as usize]).collect();
        Self { labels, ..self.clone() }
    }

    fn image_size(&self) -> usize {
        self.shape.iter().product()
    }
}

fn check_shape(place: &str, pixels: usize, images: usize, shape: [usize; 3]) -> Result<()> {
    let [height, width, channels] = shape;
    let positive = images > 0 && shape.iter().all(|size| *size > 0);
    let values = shape.iter().try_fold(images, |product, size| product.checked_mul(*size));
    if !positive {
        let got = format!("{images} x {height} x {width} x {channels}");
        return Err(Error::invalid(place, "shape", "at least one image of at least one pixel", got));
    }
    if values != Some(pixels) {
        let expected = format!("{images} x {height} x {width} x {channels}");
        return Err(Error::invalid(place, "pixel values", expected, pixels));
    }
    Ok(())
}

/// Mean and standard deviation of each channel, of pixel / 255: a network's input is shifted and scaled by
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MeanAndStd")]
pub struct Normalisation {
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// The same before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MeanAndStd {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<MeanAndStd> for Normalisation {
    type Error = Error;

    fn try_from(MeanAndStd { mean, std }: MeanAndStd) -> Result<Self> {
        Self::new(mean, std)
    }
}

impl Normalisation {
    /// The normalisation with these means and standard deviations, one of each a channel.
    ///
    /// # Errors
    /// If there are none, they are not equally many, or one is not finite, or a deviation is not positive.
    pub fn new(mean: Vec<f32>, std: Vec<f32>) -> Result<Self> {
        let place = "normalisation";
        if mean.is_empty() || mean.len() != std.len() {
            let got = format!("{} means and {} deviations", mean.len(), std.len());
            return Err(Error::invalid(place, "channels", "one mean and one deviation a channel", got));
        }
        if let Some(bad) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::invalid(place, "mean", "a finite number", bad));
        }
        if let Some(bad) = std.iter().find(|value| !value.is_finite() || **value <= 0.0) {
            return Err(Error::invalid(place, "std", "a positive, finite number", bad));
        }
        Ok(Self { mean, std })
    }

    /// The mean and deviation of ImageNet's training images that PyTorch's models are trained with.
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }

    /// The statistics of the images of `set`; exact integer sums, so the order of the images does not matter.
    ///
    /// A channel without any variation gets a deviation of one grey level, 1/255, instead of 0.
    pub fn of(set: &ImageSet) -> Self {
        let (mean, std) = (0..set.shape[2]).map(|channel| mean_and_std(set, channel)).unzip();
        Self { mean, std }
    }

    /// Mean and deviation of a channel of `count` pixels with this sum of values (0 to 255) and of their squares.
    pub(super) fn of_sums(count: f64, sum: f64, squares: f64) -> (f32, f32) {
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        ((mean / 255.0) as f32, (deviation / 255.0) as f32)
    }

    /// The mean of each channel.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The standard deviation of each channel.
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }
}

fn mean_and_std(set: &ImageSet, channel: usize) -> (f32, f32) {
    let channels = set.shape[2];
    let count = (set.pixels.len() / channels) as f64;
    let pixels = set.pixels.iter().skip(channel).step_by(channels).map(|pixel| u64::from(*pixel));
    let (sum, squares) = pixels.fold((0, 0), |(sum, squares), pixel| (sum + pixel, squares + pixel * pixel));
    Normalisation::of_sums(count, sum as f64, squares as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn an_image_set_is_checked() {
        for (pixels, labels, shape, expected) in [
            (vec![0; 3], vec![0], [2, 2, 1], "pixel values: expected 1 x 2 x 2 x 1, got 3"),
            (vec![], vec![], [2, 2, 1], "shape: expected at least one image"),
            (vec![], vec![0], [0, 2, 1], "shape: expected at least one image"),
            (vec![0; 8], vec![0, 9], [2, 2, 1], "label 1: expected below the number of classes, 9, got 9"),
            (vec![0; 8], vec![0, 1], [usize::MAX, 2, 1], "pixel values"),
        ] {
            let message = refusal(ImageSet::new(pixels, labels, shape, 9));
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn images_are_found_by_index() {
        let set = ImageSet::new((0..12).collect(), vec![2, 0, 1], [1, 2, 2], 3).unwrap();
        assert_eq!((set.len(), set.label(2), set.pixels(1)), (3, 1, &[4, 5, 6, 7][..]));
        let odd = set.filter(|i| i != 1).unwrap();
        assert_eq!((odd.labels(), odd.pixels(1)), (&[2, 1][..], &[8, 9, 10, 11][..]));
        assert!(set.filter(|_| false).is_none());
    }

    #[test]
    fn statistics_are_those_of_each_channel() {
        let set = ImageSet::new(vec![0, 7, 255, 7], vec![0], [1, 2, 2], 1).unwrap();
        let found = Normalisation::of(&set);
        assert_eq!(found, Normalisation::new(vec![0.5, 7.0 / 255.0], vec![0.5, 1.0 / 255.0]).unwrap());
    }

    #[test]
    fn a_normalisation_is_checked() {
        for (mean, std, expected) in [
            (vec![], vec![], "channels"),
            (vec![0.1], vec![1.0, 1.0], "got 1 means and 2 deviations"),
            (vec![f32::NAN], vec![1.0], "mean: expected a finite number, got NaN"),
            (vec![0.1], vec![0.0], "std: expected a positive, finite number, got 0"),
        ] {
            let message = refusal(Normalisation::new(mean, std));
            assert!(message.contains(expected), "{message}");
        }
    }
}
