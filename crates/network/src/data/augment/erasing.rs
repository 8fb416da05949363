//! Random erasing (Zhong et al. 2020, "Random Erasing Data Augmentation"), with the bounds of torchvision's `RandomErasing`.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use space::Extent;

use super::Crop;

/// Bounds of the erased share of the image.
const AREA: [f64; 2] = [0.02, 0.33];
/// Bounds of the rectangle's height / width.
const RATIO: [f64; 2] = [0.3, 3.3];
/// Attempts to draw a rectangle that fits.
const TRIES: usize = 10;

/// Sets a random rectangle of an image to 0, in all channels.
///
/// # Shapes
/// `planes` [C, rows, columns] of the extent.
pub(super) fn erase(planes: &mut [f32], extent: Extent, rng: &mut ChaCha8Rng) {
    let Some(Crop { top, left, height, width }) = rectangle(extent, rng) else { return };
    for plane in planes.chunks_exact_mut(extent.plane()) {
        for row in plane.chunks_exact_mut(extent.width).skip(top).take(height) {
            row[left..left + width].fill(0.0);
        }
    }
}

/// A random rectangle, uniform in area and log-uniform in aspect, lower and narrower than the image; `None` if no draw fits.
fn rectangle(extent: Extent, rng: &mut ChaCha8Rng) -> Option<Crop> {
    let [least, most] = AREA;
    let [flat, tall] = RATIO.map(f64::ln);
    for _ in 0..TRIES {
        let area = extent.plane() as f64 * rng.random_range(least..=most);
        let ratio = rng.random_range(flat..=tall).exp();
        let height = (area * ratio).sqrt().round() as usize;
        let width = (area / ratio).sqrt().round() as usize;
        if height < extent.height && width < extent.width {
            let top = rng.random_range(0..=extent.height - height);
            let left = rng.random_range(0..=extent.width - width);
            return Some(Crop { top, left, height, width });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::rng_for;

    #[test]
    fn the_erased_area_is_within_its_bounds() {
        let extent = Extent { height: 40, width: 60 };
        let mut seen = [f64::MAX, 0.0f64];
        for seed in 0..1000 {
            let mut planes = vec![1.0f32; 2 * extent.plane()];
            erase(&mut planes, extent, &mut rng_for("erasing", seed, &[]));
            let erased: Vec<usize> = (0..extent.plane()).filter(|at| planes[*at] == 0.0).collect();
            let second = (0..extent.plane()).filter(|at| planes[extent.plane() + at] == 0.0);
            assert!(second.eq(erased.iter().copied()), "the same in each channel");
            if erased.is_empty() {
                continue;
            }
            let rows = erased.iter().map(|at| at / extent.width);
            let columns = erased.iter().map(|at| at % extent.width);
            let height = rows.clone().max().expect("some") - rows.min().expect("some") + 1;
            let width = columns.clone().max().expect("some") - columns.min().expect("some") + 1;
            assert_eq!(height * width, erased.len(), "a rectangle");
            // each side was rounded by up to a half
            let [low, high] = [0.5, -0.5].map(|half| (height as f64 + half) * (width as f64 + half));
            assert!(low >= 0.02 * 2400.0 && high <= 0.33 * 2400.0, "{height} x {width}");
            let [flat, tall] = [-0.5, 0.5].map(|half| (height as f64 + half) / (width as f64 - half));
            assert!(flat <= 3.3 && tall >= 0.3, "{height} x {width}");
            let share = erased.len() as f64 / 2400.0;
            seen = [seen[0].min(share), seen[1].max(share)];
        }
        assert!(seen[0] < 0.04 && seen[1] > 0.3, "{seen:?}");
    }

    /// A rectangle of at least a pixel is not lower than an image of one row.
    #[test]
    fn a_row_is_left_alone() {
        let mut planes = [1.0f32; 9];
        for seed in 0..100 {
            erase(&mut planes, Extent { height: 1, width: 9 }, &mut rng_for("erasing", seed, &[]));
        }
        assert!(planes.iter().all(|value| *value == 1.0), "{planes:?}");
    }
}
