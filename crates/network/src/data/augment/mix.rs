//! Mixtures of the images of a batch: mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization") and cutmix
//! (Yun et al. 2019, "CutMix").
//!
//! As in timm's `Mixup`, each batch has one share, and each image's partner is at the mirrored place of the batch. Knows
//! nothing of labels.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Beta, Distribution};
use space::Extent;

use super::Crop;

/// How each image of a batch is mixed with its partner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Mix {
    share: f32,
    /// The box that comes from the partner; `None` if all pixels are averages.
    pasted: Option<Crop>,
}

impl Mix {
    /// Averages with a share from Beta(alpha, alpha).
    pub fn mixup(alpha: f32, rng: &mut ChaCha8Rng) -> Self {
        Self { share: share(alpha, rng) as f32, pasted: None }
    }

    /// A box of the image's aspect from the partner: its sides are the root of 1 - share of the image's, with a share from
    /// Beta(alpha, alpha). It is around a uniform point and cut off at the border, which corrects the share.
    pub fn cutmix(alpha: f32, extent: Extent, rng: &mut ChaCha8Rng) -> Self {
        let side = (1.0 - share(alpha, rng)).sqrt();
        let mut span = |length: usize| {
            let cut = (length as f64 * side) as usize;
            let middle = rng.random_range(0..length.max(1));
            middle.saturating_sub(cut / 2)..(middle + cut / 2).min(length)
        };
        let rows = span(extent.height);
        let columns = span(extent.width);
        let pasted = Crop { top: rows.start, left: columns.start, height: rows.len(), width: columns.len() };
        let share = 1.0 - (pasted.height * pasted.width) as f64 / extent.plane() as f64;
        Self { share: share as f32, pasted: Some(pasted) }
    }

    /// Share of an image in its mixture, in 0..=1.
    pub fn share(&self) -> f32 {
        self.share
    }

    /// Mixes the images of a batch in place. The middle one of an odd number is its own partner and remains as it is.
    ///
    /// # Shapes
    /// `values` [N, C, rows, columns] of the extent, `size` numbers per image.
    pub fn apply(&self, values: &mut [f32], size: usize, extent: Extent) {
        let pairs = values.len() / size / 2;
        let (images, rest) = values.split_at_mut(pairs * size);
        let partners = rest.chunks_exact_mut(size).rev();
        for (image, partner) in images.chunks_exact_mut(size).zip(partners) {
            match self.pasted {
                None => self.average(image, partner),
                Some(pasted) => exchange(image, partner, extent, pasted),
            }
        }
    }

    fn average(&self, image: &mut [f32], partner: &mut [f32]) {
        let rest = 1.0 - self.share;
        for (one, other) in image.iter_mut().zip(partner) {
            let mixed = self.share * *one + rest * *other;
            *other = self.share * *other + rest * *one;
            *one = mixed;
        }
    }
}

/// Exchanges a box between two images of the extent.
fn exchange(image: &mut [f32], partner: &mut [f32], extent: Extent, pasted: Crop) {
    let columns = pasted.left..pasted.left + pasted.width;
    let planes = image.chunks_exact_mut(extent.plane()).zip(partner.chunks_exact_mut(extent.plane()));
    for (plane, other) in planes {
        let rows = plane.chunks_exact_mut(extent.width).zip(other.chunks_exact_mut(extent.width));
        for (row, other) in rows.skip(pasted.top).take(pasted.height) {
            row[columns.clone()].swap_with_slice(&mut other[columns.clone()]);
        }
    }
}

/// A draw from Beta(alpha, alpha).
fn share(alpha: f32, rng: &mut ChaCha8Rng) -> f64 {
    let alpha = f64::from(alpha);
    let beta = Beta::new(alpha, alpha).expect("alpha is above 0");
    let share = beta.sample(rng);
    // an alpha near 0 can overflow in the sampler: the share is then one of the ends, which are alike
    if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;

    /// Beta(a, a) has the mean 1/2 and the variance 1 / (4 (2 a + 1)).
    #[test]
    fn shares_have_the_moments_of_the_beta_distribution() {
        for alpha in [0.001f32, 0.2, 1.0, 4.0, 1000.0] {
            let mut rng = rng_for("share", 7, &[]);
            let shares: Vec<f64> = (0..20_000).map(|_| share(alpha, &mut rng)).collect();
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            let variance =
                shares.iter().map(|share| (share - 0.5).powi(2)).sum::<f64>() / shares.len() as f64;
            let expected = 0.25 / (2.0 * f64::from(alpha) + 1.0);
            assert!((mean - 0.5).abs() < 0.02, "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "{alpha}: {variance} for {expected}");
        }
    }

    /// The images are constant, so the pixels of the partner can be counted.
    #[test]
    fn the_share_of_cutmix_is_what_remains_of_the_image() {
        let extent = Extent { height: 9, width: 14 };
        let mut most = 0;
        for seed in 0..500 {
            let mix = Mix::cutmix(1.0, extent, &mut rng_for("mix", seed, &[]));
            let size = 2 * extent.plane();
            let mut values: Vec<f32> = (0..3 * size).map(|at| (at / size) as f32).collect();
            mix.apply(&mut values, size, extent);
            let count = |image: usize, value: f32| {
                values[image * size..][..size].iter().filter(|pixel| **pixel == value).count()
            };
            let pasted = count(0, 2.0);
            assert_eq!([count(0, 0.0), count(2, 2.0)], [size - pasted; 2]);
            assert_eq!([count(2, 0.0), count(1, 1.0)], [pasted, size]);
            assert!((1.0 - pasted as f64 / size as f64 - f64::from(mix.share())).abs() < 1e-6, "{mix:?}");
            most = most.max(pasted);
        }
        assert!(most > extent.plane(), "half of an image: {most}");
    }

    #[test]
    fn both_kinds_of_mixture_come_equally_often() {
        let augmentation =
            super::super::Augmentation { mixup: 0.2, cutmix: 1.0, ..super::super::tests::plain(1.0) };
        let mixes =
            (0..1000).filter_map(|seed| augmentation.mix(Extent::square(8), || rng_for("mix", seed, &[])));
        let cut = mixes.filter(|mix| mix.pasted.is_some()).count();
        assert!((430..570).contains(&cut), "{cut}");
    }
}
