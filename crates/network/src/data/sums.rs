//! Sums over the pixels of images that are decoded one by one: mean and deviation in any channels follow.

use serde::{Deserialize, Serialize};

use super::image_set::Normalization;
use super::preprocess::Grey;

/// Red, green, blue, and the brightness by each rule.
const KINDS: usize = 5;

/// Sums of one image's pixel values and of their squares. Since a side has at most 16,384 pixels, they stay
/// far below 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageSums {
    pixels: u64,
    sums: [[u64; 2]; KINDS],
}

impl ImageSums {
    /// Sums of a color image's pixels, given as interleaved red, green and blue.
    pub fn of_colors(pixels: &[u8]) -> Self {
        let mut sums = [[0u64; 2]; KINDS];
        let (pixels, _) = pixels.as_chunks::<3>();
        let mut planes = [[0u8; BLOCK]; KINDS];
        for block in pixels.chunks(BLOCK) {
            for (i, pixel) in block.iter().enumerate() {
                let [red, green, blue] = *pixel;
                let values = [red, green, blue, Grey::Rec601.of(*pixel), Grey::Rec709.of(*pixel)];
                planes.iter_mut().zip(values).for_each(|(plane, value)| plane[i] = value);
            }
            sums.iter_mut().zip(&planes).for_each(|(sums, plane)| add(sums, &plane[..block.len()]));
        }
        Self { pixels: pixels.len() as u64, sums }
    }

    /// Sums of a grey image's pixels; the value of a pixel counts as its red, green, blue and brightness.
    pub fn of_greys(pixels: &[u8]) -> Self {
        let mut sums = [0u64; 2];
        pixels.chunks(BLOCK).for_each(|block| add(&mut sums, block));
        Self { pixels: pixels.len() as u64, sums: [sums; KINDS] }
    }
}

/// Pixels whose sums, and those of their squares, fit into 32 bits: a loop over a plane of them is vectorized.
const BLOCK: usize = 1024;

fn add(sums: &mut [u64; 2], block: &[u8]) {
    let sum: u32 = block.iter().map(|value| u32::from(*value)).sum();
    let squares: u32 = block.iter().map(|value| u32::from(*value) * u32::from(*value)).sum();
    sums[0] += u64::from(sum);
    sums[1] += u64::from(squares);
}

/// Sums over the pixels of many images, exact.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ChannelSums {
    pixels: u64,
    sums: [[u128; 2]; KINDS],
}

impl ChannelSums {
    /// Adds an image's.
    pub fn add(&mut self, image: &ImageSums) {
        self.pixels += image.pixels;
        for (total, sums) in self.sums.iter_mut().zip(image.sums) {
            total.iter_mut().zip(sums).for_each(|(total, sum)| *total += u128::from(sum));
        }
    }

    /// Mean and deviation in 1 or 3 channels; `None` for other numbers, or without a pixel.
    pub fn normalization(&self, channels: usize, grey: Grey) -> Option<Normalization> {
        let [colors @ .., rec601, rec709] = &self.sums;
        let sums = match (channels, grey) {
            (1, Grey::Rec601) => std::slice::from_ref(rec601),
            (1, Grey::Rec709) => std::slice::from_ref(rec709),
            (3, _) => colors,
            _ => return None,
        };
        let pixels = self.pixels as f64;
        let (mean, std) = sums
            .iter()
            .map(|[sum, squares]: &[u128; 2]| Normalization::of_sums(pixels, *sum as f64, *squares as f64))
            .unzip();
        Normalization::new(mean, std).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_add_up_to_what_pixels_do() {
        let pixels: Vec<u8> = (0..3 * (2 * BLOCK + 77)).map(|i| (i * i % 256) as u8).collect();
        let channel = |at: usize| pixels.iter().skip(at).step_by(3).map(|value| u64::from(*value));
        let sums = ImageSums::of_colors(&pixels);
        assert_eq!(sums.pixels, 2 * BLOCK as u64 + 77);
        for at in 0..3 {
            assert_eq!(
                sums.sums[at],
                [channel(at).sum::<u64>(), channel(at).map(|value| value * value).sum()]
            );
        }
        let greys: Vec<u8> = pixels.as_chunks::<3>().0.iter().map(|pixel| Grey::Rec601.of(*pixel)).collect();
        assert_eq!(sums.sums[3], ImageSums::of_greys(&greys).sums[0]);
        let white = ImageSums::of_greys(&[255; 3 * BLOCK]);
        assert_eq!(white.sums[4], [3 * 1024 * 255, 3 * 1024 * 255 * 255]);
    }
}
