//! A JPEG decoded at a half, a quarter or an eighth of its sides: of each block of 8 x 8 pixels, only the lower frequencies
//! are made into pixels.

use image::{DynamicImage, GrayImage, RgbImage};
use jpeg_decoder::{Decoder, PixelFormat};

/// The image of height and width `size` at a fraction of its sides, rounded up; `None` where it is of a kind, or so damaged,
/// that it had better be decoded whole.
pub(super) fn decode(bytes: &[u8], [height, width]: [usize; 2], fraction: usize) -> Option<DynamicImage> {
    let mut decoder = Decoder::new(bytes);
    decoder.read_info().ok()?;
    let sides = [width, height].map(|side| u16::try_from(side.div_ceil(fraction)).ok());
    let scaled_width = sides[0]?;
    let scaled_height = sides[1]?;
    if decoder.scale(scaled_width, scaled_height).ok()? != (scaled_width, scaled_height) {
        return None;
    }
    let pixels = decoder.decode().ok()?;
    let width = u32::from(scaled_width);
    let height = u32::from(scaled_height);
    match decoder.info()?.pixel_format {
        PixelFormat::L8 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::RGB24 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
        PixelFormat::L16 | PixelFormat::CMYK32 => None,
    }
}
#[cfg(test)]
mod tests;
