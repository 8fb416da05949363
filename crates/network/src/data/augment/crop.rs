//! The random crop of a training image.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Augmentation;

/// Attempts to draw a crop (torchvision's RandomResizedCrop).
const TRIES: usize = 10;

/// A part of an image, in whole pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Crop {
    pub top: usize,
    pub left: usize,
    pub height: usize,
    pub width: usize,
}

impl Crop {
    /// A crop of at least `min_area` of the image as torchvision's RandomResizedCrop draws it: uniform in
    /// area, log-uniform in aspect around `shape`; after ten draws that do not fit, a central one of the nearest legal
    /// aspect.
    pub fn random(
        [height, width]: [usize; 2],
        shape: f64,
        augmentation: &Augmentation,
        rng: &mut ChaCha8Rng,
    ) -> Self {
        let area = (height * width) as f64;
        let min_area = f64::from(augmentation.min_area);
        let [narrow, wide] = augmentation.ratio.map(f64::ln);
        for _ in 0..TRIES {
            let target = area * rng.random_range(min_area.clamp(0.0, 1.0)..=1.0);
            let aspect = shape * rng.random_range(narrow..=wide).exp();
            let crop_width = (target * aspect).sqrt().round() as usize;
            let crop_height = (target / aspect).sqrt().round() as usize;
            if (1..=height).contains(&crop_height) && (1..=width).contains(&crop_width) {
                let top = rng.random_range(0..=height - crop_height);
                let left = rng.random_range(0..=width - crop_width);
                return Self { top, left, height: crop_height, width: crop_width };
            }
        }
        Self::central([height, width], augmentation.ratio.map(|ratio| shape * ratio))
    }

    /// A crop of all rows and at least this part of the columns, uniform in its width.
    pub fn of_width([height, width]: [usize; 2], least: f32, rng: &mut ChaCha8Rng) -> Self {
        // a share is an f32, which may be a little above what was said: that is no column more
        let narrowest = ((f64::from(least) * width as f64 - 1e-4).ceil() as usize).clamp(1, width);
        let crop_width = rng.random_range(narrowest..=width);
        let left = rng.random_range(0..=width - crop_width);
        Self { top: 0, left, height, width: crop_width }
    }

    pub fn central([height, width]: [usize; 2], [narrow, wide]: [f64; 2]) -> Self {
        let crop_height = (width as f64 / narrow).round().clamp(1.0, height as f64) as usize;
        let crop_width = (height as f64 * wide).round().clamp(1.0, width as f64) as usize;
        let top = (height - crop_height) / 2;
        let left = (width - crop_width) / 2;
        Self { top, left, height: crop_height, width: crop_width }
    }
}
