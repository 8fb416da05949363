//! Sums over the pixels of images that are decoded one by one: mean and deviation in any channels come of them.

use serde::{Deserialize, Serialize};

use super::image_set::Normalisation;
use super::preprocess::Grey;

/// Red, green, blue, and the brightness by each rule.
const KINDS: usize = 5;

/// Of one image, sums of values and of their squares; a side of at most 16,384 pixels keeps them far below 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageSums {
    pixels: u64,
    sums: [[u64; 2]; KINDS],
}

impl ImageSums {
    /// Of an image's pixels, colours side by side.
    pub fn of_colours(pixels: &[u8]) -> Self {
        let mut sums = [[0u64; 2]; KINDS];
        let (pixels, _) = pixels.as_chunks::<3>();
        for pixel in pixels {
            let greys = [Grey::Rec601, Grey::Rec709].map(|grey| grey.of(*pixel));
            sums.iter_mut().zip(pixel.iter().chain(&greys)).for_each(|(sums, value)| add(sums, *value));
        }
        Self { pixels: pixels.len() as u64, sums }
    }

    /// Of a grey image's pixels, whose brightness is also each of its colours.
    pub fn of_greys(pixels: &[u8]) -> Self {
        let mut sums = [0u64; 2];
        pixels.iter().for_each(|value| add(&mut sums, *value));
        Self { pixels: pixels.len() as u64, sums: [sums; KINDS] }
    }
}

fn add(sums: &mut [u64; 2], value: u8) {
    let value = u64::from(value);
    sums[0] += value;
    sums[1] += value * value;
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
    pub fn normalisation(&self, channels: usize, grey: Grey) -> Option<Normalisation> {
        let [colours @ .., rec601, rec709] = &self.sums;
        let sums = match (channels, grey) {
            (1, Grey::Rec601) => std::slice::from_ref(rec601),
            (1, Grey::Rec709) => std::slice::from_ref(rec709),
            (3, _) => colours,
            _ => return None,
        };
        let pixels = self.pixels as f64;
        let of = |[sum, squares]: &[u128; 2]| Normalisation::of_sums(pixels, *sum as f64, *squares as f64);
        let (mean, std) = sums.iter().map(of).unzip();
        Normalisation::new(mean, std).ok()
    }
}
