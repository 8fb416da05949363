//! The view of an image that a network gets: in training a random crop with varied colors, otherwise the one that
//! [`Preprocess`] defines.
//!
//! Every random number comes from a generator that is passed in. Knows nothing of batches or labels.
//!
//! A training crop is drawn before its image is decoded, so that a JPEG can be decoded at a fraction of its sides.

mod crop;
mod erasing;
mod mix;
mod rand_augment;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use space::Extent;

use super::Dataset;
use super::image_set::Image;
use super::pixels::PixelKind;
use super::preprocess::Preprocess;
use super::resize::{Lines, draw, shown};
use crate::error::{Error, Result};
pub(super) use crop::Crop;
pub(super) use mix::Mix;
pub use rand_augment::RandAugment;

/// Bounds of a crop's width / height.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// The least area that it shows, the value of ImageNet training.
const LEAST_AREA: f64 = 0.08;
/// Side of images below which a small crop cuts off the one object that fills them, times the area to show: .6 at 28
/// pixels, .08 from 210 on.
const AREA_SIDE: f64 = 16.8;
/// The greatest least area of a crop: that of the smallest images.
const SMALL_AREA: f64 = 0.8;
/// The least part of an array's columns that a crop shows.
const LEAST_WIDTH: f32 = 0.8;
/// Change of brightness and saturation of photographs by the authors of once-for-all.
const JITTER: [f32; 2] = [32.0 / 255.0, 0.5];
/// Pixels of a crop along a side for each of the view, below which a JPEG is not decoded at a fraction: twice as many leave
/// the resizing as much to average as the fraction did.
const JPEG_OVERSAMPLING: f32 = 2.0;
/// Fractions at which a JPEG can be decoded.
const FRACTIONS: [usize; 3] = [8, 4, 2];
/// The most operations of RandAugment on an image: more leave nothing to recognize.
const MOST_OPERATIONS: f64 = 16.0;
/// Bounds of the alpha of mixup and cutmix: below, every share is 0 or 1 in f32; above, every share is a half.
const ALPHAS: [f32; 2] = [0.001, 1000.0];

/// Variation of training images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// The smallest part of the image's area that a random crop shows, in 0..=1.
    pub min_area: f32,
    /// Bounds of a crop's width / height.
    pub ratio: [f64; 2],
    /// The smallest part of the width that a crop shows, in 0..=1, all of its height then: in place of area and ratio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_width: Option<f32>,
    /// Whether every other image is mirrored.
    pub flip: bool,
    /// Brightness is multiplied by 1 minus to 1 plus this.
    pub brightness: f32,
    /// Colors are moved away from grey, or towards it, by a factor of 1 minus to 1 plus this.
    pub saturation: f32,
    /// JPEGs are decoded at a half, a quarter or an eighth of their sides where the crop then still has at least this many
    /// times the pixels of the view along each side; 0 decodes them whole. (Evaluation always does.)
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jpeg_oversampling: f32,
    /// Random operations on the pixels after crop and flip; `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
    /// Probability that a random rectangle of an image is set to 0 after normalization (Zhong et al. 2020).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub erasing: f32,
    /// Alpha of the Beta distribution from which mixup draws a batch's share (Zhang et al. 2018); 0 for no mixup.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mixup: f32,
    /// Alpha of the Beta distribution from which cutmix draws a batch's share (Yun et al. 2019); 0 for no cutmix. If mixup is
    /// on as well, each batch has one of the two, with equal probability.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cutmix: f32,
}

fn is_zero(value: &f32) -> bool {
    *value == 0.0
}

/// A recipe's settings; those left out follow from the data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AugmentationSettings {
    /// [`Augmentation::min_area`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_area: Option<f32>,
    /// [`Augmentation::ratio`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<[f64; 2]>,
    /// [`Augmentation::min_width`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_width: Option<f32>,
    /// [`Augmentation::flip`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flip: Option<bool>,
    /// [`Augmentation::brightness`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brightness: Option<f32>,
    /// [`Augmentation::saturation`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation: Option<f32>,
    /// [`Augmentation::jpeg_oversampling`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg_oversampling: Option<f32>,
    /// [`Augmentation::rand_augment`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rand_augment: Option<RandAugment>,
    /// [`Augmentation::erasing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasing: Option<f32>,
    /// [`Augmentation::mixup`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mixup: Option<f32>,
    /// [`Augmentation::cutmix`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutmix: Option<f32>,
}

impl AugmentationSettings {
    /// Whether all values are possible; `place` names the recipe.
    ///
    /// # Errors
    /// Names the field.
    pub fn check(&self, place: &str) -> Result<()> {
        let [low, high] = self.ratio.unwrap_or(RATIO);
        let area = f64::from(self.min_area.unwrap_or(1.0));
        let brightness = self.brightness.unwrap_or(0.0);
        let saturation = self.saturation.unwrap_or(0.0);
        // an operation and a magnitude that are possible, where there are none
        let RandAugment { operations, magnitude } =
            self.rand_augment.unwrap_or(RandAugment { operations: 1, magnitude: 0 });
        for (field, value, least, most) in [
            ("min_area", area, 1e-4, 1.0),
            ("min_width", f64::from(self.min_width.unwrap_or(1.0)), 1e-4, 1.0),
            ("ratio", low, 0.01, 100.0),
            ("ratio", high, low, 100.0),
            ("brightness", f64::from(brightness), 0.0, 1.0),
            ("saturation", f64::from(saturation), 0.0, 1.0),
            ("jpeg_oversampling", f64::from(self.jpeg_oversampling.unwrap_or(0.0)), 0.0, 1e6),
            ("rand_augment.operations", operations as f64, 1.0, MOST_OPERATIONS),
            ("rand_augment.magnitude", f64::from(magnitude), 0.0, f64::from(RandAugment::MOST_MAGNITUDE)),
            ("erasing", f64::from(self.erasing.unwrap_or(0.0)), 0.0, 1.0),
        ] {
            if !(least..=most).contains(&value) {
                let field = format!("augmentation.{field}");
                return Err(Error::invalid(place, field, format!("{least} to {most}"), value));
            }
        }
        for (field, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            let [least, most] = ALPHAS;
            if let Some(alpha) = alpha.filter(|alpha| *alpha != 0.0 && !(least..=most).contains(alpha)) {
                let field = format!("augmentation.{field}");
                return Err(Error::invalid(place, field, format!("0, or {least} to {most}"), alpha));
            }
        }
        Ok(())
    }
}

impl AugmentationSettings {
    /// The settings for a run that was begun under a plan: one without a setting for JPEGs was begun when all were decoded
    /// whole.
    #[must_use]
    pub fn as_begun(self, plan: Option<&serde_json::Value>) -> Self {
        let begun = plan.and_then(|plan| plan.get("augmentation")).filter(|begun| begun.is_object());
        let said = begun.is_none_or(|begun| begun.get("jpeg_oversampling").is_some());
        if said { self } else { Self { jpeg_oversampling: self.jpeg_oversampling.or(Some(0.0)), ..self } }
    }
}

impl Augmentation {
    /// A recipe's settings resolved for a data set.
    ///
    /// By default: a crop of at least 16.8 / side of the area, .08 to .8 (torchvision's and OFA's .08 from 210
    /// pixels on; small images show one object that fills them, and a small crop cuts it off: .6 at 28 pixels is this
    /// toolkit's choice); a flip where the data say that it is legal; for photographs in color, which are image files,
    /// OFA's changes of brightness (32 / 255) and saturation (.5); JPEGs decoded at a fraction where the crop has twice the
    /// view's pixels then. Of arrays, whose rows are not like their columns, a crop of at least .8 of the width and all of the
    /// height, unless `min_area` or `ratio` is set: a spectrogram's bands stay where they are.
    ///
    /// # Errors
    /// If colors are to be varied that are none.
    pub fn for_dataset(dataset: &Dataset, settings: AugmentationSettings) -> Result<Self> {
        if dataset.train().kind() == PixelKind::Floats {
            return Self::for_arrays(dataset, settings);
        }
        let area = (AREA_SIDE / dataset.size() as f64).clamp(LEAST_AREA, SMALL_AREA);
        let photographs = !dataset.train().in_memory() && dataset.channels() == 3;
        let [brightness, saturation] = if photographs { JITTER } else { [0.0; 2] };
        Ok(Self {
            min_area: settings.min_area.unwrap_or(((area * 100.0).round() / 100.0) as f32),
            ratio: settings.ratio.unwrap_or(RATIO),
            min_width: settings.min_width,
            flip: settings.flip.unwrap_or(dataset.flip()),
            brightness: settings.brightness.unwrap_or(brightness),
            saturation: settings.saturation.unwrap_or(saturation),
            jpeg_oversampling: settings.jpeg_oversampling.unwrap_or(if dataset.train().in_memory() {
                0.0
            } else {
                JPEG_OVERSAMPLING
            }),
            rand_augment: settings.rand_augment,
            erasing: settings.erasing.unwrap_or(0.0),
            mixup: settings.mixup.unwrap_or(0.0),
            cutmix: settings.cutmix.unwrap_or(0.0),
        })
    }

    /// The variation of arrays of floats.
    fn for_arrays(dataset: &Dataset, settings: AugmentationSettings) -> Result<Self> {
        for (field, value) in [("brightness", settings.brightness), ("saturation", settings.saturation)] {
            if let Some(value) = value.filter(|value| *value != 0.0) {
                let place = format!("data {}", dataset.name());
                let field = format!("augmentation.{field}");
                return Err(Error::invalid(place, field, "0 for arrays, which have no colors", value)
                    .and_then_do("leave it out of the recipe"));
            }
        }
        if let Some(RandAugment { operations, magnitude }) = settings.rand_augment {
            let place = format!("data {}", dataset.name());
            let expected = "none for arrays, whose values are no bytes of an image";
            let got = format!("{operations} operations of magnitude {magnitude}");
            return Err(Error::invalid(place, "augmentation.rand_augment", expected, got)
                .and_then_do("leave it out of the recipe"));
        }
        let by_area = settings.min_area.is_some() || settings.ratio.is_some();
        Ok(Self {
            min_area: settings.min_area.unwrap_or(1.0),
            ratio: settings.ratio.unwrap_or(RATIO),
            min_width: settings.min_width.or((!by_area).then_some(LEAST_WIDTH)),
            flip: settings.flip.unwrap_or(dataset.flip()),
            brightness: 0.0,
            saturation: 0.0,
            jpeg_oversampling: 0.0,
            rand_augment: None,
            erasing: settings.erasing.unwrap_or(0.0),
            mixup: settings.mixup.unwrap_or(0.0),
            cutmix: settings.cutmix.unwrap_or(0.0),
        })
    }

    /// The variation of runs whose plan has none: a crop that follows the size in three steps, and a flip where it was taken
    /// for legal.
    pub fn unsaid(dataset: &Dataset) -> Self {
        let min_area = match dataset.size() {
            64.. => 0.08,
            16.. => 0.6,
            _ => 0.8,
        };
        let flip = dataset.flip_by_name();
        Self {
            min_area,
            ratio: RATIO,
            min_width: None,
            flip,
            brightness: 0.0,
            saturation: 0.0,
            jpeg_oversampling: 0.0,
            rand_augment: None,
            erasing: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
        }
    }

    /// A random crop of `image`, resized to `resolution`, perhaps mirrored, its pixels and colors varied, normalized, perhaps
    /// erased in part, written to `out`.
    ///
    /// # Shapes
    /// `image` [H, W, C], `out` [C, rows, columns] of the resolution.
    ///
    /// # Panics
    /// If `out` or `preprocess` does not have that size.
    pub fn train_view(
        &self,
        image: Image<'_>,
        resolution: impl Into<Extent>,
        preprocess: &Preprocess,
        rng: &mut ChaCha8Rng,
        out: &mut [f32],
    ) {
        let resolution = resolution.into();
        let [height, width, _] = image.shape();
        let crop = self.crop([height, width], resolution, rng);
        self.show(&Part { image, fraction: 1, crop }, &Wanted { resolution, preprocess }, rng, out);
    }

    /// A random crop of an image of that height and width, to be shown at a resolution: the first thing that is drawn of a
    /// view. Its aspect varies around the resolution's.
    pub(super) fn crop(&self, size: [usize; 2], resolution: Extent, rng: &mut ChaCha8Rng) -> Crop {
        if let Some(least) = self.min_width {
            return Crop::of_width(size, least, rng);
        }
        Crop::random(size, resolution.width as f64 / resolution.height as f64, self, rng)
    }

    /// The fraction at which a JPEG is decoded of which this crop is shown: 1 for whole.
    pub(super) fn fraction(&self, crop: Crop, resolution: Extent) -> usize {
        if self.jpeg_oversampling == 0.0 {
            return 1;
        }
        let sides = [(crop.height, resolution.height), (crop.width, resolution.width)];
        FRACTIONS
            .into_iter()
            .find(|fraction: &usize| {
                sides.iter().all(|(side, outputs)| {
                    let needed = (f64::from(self.jpeg_oversampling) * *outputs as f64).max(1.0);
                    *side as f64 >= needed * *fraction as f64
                })
            })
            .unwrap_or(1)
    }

    /// Writes the view of [`Augmentation::train_view`] once its crop is drawn.
    pub(super) fn show(&self, part: &Part<'_>, wanted: &Wanted<'_>, rng: &mut ChaCha8Rng, out: &mut [f32]) {
        let Wanted { resolution, preprocess } = *wanted;
        let mirrored = self.flip && rng.random_bool(0.5);
        let lines = part.lines(resolution);
        draw(part.image, preprocess.filter, &lines, mirrored, out);
        if let Some(rand_augment) = self.rand_augment {
            rand_augment.apply(out, resolution, rng);
        }
        self.vary_colors(out, resolution, rng);
        normalize(out, resolution, preprocess);
        if self.erasing > 0.0 && rng.random_bool(f64::from(self.erasing)) {
            erasing::erase(out, resolution, rng);
        }
    }

    /// How the images of a batch are mixed with one another; `None` if neither mixup nor cutmix is on. Nothing is drawn then.
    pub(super) fn mix(&self, resolution: Extent, rng: impl FnOnce() -> ChaCha8Rng) -> Option<Mix> {
        match [self.mixup > 0.0, self.cutmix > 0.0] {
            [false, false] => None,
            [true, false] => Some(Mix::mixup(self.mixup, &mut rng())),
            [false, true] => Some(Mix::cutmix(self.cutmix, resolution, &mut rng())),
            [true, true] => {
                let mut rng = rng();
                Some(match rng.random_bool(0.5) {
                    true => Mix::mixup(self.mixup, &mut rng),
                    false => Mix::cutmix(self.cutmix, resolution, &mut rng),
                })
            }
        }
    }

    /// torchvision's ColorJitter with brightness and saturation, in random order; values stay in 0..=255.
    fn vary_colors(&self, planes: &mut [f32], resolution: Extent, rng: &mut ChaCha8Rng) {
        if self.brightness == 0.0 && self.saturation == 0.0 {
            return;
        }
        let mut factor = |width: f32| rng.random_range(1.0 - width..=1.0 + width);
        let brightness = factor(self.brightness);
        let saturation = factor(self.saturation);
        let brighten = |planes: &mut [f32]| {
            planes.iter_mut().for_each(|value| *value = (*value * brightness).clamp(0.0, 255.0));
        };
        let saturate = |planes: &mut [f32]| {
            let size = resolution.plane();
            let [red, green, blue] = [0, 1, 2].map(|channel| channel * size);
            if planes.len() != 3 * size {
                return;
            }
            for at in 0..size {
                let grey = planes[red + at] * 0.299 + planes[green + at] * 0.587 + planes[blue + at] * 0.114;
                for plane in [red, green, blue] {
                    let value = &mut planes[plane + at];
                    *value = (grey + saturation * (*value - grey)).clamp(0.0, 255.0);
                }
            }
        };
        if rng.random_bool(0.5) {
            brighten(planes);
            saturate(planes);
        } else {
            saturate(planes);
            brighten(planes);
        }
    }
}

/// Writes the evaluation view of an image at `resolution`, normalized, to `out`. The image was turned and has the channels
/// of the network already.
///
/// # Shapes
/// `image` [H, W, C], `out` [C, rows, columns] of the resolution.
///
/// # Panics
/// If `out` or `preprocess` does not have that size.
pub fn plain_view(image: Image<'_>, resolution: impl Into<Extent>, preprocess: &Preprocess, out: &mut [f32]) {
    let resolution = resolution.into();
    show(image, resolution, preprocess, out);
    normalize(out, resolution, preprocess);
}

/// The evaluation view before normalization, in pixel units.
pub(super) fn show(image: Image<'_>, resolution: Extent, preprocess: &Preprocess, out: &mut [f32]) {
    let [height, width, _] = image.shape();
    let lines = shown(preprocess.resize, [height, width], resolution);
    draw(image, preprocess.filter, &lines, false, out);
}

/// Resolution and preprocessing of a view.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub resolution: Extent,
    pub preprocess: &'a Preprocess,
}

/// A crop of an image that was decoded at a fraction, 1 for whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub image: Image<'a>,
    pub fraction: usize,
    /// In pixels of the whole image.
    pub crop: Crop,
}

impl Part<'_> {
    /// Rows and columns of the image that are shown.
    fn lines(&self, resolution: Extent) -> [Lines; 2] {
        let Crop { top, left, height, width } = self.crop;
        let [rows, columns, _] = self.image.shape();
        let axes = [[top, height, rows, resolution.height], [left, width, columns, resolution.width]];
        axes.map(|[start, length, side, outputs]| {
            let whole = Lines::all(start, length, outputs);
            if self.fraction == 1 { whole } else { Lines::of_fraction(&whole, self.fraction, side) }
        })
    }
}

/// Normalizes pixel values for the network: (value / 255 - mean) / std, of floats (value - mean) / std, channel by channel.
pub(super) fn normalize(planes: &mut [f32], resolution: Extent, preprocess: &Preprocess) {
    let size = resolution.plane();
    let normalization = &preprocess.normalization;
    let unit = preprocess.values.unit();
    assert_eq!(planes.len(), normalization.channels() * size, "one mean and deviation a channel");
    let statistics = normalization.mean().iter().zip(normalization.std());
    for (plane, (mean, std)) in planes.chunks_exact_mut(size).zip(statistics) {
        plane.iter_mut().for_each(|value| *value = (*value / unit - mean) / std);
    }
}

#[cfg(test)]
mod tests;
