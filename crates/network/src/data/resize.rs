//! A part of an image, resized: the geometry of the shown part, and the arithmetic of Pillow's `BILINEAR`.
//!
//! Knows nothing of networks or later steps; values stay in pixel units, bytes 0 to 255.

use std::ops::Range;

use space::Extent;

use super::image_set::Image;
use super::pixels::{Pixel, Pixels};
use super::preprocess::{Filter, Resize};

/// Fractional bits of a weight in whole numbers; with 8 bits of pixel and a sign they fill 32 (Pillow's `Resample.c`).
const BITS: u32 = 22;

/// Positions along one axis of an image that are shown: of `outputs` positions that `length` pixels from `start` on
/// become, those in `shown`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lines {
    pub start: usize,
    pub length: usize,
    /// Start of the shown part among these pixels, and its length in pixels: 0 and all of them, except of an image that was
    /// decoded at a fraction.
    pub offset: f64,
    pub extent: f64,
    pub outputs: usize,
    pub shown: Range<usize>,
}

impl Lines {
    /// All output positions of the pixels.
    pub fn all(start: usize, length: usize, outputs: usize) -> Self {
        Self { start, length, offset: 0.0, extent: length as f64, outputs, shown: 0..outputs }
    }

    /// The lines on an image decoded at 1/`fraction` of its sides, of `side` pixels along this axis.
    pub fn of_fraction(all: &Self, fraction: usize, side: usize) -> Self {
        let begin = all.start as f64 / fraction as f64;
        let end = (all.start + all.length) as f64 / fraction as f64;
        let start = (begin.floor() as usize).min(side - 1);
        let length = (end.ceil() as usize).min(side) - start;
        let offset = begin - start as f64;
        let extent = end - begin;
        Self { start, length, offset, extent, outputs: all.outputs, shown: all.shown.clone() }
    }
}

/// Rows and columns that evaluation shows of an image of `height` x `width` at a resolution.
pub(super) fn shown(resize: Resize, [height, width]: [usize; 2], resolution: Extent) -> [Lines; 2] {
    let Resize::Middle(share) = resize else {
        return [Lines::all(0, height, resolution.height), Lines::all(0, width, resolution.width)];
    };
    let least = |side: usize| ((side as f64 / share).ceil() as usize).max(side);
    let least = [least(resolution.height), least(resolution.width)];
    // torchvision's Resize: the side that is longer than the network's shape asks for is rounded down
    let long = |short: usize, long: usize, of: usize| (short as f64 * long as f64 / of as f64) as usize;
    let sides = if height * resolution.width <= width * resolution.height {
        [least[0], long(least[0], width, height).max(least[1])]
    } else {
        [long(least[1], height, width).max(least[0]), least[1]]
    };
    let middle = |length: usize, outputs: usize, shown: usize| {
        // its CenterCrop: halves go to the even number, as in Python
        let first = ((outputs - shown) as f64 / 2.0).round_ties_even() as usize;
        Lines { shown: first..first + shown, ..Lines::all(0, length, outputs) }
    };
    [middle(height, sides[0], resolution.height), middle(width, sides[1], resolution.width)]
}

/// Shows rows and columns of an image, perhaps mirrored, in `out` [C, rows, columns].
///
/// # Panics
/// If `out` does not have that size.
pub(super) fn draw(image: Image<'_>, filter: Filter, lines: &[Lines; 2], mirrored: bool, out: &mut [f32]) {
    let [rows, columns] = lines;
    let shape = image.shape();
    match (image.pixels(), filter) {
        (Pixels::Bytes(pixels), Filter::Bilinear) => {
            let raster = Raster { pixels, shape };
            resample(raster, &Axis::new(rows, false), &Axis::new(columns, mirrored), out);
        }
        (Pixels::Bytes(pixels), Filter::BilinearRounded) => {
            let raster = Raster { pixels, shape };
            resample_rounded(raster, &Axis::new(rows, false), &Axis::new(columns, mirrored), out);
        }
        // nothing is rounded to 8 bits that does not have them
        (Pixels::Floats(pixels), _) => {
            let raster = Raster { pixels, shape };
            resample(raster, &Axis::new(rows, false), &Axis::new(columns, mirrored), out);
        }
    }
}

/// An image whose kind of values is known.
#[derive(Clone, Copy)]
struct Raster<'a, P> {
    pixels: &'a [P],
    shape: [usize; 3],
}

/// A share of a pixel.
trait Weight: Copy {
    /// This part of a sum.
    fn of(value: f64, sum: f64) -> Self;
}

impl Weight for f32 {
    fn of(value: f64, sum: f64) -> Self {
        (value / sum) as f32
    }
}

impl Weight for i32 {
    fn of(value: f64, sum: f64) -> Self {
        (0.5 + value / sum * f64::from(1 << BITS)) as i32
    }
}

/// Weights of the input positions that make each output position along one axis.
///
/// A triangle filter with half-pixel centers, as wide as the step from one output to the next where that is
/// more than a pixel: bilinear when enlarging, an average when reducing (Pillow's `BILINEAR`). It does not
/// look outside the crop: what remains of a filter at an edge is scaled to a sum of 1.
#[derive(Debug)]
struct Axis<W> {
    start: usize,
    length: usize,
    /// For each output, the first input (counted from `start`), and where its weights stand.
    taps: Vec<(usize, Range<usize>)>,
    weights: Vec<W>,
}

impl<W: Weight> Axis<W> {
    fn new(lines: &Lines, mirrored: bool) -> Self {
        let Lines { start, length, offset, extent, outputs, shown } = lines;
        let scale = *extent / *outputs as f64;
        let support = scale.max(1.0);
        let mut taps = Vec::with_capacity(shown.len());
        let mut weights = Vec::new();
        for output in shown.clone() {
            let center = offset + (output as f64 + 0.5) * scale;
            let first = (center - support + 0.5).floor().max(0.0) as usize;
            let end = ((center + support + 0.5).floor() as usize).min(*length);
            let triangle = |i: usize| (1.0 - (i as f64 + 0.5 - center).abs() / support).max(0.0);
            let sum: f64 = (first..end).map(triangle).sum();
            let offset = weights.len();
            weights.extend((first..end).map(|i| W::of(triangle(i), sum)));
            taps.push((first, offset..weights.len()));
        }
        // what no output is made of need not be looked at
        let first = taps.first().map_or(0, |(first, _)| *first);
        let end = taps.last().map_or(first, |(last, range)| last + range.len());
        taps.iter_mut().for_each(|(tap, _)| *tap -= first);
        if mirrored {
            taps.reverse();
        }
        Self { start: start + first, length: end - first, taps, weights }
    }

    /// For each output, the first input (counted from `start`) and the weights from there on.
    fn outputs(&self) -> impl Iterator<Item = (usize, &[W])> {
        self.taps.iter().map(|(first, range)| (*first, &self.weights[range.clone()]))
    }
}

/// Resizes along the columns, then along the rows; `out` [C, rows, columns] in pixel units.
fn resample<P: Pixel>(image: Raster<'_, P>, rows: &Axis<f32>, columns: &Axis<f32>, out: &mut [f32]) {
    let narrow = columns.taps.len();
    let mut plane = vec![0f32; rows.length * narrow]; // one channel, [crop's rows, columns]
    for (channel, out) in planes(image, rows, columns, out) {
        for (y, line) in plane.chunks_exact_mut(narrow).enumerate() {
            let pixels = pixels(image, [rows.start + y, columns.start], channel);
            for (value, (first, weights)) in line.iter_mut().zip(columns.outputs()) {
                let run = pixels(first);
                *value = weights.iter().zip(run).fold(0.0, |sum, (w, pixel)| sum + w * pixel.value());
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

/// Resamples in whole numbers, rounded to 8 bits after the columns and after the rows.
fn resample_rounded(image: Raster<'_, u8>, rows: &Axis<i32>, columns: &Axis<i32>, out: &mut [f32]) {
    const HALF: i32 = 1 << (BITS - 1);
    let rounded = |sum: i32| (sum >> BITS).clamp(0, 255);
    let narrow = columns.taps.len();
    let mut plane = vec![0u8; rows.length * narrow];
    let mut sums = vec![0i32; narrow];
    for (channel, out) in planes(image, rows, columns, out) {
        for (y, line) in plane.chunks_exact_mut(narrow).enumerate() {
            let pixels = pixels(image, [rows.start + y, columns.start], channel);
            for (value, (first, weights)) in line.iter_mut().zip(columns.outputs()) {
                let run = pixels(first);
                let sum = weights.iter().zip(run).fold(HALF, |sum, (w, pixel)| sum + w * i32::from(*pixel));
                *value = rounded(sum) as u8;
            }
        }
        for (out, (first, weights)) in out.chunks_exact_mut(narrow).zip(rows.outputs()) {
            sums.fill(HALF);
            for (weight, line) in weights.iter().zip(plane[first * narrow..].chunks_exact(narrow)) {
                sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * i32::from(*value));
            }
            out.iter_mut().zip(&sums).for_each(|(out, sum)| *out = rounded(*sum) as f32);
        }
    }
}

/// The planes of `out`, one a channel of the image.
fn planes<'a, P, W>(
    image: Raster<'_, P>,
    rows: &Axis<W>,
    columns: &Axis<W>,
    out: &'a mut [f32],
) -> impl Iterator<Item = (usize, &'a mut [f32])> {
    let [_, _, channels] = image.shape;
    let size = rows.taps.len() * columns.taps.len();
    assert_eq!(out.len(), channels * size, "one value a channel and position");
    out.chunks_exact_mut(size).enumerate()
}

/// A channel of the image from a position on, by how many pixels further right.
fn pixels<'a, P>(
    image: Raster<'a, P>,
    [y, x]: [usize; 2],
    channel: usize,
) -> impl Fn(usize) -> std::iter::StepBy<std::slice::Iter<'a, P>> {
    let [_, width, channels] = image.shape;
    let line = &image.pixels[(y * width + x) * channels + channel..];
    move |further| line[further * channels..].iter().step_by(channels)
}

#[cfg(test)]
mod tests;
