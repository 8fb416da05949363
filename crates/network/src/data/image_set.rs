//! Labeled images of one size in memory, with the kind and the statistics of their pixels.
//!
//! Does not know where the images came from, nor the names of the classes.

use serde::{Deserialize, Serialize};

use super::pixels::{PixelBuffer, PixelKind, Pixels};
use super::preprocess::Grey;
use crate::error::{Error, Result};

/// One image, borrowed: rows of pixels, the channels of a pixel side by side.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    pixels: Pixels<'a>,
    shape: [usize; 3],
}

impl<'a> Image<'a> {
    /// An image of 8 bits, of `shape` [height, width, channels].
    ///
    /// # Errors
    /// If a size is 0 or the pixels are not as many as the shape says.
    pub fn new(pixels: &'a [u8], shape: [usize; 3]) -> Result<Self> {
        Self::of_pixels(Pixels::Bytes(pixels), shape)
    }

    /// An array of floats of `shape` [height, width, channels].
    ///
    /// # Errors
    /// As [`Image::new`], or if a value is not finite.
    pub fn of_floats(values: &'a [f32], shape: [usize; 3]) -> Result<Self> {
        check_finite("image", values)?;
        Self::of_pixels(Pixels::Floats(values), shape)
    }

    pub(super) fn of_pixels(pixels: Pixels<'a>, shape: [usize; 3]) -> Result<Self> {
        check_shape("image", pixels.len(), 1, shape)?;
        Ok(Self { pixels, shape })
    }

    /// Pixel values [H, W, C].
    pub fn pixels(&self) -> Pixels<'a> {
        self.pixels
    }

    /// Height, width and channels.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }
}

/// Labeled images of one size: a split of a data set. Never empty, every label below the number of classes.
#[derive(Debug, Clone)]
pub struct ImageSet {
    pixels: PixelBuffer,
    labels: Vec<u32>,
    shape: [usize; 3],
}

impl ImageSet {
    /// Images of 8 bits, `pixels` [N, H, W, C] with as many `labels`; `shape` is [height, width, channels].
    ///
    /// # Errors
    /// If there is no image, the lengths disagree, or a label is not below `classes`.
    pub fn new(pixels: Vec<u8>, labels: Vec<u32>, shape: [usize; 3], classes: usize) -> Result<Self> {
        Self::of_buffer(PixelBuffer::Bytes(pixels), labels, shape, classes)
    }

    /// Arrays of floats, `values` [N, H, W, C] with as many `labels`; `shape` is [height, width, channels].
    ///
    /// # Errors
    /// As [`ImageSet::new`], or if a value is not finite.
    pub fn of_floats(values: Vec<f32>, labels: Vec<u32>, shape: [usize; 3], classes: usize) -> Result<Self> {
        check_finite("image set", &values)?;
        Self::of_buffer(PixelBuffer::Floats(values), labels, shape, classes)
    }

    fn of_buffer(pixels: PixelBuffer, labels: Vec<u32>, shape: [usize; 3], classes: usize) -> Result<Self> {
        check_shape("image set", pixels.view().len(), labels.len(), shape)?;
        if let Some((i, label)) = labels.iter().enumerate().find(|(_, label)| **label as usize >= classes) {
            let expected = format!("below the number of classes, {classes}");
            return Err(Error::invalid("image set", format!("label {i}"), expected, label));
        }
        Ok(Self { pixels, labels, shape })
    }

    /// Number of images; at least 1.
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
    pub fn pixels(&self, i: usize) -> Pixels<'_> {
        let size = self.image_size();
        self.pixels.view().part(i * size, size)
    }

    /// Pixel values [N, H, W, C] of all images.
    pub fn all_pixels(&self) -> Pixels<'_> {
        self.pixels.view()
    }

    /// Kind of the pixels' values.
    pub fn kind(&self) -> PixelKind {
        self.pixels.view().kind()
    }

    /// The images for which `keep` says so, in the same order; `None` if it keeps none.
    pub(super) fn filter(&self, keep: impl Fn(usize) -> bool) -> Option<Self> {
        let kept: Vec<usize> = (0..self.len()).filter(|i| keep(*i)).collect();
        let pixels = self.pixels.gathered(&kept, self.image_size());
        let labels: Vec<u32> = kept.iter().map(|i| self.label(*i)).collect();
        (!labels.is_empty()).then_some(Self { pixels, labels, shape: self.shape })
    }

    /// The same images with 1 channel or 3: a brightness is three equal colors, colors become their brightness. `None`
    /// where a number is neither, or where values are no colors but floats.
    pub(super) fn with_channels(&self, channels: usize, grey: Grey) -> Option<Self> {
        let [height, width, own] = self.shape;
        if own == channels {
            return Some(self.clone());
        }
        let bytes = self.pixels.view().bytes()?;
        let pixels = match (own, channels) {
            (1, 3) => bytes.iter().flat_map(|value| [*value; 3]).collect(),
            (3, 1) => bytes.chunks_exact(3).map(|rgb| grey.of([rgb[0], rgb[1], rgb[2]])).collect(),
            _ => return None,
        };
        let pixels = PixelBuffer::Bytes(pixels);
        Some(Self { pixels, labels: self.labels.clone(), shape: [height, width, channels] })
    }

    /// The same images with each label replaced by its entry in `labels`.
    pub(super) fn relabelled(&self, labels: &[u32]) -> Self {
        let labels = self.labels.iter().map(|label| labels[*label as usize]).collect();
        Self { labels, ..self.clone() }
    }

    fn image_size(&self) -> usize {
        self.shape.iter().product()
    }
}

fn check_finite(place: &str, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Error::invalid(place, format!("value {at}"), "a finite number", values[at])),
        None => Ok(()),
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

/// Mean and standard deviation of each channel: a network's input is shifted and scaled by them. Where values are bytes,
/// of the value / 255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "MeanAndStd")]
pub struct Normalization {
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// A normalization before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MeanAndStd {
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl TryFrom<MeanAndStd> for Normalization {
    type Error = Error;

    fn try_from(MeanAndStd { mean, std }: MeanAndStd) -> Result<Self> {
        Self::new(mean, std)
    }
}

impl Normalization {
    /// The normalization with these means and standard deviations, one of each a channel.
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

    /// The statistics of the images of `set`. Sums of bytes are exact, so the order of images does not matter there.
    ///
    /// A channel without any variation gets a deviation of one grey level, 1/255, instead of 0; of floats, of 1.
    pub fn of(set: &ImageSet) -> Self {
        let channels = set.shape[2];
        let (mean, std) = (0..channels)
            .map(|channel: usize| match set.pixels.view() {
                Pixels::Bytes(bytes) => mean_and_std(bytes, channel, channels),
                Pixels::Floats(values) => mean_and_std_of_floats(values, channel, channels),
            })
            .unzip();
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

/// Of floats, in two passes in f64.
fn mean_and_std_of_floats(values: &[f32], channel: usize, channels: usize) -> (f32, f32) {
    let count = (values.len() / channels) as f64;
    let values = || values.iter().skip(channel).step_by(channels).map(|value| f64::from(*value));
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let deviation = variance.sqrt() as f32;
    (mean as f32, if deviation.is_normal() { deviation } else { 1.0 })
}

fn mean_and_std(pixels: &[u8], channel: usize, channels: usize) -> (f32, f32) {
    let count = (pixels.len() / channels) as f64;
    let pixels = pixels.iter().skip(channel).step_by(channels).map(|pixel| u64::from(*pixel));
    let (sum, squares) = pixels.fold((0, 0), |(sum, squares), pixel| (sum + pixel, squares + pixel * pixel));
    Normalization::of_sums(count, sum as f64, squares as f64)
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
        assert_eq!((set.len(), set.label(2), set.pixels(1)), (3, 1, Pixels::Bytes(&[4, 5, 6, 7])));
        let odd = set.filter(|i| i != 1).unwrap();
        assert_eq!((odd.labels(), odd.pixels(1)), (&[2, 1][..], Pixels::Bytes(&[8, 9, 10, 11])));
        assert!(set.filter(|_| false).is_none());
    }

    #[test]
    fn statistics_are_those_of_each_channel() {
        let set = ImageSet::new(vec![0, 7, 255, 7], vec![0], [1, 2, 2], 1).unwrap();
        let found = Normalization::of(&set);
        assert_eq!(found, Normalization::new(vec![0.5, 7.0 / 255.0], vec![0.5, 1.0 / 255.0]).unwrap());
    }

    #[test]
    fn floats_stay_as_they_are() {
        let values = vec![-40.0, 7.5, -20.0, 7.5, 1e-3, 7.5, -60.0, 7.5];
        let set = ImageSet::of_floats(values, vec![1, 0], [1, 2, 2], 2).unwrap();
        assert_eq!(set.kind(), PixelKind::Floats);
        assert_eq!(set.pixels(1), Pixels::Floats(&[1e-3, 7.5, -60.0, 7.5]));
        assert_eq!(set.filter(|i| i == 1).unwrap().pixels(0), set.pixels(1));
        // numpy.array([-40, -20, 1e-3, -60]).mean(), .std(); a channel without variation
        let expected = Normalization::new(vec![-29.99975, 7.5], vec![22.361016, 1.0]).unwrap();
        assert_eq!(Normalization::of(&set), expected);
        assert!(set.with_channels(1, Grey::Rec601).is_none() && set.with_channels(2, Grey::Rec601).is_some());
        for bad in [f32::NAN, f32::INFINITY] {
            let message = refusal(ImageSet::of_floats(vec![0.0, bad], vec![0], [1, 2, 1], 1));
            assert!(message.starts_with("image set: value 1: expected a finite number, got"), "{message}");
            assert!(Image::of_floats(&[bad], [1, 1, 1]).is_err());
        }
    }

    #[test]
    fn a_normalization_is_checked() {
        for (mean, std, expected) in [
            (vec![], vec![], "channels"),
            (vec![0.1], vec![1.0, 1.0], "got 1 means and 2 deviations"),
            (vec![f32::NAN], vec![1.0], "mean: expected a finite number, got NaN"),
            (vec![0.1], vec![0.0], "std: expected a positive, finite number, got 0"),
        ] {
            let message = refusal(Normalization::new(mean, std));
            assert!(message.contains(expected), "{message}");
        }
    }
}
