//! What a network sees of an image: a random crop while it trains, the whole image otherwise; resized and
//! normalised.
//!
//! Every random number comes from a generator that is passed in. Knows nothing of batches or labels.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Dataset;
use super::image_set::{Image, Normalisation};

/// torchvision's RandomResizedCrop: the bounds of a crop's width / height, and how often it is drawn.
const ASPECT: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
const TRIES: usize = 10;

/// How training images are varied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Augmentation {
    /// The smallest part of the image's area that a random crop shows, in 0..=1.
    pub min_area: f32,
    /// Whether every other image is mirrored.
    pub flip: bool,
}

impl Augmentation {
    /// The crop that suits images of `height` pixels, without a flip.
    ///
    /// From 64 pixels up `min_area` is 0.08, the value of ImageNet training (torchvision's default, which
    /// OFA uses). Smaller images show one object that fills them, and a small crop cuts it off: 0.6 from 16
    /// pixels and 0.8 below are this toolkit's choice.
    pub fn for_size(height: usize) -> Self {
        let min_area = match height {
            64.. => 0.08,
            16.. => 0.6,
            _ => 0.8,
        };
        Self { min_area, flip: false }
    }

    /// What suits a data set: [`Augmentation::for_size`], with a flip where it is legal.
    pub fn for_dataset(dataset: &Dataset) -> Self {
        Self { flip: dataset.flip(), ..Self::for_size(dataset.size()) }
    }

    /// A random crop of `image`, resized to `resolution`, perhaps mirrored, normalised, written to `out`.
    ///
    /// # Shapes
    /// `image` [H, W, C], `out` [C, resolution, resolution].
    ///
    /// # Panics
    /// If `out` or `normalisation` does not have that size.
    pub fn train_view(
        &self,
        image: Image<'_>,
        resolution: usize,
        normalisation: &Normalisation,
        rng: &mut ChaCha8Rng,
        out: &mut [f32],
    ) {
        let [height, width, _] = image.shape();
        let crop = Crop::random(height, width, f64::from(self.min_area), rng);
        let mut columns = Axis::new(crop.left, crop.width, resolution);
        if self.flip && rng.random_bool(0.5) {
            columns.taps.reverse();
        }
        resample(image, &Axis::new(crop.top, crop.height, resolution), &columns, out);
        normalise(out, resolution, normalisation);
    }
}

/// The whole image, resized to `resolution`, normalised, written to `out`.
///
/// # Shapes
/// `image` [H, W, C], `out` [C, resolution, resolution].
///
/// # Panics
/// If `out` or `normalisation` does not have that size.
pub fn plain_view(image: Image<'_>, resolution: usize, normalisation: &Normalisation, out: &mut [f32]) {
    let [height, width, _] = image.shape();
    let (rows, columns) = (Axis::new(0, height, resolution), Axis::new(0, width, resolution));
    resample(image, &rows, &columns, out);
    normalise(out, resolution, normalisation);
}

/// A part of an image, in whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

impl Crop {
    /// A crop of at least `min_area` of the image as torchvision's RandomResizedCrop draws it: uniform in
    /// area, log-uniform in aspect; after ten draws that do not fit, a central one of the nearest legal
    /// aspect.
    fn random(height: usize, width: usize, min_area: f64, rng: &mut ChaCha8Rng) -> Self {
        let area = (height * width) as f64;
        let [narrow, wide] = ASPECT.map(f64::ln);
        for _ in 0..TRIES {
            let target = area * rng.random_range(min_area.clamp(0.0, 1.0)..=1.0);
            let aspect = rng.random_range(narrow..=wide).exp();
            let crop_width = (target * aspect).sqrt().round() as usize;
            let crop_height = (target / aspect).sqrt().round() as usize;
            if (1..=height).contains(&crop_height) && (1..=width).contains(&crop_width) {
                let top = rng.random_range(0..=height - crop_height);
                let left = rng.random_range(0..=width - crop_width);
                return Self { top, left, height: crop_height, width: crop_width };
            }
        }
        Self::central(height, width)
    }

    fn central(height: usize, width: usize) -> Self {
        let [narrow, wide] = ASPECT;
        let crop_height = (width as f64 / narrow).round().clamp(1.0, height as f64) as usize;
        let crop_width = (height as f64 * wide).round().clamp(1.0, width as f64) as usize;
        let (top, left) = ((height - crop_height) / 2, (width - crop_width) / 2);
        Self { top, left, height: crop_height, width: crop_width }
    }
}

/// How each output position along one axis is made of neighbouring input positions.
///
/// A triangle filter with half-pixel centres, as wide as the step from one output to the next where that is
/// more than a pixel: bilinear when enlarging, an average when reducing (Pillow's `BILINEAR`). It does not
/// look outside the crop: what remains of a filter at an edge is scaled to a sum of 1.
#[derive(Debug)]
struct Axis {
    start: usize,
    length: usize,
    /// For each output, the first input (counted from `start`), and where its weights stand.
    taps: Vec<(usize, std::ops::Range<usize>)>,
    weights: Vec<f32>,
}

impl Axis {
    fn new(start: usize, length: usize, outputs: usize) -> Self {
        let scale = length as f64 / outputs as f64;
        let support = scale.max(1.0);
        let (mut taps, mut weights) = (Vec::with_capacity(outputs), Vec::new());
        for output in 0..outputs {
            let centre = (output as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).floor().max(0.0) as usize;
            let end = ((centre + support + 0.5).floor() as usize).min(length);
            let triangle = |i: usize| (1.0 - (i as f64 + 0.5 - centre).abs() / support).max(0.0);
            let sum: f64 = (first..end).map(triangle).sum();
            let offset = weights.len();
            weights.extend((first..end).map(|i| (triangle(i) / sum) as f32));
            taps.push((first, offset..weights.len()));
        }
        Self { start, length, taps, weights }
    }

    /// For each output, the first input (counted from `start`) and the weights from there on.
    fn outputs(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.taps.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }
}

/// Resizes along the columns, then along the rows; `out` [C, rows, columns] in pixel units.
fn resample(image: Image<'_>, rows: &Axis, columns: &Axis, out: &mut [f32]) {
    let [_, width, channels] = image.shape();
    let narrow = columns.taps.len();
    let size = rows.taps.len() * narrow;
    assert_eq!(out.len(), channels * size, "one value a channel and position");
    let mut plane = vec![0f32; rows.length * narrow]; // one channel, [crop's rows, columns]
    for (channel, out) in out.chunks_exact_mut(size).enumerate() {
        for (y, line) in plane.chunks_exact_mut(narrow).enumerate() {
            let offset = ((rows.start + y) * width + columns.start) * channels + channel;
            let pixels = &image.pixels()[offset..];
            for (value, (first, weights)) in line.iter_mut().zip(columns.outputs()) {
                let run = pixels[first * channels..].iter().step_by(channels);
                *value = weights.iter().zip(run).fold(0.0, |sum, (w, pixel)| sum + w * f32::from(*pixel));
            }
        }
        for (out, (first, weights)) in out.chunks_exact_mut(narrow).zip(rows.outputs()) {
            out.fill(0.0);
            for (weight, line) in weights.iter().zip(plane[first * narrow..].chunks_exact(narrow)) {
                out.iter_mut().zip(line).for_each(|(out, value)| *out += weight * value);
            }
        }
    }
}

/// Pixel values to what the network expects: (value / 255 - mean) / std, channel by channel.
fn normalise(planes: &mut [f32], resolution: usize, normalisation: &Normalisation) {
    let size = resolution * resolution;
    assert_eq!(planes.len(), normalisation.channels() * size, "one mean and deviation a channel");
    let statistics = normalisation.mean().iter().zip(normalisation.std());
    for (plane, (mean, std)) in planes.chunks_exact_mut(size).zip(statistics) {
        plane.iter_mut().for_each(|value| *value = (*value / 255.0 - mean) / std);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::rng_for;

    /// The values of `plain_view` before normalisation, in pixel units.
    fn resized(pixels: &[u8], shape: [usize; 3], resolution: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; shape[2] * resolution * resolution];
        let image = Image::new(pixels, shape).unwrap();
        let [rows, columns] = [shape[0], shape[1]].map(|length| Axis::new(0, length, resolution));
        resample(image, &rows, &columns, &mut out);
        out
    }

    #[test]
    fn resizing_to_the_same_size_is_exact() {
        for shape in [[8, 8, 1], [5, 5, 3]] {
            let [side, _, channels] = shape;
            let pixels: Vec<u8> = (0..side * side * channels).map(|i| (i * 37) as u8).collect();
            let out = resized(&pixels, shape, side);
            for (i, pixel) in pixels.iter().enumerate() {
                let (position, channel) = (i / channels, i % channels);
                assert_eq!(out[channel * side * side + position], f32::from(*pixel));
            }
        }
    }

    #[test]
    fn a_constant_stays_constant() {
        for (height, width, resolution) in [(8, 8, 3), (8, 8, 29), (7, 19, 10), (1, 1, 4), (64, 3, 1)] {
            let out = resized(&vec![200; height * width], [height, width, 1], resolution);
            assert!(out.iter().all(|value| (value - 200.0).abs() < 1e-4), "{height} {width} {resolution}");
        }
    }

    /// ```python
    /// from PIL import Image  # 13.0
    /// for w, h, r in [(5, 4, 3), (8, 8, 2)]:
    ///     image = Image.new("F", (w, h))
    ///     image.putdata([(i * i * 13) % 256 for i in range(w * h)])
    ///     print([round(v, 3) for v in image.resize((r, r), Image.BILINEAR).getdata()])
    /// ```
    #[test]
    fn resizing_agrees_with_pillow() {
        let (small, smaller) = (
            [42.986, 79.678, 131.5, 78.786, 108.278, 123.643, 51.786, 111.056, 129.786],
            [81.913, 139.189, 134.689, 130.985],
        );
        for (height, width, resolution, expected) in [(4, 5, 3, &small[..]), (8, 8, 2, &smaller[..])] {
            let pixels: Vec<u8> = (0..height * width).map(|i| (i * i * 13 % 256) as u8).collect();
            let out = resized(&pixels, [height, width, 1], resolution);
            let near = out.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-3);
            assert!(near && out.len() == expected.len(), "{out:?}");
        }
    }

    /// The same for 5 x 4 pixels to 7 x 7: the first row and the last.
    #[test]
    fn enlarging_agrees_with_pillow() {
        let pixels: Vec<u8> = (0..20).map(|i| (i * i * 13 % 256) as u8).collect();
        let out = resized(&pixels, [4, 5, 1], 7);
        let first = [0.0, 7.429, 24.143, 52.0, 98.429, 156.0, 208.0];
        let last = [46.714, 49.429, 173.0, 132.286, 102.714, 85.0];
        for (got, want) in out.iter().zip(first).chain(out[43..].iter().zip(last)) {
            assert!((got - want).abs() < 1e-3, "{out:?}");
        }
    }

    #[test]
    fn views_are_normalised_by_channel() {
        let image = Image::new(&[0, 255, 51, 0, 255, 51], [1, 2, 3]).unwrap();
        let normalisation = Normalisation::new(vec![0.0, 0.5, 0.2], vec![1.0, 0.25, 2.0]).unwrap();
        let mut out = [f32::NAN; 3];
        plain_view(image, 1, &normalisation, &mut out);
        assert_eq!(out, [0.0, 2.0, 0.0]);
    }

    #[test]
    fn a_crop_stays_inside() {
        for (height, width, min_area) in
            [(28, 28, 0.6), (8, 8, 0.8), (224, 300, 0.08), (1, 1, 0.08), (3, 90, 0.5)]
        {
            for seed in 0..200 {
                let crop = Crop::random(height, width, min_area, &mut rng_for("crop", seed, &[]));
                assert!(crop.top + crop.height <= height && crop.left + crop.width <= width, "{crop:?}");
                assert!(crop.height > 0 && crop.width > 0, "{crop:?}");
            }
        }
    }

    #[test]
    fn crops_that_do_not_fit_become_central() {
        let expected = Crop { top: 0, left: 43, height: 3, width: 4 };
        assert_eq!(Crop::random(3, 90, 0.9, &mut rng_for("crop", 0, &[])), expected);
        assert_eq!(Crop::central(90, 3), Crop { top: 43, left: 0, height: 4, width: 3 });
        assert_eq!(Crop::central(9, 8), Crop { top: 0, left: 0, height: 9, width: 8 });
    }

    #[test]
    fn a_crop_reads_nothing_outside_itself() {
        let mut pixels = [255; 36];
        (2..5).for_each(|y| pixels[y * 6 + 1..y * 6 + 4].fill(10));
        let mut out = [f32::NAN; 49];
        let image = Image::new(&pixels, [6, 6, 1]).unwrap();
        resample(image, &Axis::new(2, 3, 7), &Axis::new(1, 3, 7), &mut out);
        assert!(out.iter().all(|value| (value - 10.0).abs() < 1e-5), "{out:?}");
    }

    #[test]
    fn half_of_the_views_are_mirrored() {
        let image = Image::new(&[0, 255, 0, 255], [2, 2, 1]).unwrap();
        let normalisation = Normalisation::new(vec![0.0], vec![1.0]).unwrap();
        let mirrored = |flip| {
            let augmentation = Augmentation { min_area: 1.0, flip };
            let views = (0..1000).filter(|seed| {
                let mut out = [0.0; 4];
                augmentation.train_view(image, 2, &normalisation, &mut rng_for("v", *seed, &[]), &mut out);
                out[0] > out[1]
            });
            views.count()
        };
        assert_eq!(mirrored(false), 0);
        assert!((400..600).contains(&mirrored(true)));
    }

    #[test]
    fn the_crop_follows_the_size() {
        for (height, min_area) in [(224, 0.08), (64, 0.08), (28, 0.6), (16, 0.6), (8, 0.8)] {
            assert_eq!(Augmentation::for_size(height), Augmentation { min_area, flip: false });
        }
    }
}
