//! An image of bytes, and the operations of RandAugment on it, with the arithmetic of Pillow.

use space::Extent;

/// A direction of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Along a row.
    X,
    /// Along a column.
    Y,
}

/// An image of bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    /// [C, rows, columns]
    values: Vec<u8>,
    extent: Extent,
}

impl Picture {
    /// Pixel values [C, rows, columns], rounded.
    pub fn of(planes: &[f32], extent: Extent) -> Self {
        let values = planes.iter().map(|value| value.round().clamp(0.0, 255.0) as u8).collect();
        Self { values, extent }
    }

    /// Writes the pixel values.
    pub fn write(&self, planes: &mut [f32]) {
        for (to, from) in planes.iter_mut().zip(&self.values) {
            *to = f32::from(*from);
        }
    }

    /// Moves rows, or columns, in proportion to their distance from the top left corner.
    pub fn shear(&mut self, axis: Axis, slope: f64) {
        self.resample(|x, y| match axis {
            Axis::X => (x + slope * y, y),
            Axis::Y => (x, y + slope * x),
        });
    }

    /// Moves the image right, or down, by whole pixels.
    pub fn translate(&mut self, axis: Axis, pixels: f64) {
        self.resample(|x, y| match axis {
            Axis::X => (x - pixels, y),
            Axis::Y => (x, y - pixels),
        });
    }

    /// Turns the image around its middle, counterclockwise.
    pub fn rotate(&mut self, degrees: f64) {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        let middle = [self.extent.width as f64 / 2.0, self.extent.height as f64 / 2.0];
        self.resample(|x, y| {
            let right = x - middle[0];
            let down = y - middle[1];
            (cosine * right - sine * down + middle[0], sine * right + cosine * down + middle[1])
        });
    }

    /// Replaces each pixel by the one that contains the point which `source` gives for the pixel's center; 0 outside.
    fn resample(&mut self, source: impl Fn(f64, f64) -> (f64, f64)) {
        let Extent { height, width } = self.extent;
        let size = self.extent.plane();
        let before = self.values.clone();
        for at in 0..size {
            let (x, y) = source((at % width) as f64 + 0.5, (at / width) as f64 + 0.5);
            let inside = (0.0..width as f64).contains(&x) && (0.0..height as f64).contains(&y);
            let from = inside.then(|| y as usize * width + x as usize);
            let planes = self.values.chunks_exact_mut(size).zip(before.chunks_exact(size));
            for (plane, before) in planes {
                plane[at] = from.map_or(0, |from| before[from]);
            }
        }
    }

    /// Multiplies all values.
    pub fn brighten(&mut self, factor: f64) {
        for value in &mut self.values {
            *value = blend(0, *value, factor);
        }
    }

    /// Multiplies the distance of colors from grey. Other images than those of three channels remain as they are.
    pub fn saturate(&mut self, factor: f64) {
        if self.values.len() != 3 * self.extent.plane() {
            return;
        }
        let grey = self.grey();
        for plane in self.values.chunks_exact_mut(grey.len()) {
            for (value, grey) in plane.iter_mut().zip(&grey) {
                *value = blend(*grey, *value, factor);
            }
        }
    }

    /// Multiplies the distance from the image's mean grey.
    pub fn contrast(&mut self, factor: f64) {
        let grey = self.grey();
        let sum: u64 = grey.iter().map(|value| u64::from(*value)).sum();
        let mean = (sum as f64 / grey.len() as f64 + 0.5) as u8;
        for value in &mut self.values {
            *value = blend(mean, *value, factor);
        }
    }

    /// The grey of each pixel: of colors ITU-R 601's luma in Pillow's fixed point, of other channels their mean.
    fn grey(&self) -> Vec<u8> {
        let size = self.extent.plane();
        let channels: Vec<&[u8]> = self.values.chunks_exact(size).collect();
        let pixel = |at: usize| match channels[..] {
            [red, green, blue] => {
                let [red, green, blue] = [red, green, blue].map(|plane| u32::from(plane[at]));
                ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
            }
            _ => (channels.iter().map(|plane| usize::from(plane[at])).sum::<usize>() / channels.len()) as u8,
        };
        (0..size).map(pixel).collect()
    }

    /// Multiplies the distance from the smoothed image. The border remains as it is.
    pub fn sharpen(&mut self, factor: f64) {
        let Extent { height, width } = self.extent;
        let size = self.extent.plane();
        let before = self.values.clone();
        for (plane, before) in self.values.chunks_exact_mut(size).zip(before.chunks_exact(size)) {
            for row in 1..height.saturating_sub(1) {
                for column in 1..width.saturating_sub(1) {
                    let at = row * width + column;
                    plane[at] = blend(smoothed(before, width, at), before[at], factor);
                }
            }
        }
    }

    /// Retains the highest bits of each value.
    pub fn posterize(&mut self, bits: u32) {
        let mask = !(0xFFu32 >> bits) as u8;
        for value in &mut self.values {
            *value &= mask;
        }
    }

    /// Inverts the values from a threshold on.
    pub fn solarize(&mut self, threshold: f64) {
        for value in &mut self.values {
            if f64::from(*value) >= threshold {
                *value = 255 - *value;
            }
        }
    }

    /// Stretches the values of each channel to 0..=255.
    pub fn stretch(&mut self) {
        for plane in self.values.chunks_exact_mut(self.extent.plane()) {
            let low = plane.iter().copied().min().unwrap_or(0);
            let high = plane.iter().copied().max().unwrap_or(0);
            if high > low {
                let scale = 255.0 / f64::from(high - low);
                let offset = -f64::from(low) * scale;
                for value in plane {
                    *value = (f64::from(*value) * scale + offset).clamp(0.0, 255.0) as u8;
                }
            }
        }
    }

    /// Makes the values of each channel about equally frequent, as Pillow's `ImageOps.equalize`.
    pub fn equalize(&mut self) {
        for plane in self.values.chunks_exact_mut(self.extent.plane()) {
            let mut counts = [0usize; 256];
            plane.iter().for_each(|value| counts[usize::from(*value)] += 1);
            let highest = counts.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
            // 0 for a plane of one value, too
            let step = (plane.len() - highest) / 255;
            if step == 0 {
                continue;
            }
            let mut below = step / 2;
            let table = counts.map(|count| {
                let value = (below / step).min(255) as u8;
                below += count;
                value
            });
            plane.iter_mut().for_each(|value| *value = table[usize::from(*value)]);
        }
    }
}

/// `from + factor (value - from)`, cut off to a byte as Pillow's `Image.blend`.
fn blend(from: u8, value: u8, factor: f64) -> u8 {
    let from = f32::from(from);
    (from + factor as f32 * (f32::from(value) - from)).clamp(0.0, 255.0) as u8
}

/// Pillow's filter SMOOTH at a pixel inside the border: the rounded mean of 3 x 3 pixels, the middle one counted five times.
fn smoothed(plane: &[u8], width: usize, at: usize) -> u8 {
    let rows = [at - width, at, at + width];
    let square: u32 =
        rows.iter().flat_map(|row| &plane[row - 1..=row + 1]).map(|value| u32::from(*value)).sum();
    let sum = square + 4 * u32::from(plane[at]);
    ((2 * sum + 13) / 26) as u8
}
