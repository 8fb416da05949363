//! One image file: png, jpeg, webp, bmp, tiff, gif or one of the portable maps (ppm and its kin), grey or color, any size;
//! its content says which. A security boundary: a header may claim anything.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use base::file;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::jpeg_fraction;
use super::jpeg_repair::without_stray_bytes;
use super::preprocess::{Grey, Orient};
use super::room::{self, Taken};
use crate::error::{Error, Result};
use crate::foreign;

/// Sides that an image may have, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 2..=16_384;

/// Most bytes that decoding one image may take: room for 178,956,970 pixels (Pillow's bound against decompression
/// bombs) would be .5 GB; a side of at most 16,384 needs no more than this for three channels of 8 bits.
const MOST_BYTES: u64 = 3 * 16_384 * 16_384;

/// Formats that are read, recognized by content; of animations the first frame.
const FORMATS: [ImageFormat; 7] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::Gif,
    ImageFormat::Pnm,
];

/// The formats in messages.
const KINDS: &str = "a png, jpeg, webp, bmp, tiff, gif or ppm image";

/// Number of bytes that identify a format.
const START: u64 = 16;

/// Whether a file begins as one of the formats does; one that cannot be read does not.
pub(super) fn begins_as_image(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START).read_to_end(&mut start));
    read.is_ok() && image::guess_format(&start).is_ok_and(|format| FORMATS.contains(&format))
}

/// A decoded image.
#[derive(Debug, Clone)]
pub struct ImageFile {
    image: DynamicImage,
    orientation: Orientation,
    fraction: usize,
    room: Taken,
}

/// Settings for decoding an image while others are decoded.
pub(super) struct InTurn<F> {
    pub orient: Orient,
    /// From height and width, the right way up, the fraction of its sides at which a JPEG may be decoded: 1 for whole, 2,
    /// 4 or 8.
    pub fraction: F,
}

impl ImageFile {
    /// Reads and decodes a file.
    ///
    /// # Errors
    /// If it cannot be read, is cut off or damaged, is of no format that is read, or has an absurd size.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = file::read(path)?;
        Self::from_bytes(&path.display().to_string(), &bytes)
    }

    /// Decodes a file's bytes; `place` names them in messages.
    ///
    /// # Errors
    /// As [`ImageFile::read`].
    pub fn from_bytes(place: &str, bytes: &[u8]) -> Result<Self> {
        Self::decode(place, bytes, |_| 1, |_| Taken::nothing())
    }

    /// [`ImageFile::from_bytes`] in a given orientation, as soon as there is room beyond the images of other threads. A
    /// thread that holds one must not request another.
    pub(super) fn from_bytes_in_turn(
        place: &str,
        bytes: &[u8],
        InTurn { orient, fraction }: InTurn<impl FnOnce([usize; 2]) -> usize>,
    ) -> Result<Self> {
        let image = Self::decode(place, bytes, |stored| stored.fraction(orient, fraction), room::take)?;
        Ok(image.oriented(orient))
    }

    /// `fraction` gives the fraction of its sides at which a JPEG is decoded, `take` the bytes that the pixels need.
    fn decode(
        place: &str,
        bytes: &[u8],
        fraction: impl FnOnce(Stored) -> usize,
        take: impl FnOnce(usize) -> Taken,
    ) -> Result<Self> {
        let wrong = |field: &str, expected: &str, got: String| Error::invalid(place, field, expected, got);
        let broken = |error: image::ImageError| wrong("content", "a whole image", error.to_string());
        let format = image::guess_format(bytes).ok();
        let Some(format) = format.filter(|format| FORMATS.contains(format)) else {
            // what a download or a checkout without its large files leaves
            foreign::refuse(place, KINDS, bytes)?;
            let got = format.map_or("something else".to_string(), |format| format!("{format:?}"));
            return Err(wrong("content", KINDS, got));
        };
        let repaired = match format {
            ImageFormat::Jpeg => without_stray_bytes(bytes),
            _ => bytes.into(),
        };
        let bytes = &*repaired;
        let reader = || ImageReader::with_format(Cursor::new(bytes), format);
        let (width, height) = reader().into_dimensions().map_err(broken)?;
        if !SIDES.contains(&width) || !SIDES.contains(&height) {
            return Err(wrong("size", "sides of 2 to 16384 pixels", format!("{width} x {height}")));
        }
        if format == ImageFormat::Jpeg && !has_end(bytes) {
            return Err(wrong("content", "a whole jpeg image", "one that is cut off".to_string()));
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(MOST_BYTES);
        let mut reader = reader();
        reader.limits(limits);
        let mut decoder = reader.into_decoder().map_err(broken)?;
        // a damaged note says nothing: viewers show such an image as it is stored
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let size = [height as usize, width as usize];
        let fraction = fraction(Stored { size, orientation });
        // what is decoded, and once more for what is turned or made of it
        let bytes_needed = decoder.total_bytes().saturating_mul(2) / (fraction * fraction) as u64;
        let room = take(usize::try_from(bytes_needed).unwrap_or(usize::MAX));
        if format == ImageFormat::Jpeg
            && fraction > 1
            && let Some(image) = jpeg_fraction::decode(bytes, size, fraction)
        {
            return Ok(Self { image, orientation, fraction, room });
        }
        let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
        if matches!(image, DynamicImage::ImageRgb32F(_) | DynamicImage::ImageRgba32F(_)) {
            // what is black and white in it nothing says
            return Err(wrong("content", "whole numbers as pixels", "floating point".to_string()));
        }
        Ok(Self { image, orientation, fraction: 1, room })
    }

    /// The image this way up.
    #[must_use]
    pub fn oriented(mut self, orient: Orient) -> Self {
        if orient == Orient::Exif {
            self.image.apply_orientation(self.orientation);
            self.orientation = Orientation::NoTransforms;
        }
        self
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        [self.image.height() as usize, self.image.width() as usize]
    }

    /// The fraction of its sides at which it was decoded; 1 for whole.
    pub(super) fn fraction(&self) -> usize {
        self.fraction
    }

    /// The room that its pixels take, to be held as long as they are there.
    pub(super) fn room(&self) -> Taken {
        self.room.clone()
    }

    /// Whether its pixels have more than a brightness.
    pub fn is_color(&self) -> bool {
        self.image.color().has_color()
    }

    /// Pixel values `[H, W, C]` of 8 bits: `channels` 1 for grey (colors by their brightness), 3 for color (grey three
    /// times); transparency is left out. `None` for other numbers of channels.
    pub fn into_pixels(self, channels: usize, grey: Grey) -> Option<Vec<u8>> {
        match channels {
            1 if !self.is_color() || grey == Grey::Rec709 => Some(self.image.into_luma8().into_raw()),
            1 => Some(self.image.into_rgb8().pixels().map(|pixel| grey.of(pixel.0)).collect()),
            3 => Some(self.image.into_rgb8().into_raw()),
            _ => None,
        }
    }
}

/// An image as its file has it.
struct Stored {
    /// Height and width.
    size: [usize; 2],
    orientation: Orientation,
}

impl Stored {
    /// The fraction to decode at: the one that `of` gives for the sides as they are shown, halved
    /// until it divides both sides where the image is turned.
    fn fraction(self, orient: Orient, of: impl FnOnce([usize; 2]) -> usize) -> usize {
        let Self { size: [height, width], orientation } = self;
        let turned = orient == Orient::Exif && orientation != Orientation::NoTransforms;
        let lies = turned && swaps_sides(orientation);
        let mut fraction = of(if lies { [width, height] } else { [height, width] });
        // else the sides' rests would lie at the other end once it is turned
        while turned && (height % fraction != 0 || width % fraction != 0) {
            fraction /= 2;
        }
        fraction
    }
}

/// Whether height becomes width on the way to upright.
fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Whether a jpeg goes on to its end marker; the decoder fills up missing parts silently. Walks from segment to segment (ITU
/// T.81, annex B), so that neither a thumbnail's end nor appended bytes count.
fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        at += match marker {
            0xd9 => return true,
            0xff => 1,
            0x01 | 0xd0..=0xd7 => 2,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                2 + usize::from(u16::from_be_bytes([high, low]))
            }
        };
        if marker == 0xda {
            // a scan's data: an FF in it is followed by 00, or by the number of a restart
            let data = bytes.get(at..).unwrap_or_default();
            let Some(length) = data
                .windows(2)
                .position(|pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7))
            else {
                return false;
            };
            at += length;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn color() -> RgbImage {
        RgbImage::from_fn(20, 12, |x, y| Rgb([(x * 12) as u8, (y * 20) as u8, 128]))
    }

    #[test]
    fn grey_and_color_in_both_formats() {
        let grey = GrayImage::from_fn(5, 7, |x, y| Luma([(x * 7 + y) as u8]));
        let file = ImageFile::from_bytes("x", &encoded(grey.clone(), ImageFormat::Png)).unwrap();
        assert_eq!((file.size(), file.is_color()), ([7, 5], false));
        assert_eq!(file.clone().into_pixels(1, Grey::Rec601).unwrap(), grey.into_raw());
        assert_eq!(file.clone().into_pixels(3, Grey::Rec601).unwrap().len(), 105);
        assert!(file.into_pixels(2, Grey::Rec601).is_none());
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let file = ImageFile::from_bytes("x", &encoded(color(), format)).unwrap();
            assert_eq!((file.size(), file.is_color()), ([12, 20], true));
        }
    }

    #[test]
    fn other_formats_are_told_by_their_content() {
        let color = color();
        let grey = GrayImage::from_fn(5, 7, |x, y| Luma([(x * 7 + y) as u8]));
        for format in [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm] {
            let bytes = encoded(color.clone(), format);
            let file = ImageFile::from_bytes("x", &bytes).unwrap();
            assert_eq!((file.size(), file.is_color()), ([12, 20], true), "{format:?}");
            assert_eq!(&file.into_pixels(3, Grey::Rec601).unwrap(), color.as_raw(), "{format:?}");
            let error = ImageFile::from_bytes("x", &bytes[..bytes.len() * 2 / 3]).unwrap_err().to_string();
            assert!(error.contains("x: content: expected a whole image"), "{format:?}: {error}");
        }
        for format in [ImageFormat::Tiff, ImageFormat::Pnm] {
            let file = ImageFile::from_bytes("x", &encoded(grey.clone(), format)).unwrap();
            assert!(!file.is_color(), "{format:?}");
            assert_eq!(&file.into_pixels(1, Grey::Rec601).unwrap(), grey.as_raw(), "{format:?}");
        }
        // portable maps by hand: two grey levels, and white and black, whose 1 is black
        for (bytes, pixels) in
            [(&b"P5 2 2 3\n\0\x01\x02\x03"[..], [0, 85, 170, 255]), (b"P1 2 2\n0 1 1 0\n", [255, 0, 0, 255])]
        {
            let file = ImageFile::from_bytes("x", bytes).unwrap();
            assert_eq!(file.into_pixels(1, Grey::Rec601).unwrap(), pixels);
        }
    }

    #[test]
    fn of_what_moves_the_first_frame_is_seen() {
        use image::codecs::gif::GifEncoder;
        let [red, blue] = [[255, 0, 0, 255], [0, 0, 255, 255]]
            .map(|pixel| image::Frame::new(image::RgbaImage::from_pixel(6, 4, image::Rgba(pixel))));
        let mut bytes = Vec::new();
        GifEncoder::new(&mut bytes).encode_frames([red, blue]).unwrap();
        let file = ImageFile::from_bytes("x", &bytes).unwrap();
        assert_eq!(file.size(), [4, 6]);
        assert_eq!(file.into_pixels(3, Grey::Rec601).unwrap(), [255, 0, 0].repeat(24));
        let error = ImageFile::from_bytes("x", &bytes[..40]).unwrap_err().to_string();
        assert!(error.contains("a whole image"), "{error}");
    }

    #[test]
    fn what_is_broken_is_said() {
        let png = encoded(color(), ImageFormat::Png);
        let jpeg = encoded(color(), ImageFormat::Jpeg);
        let mut huge = png.clone();
        huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
        let one = encoded(GrayImage::new(1, 9), ImageFormat::Png);
        for (bytes, expected) in [
            (&png[..png.len() / 2], "a whole image"),
            (&jpeg[..jpeg.len() - 40], "cut off"),
            (&jpeg[..jpeg.len() - 2], "cut off"),
            (&jpeg[..20], "a whole image"),
            (b"GIF89a\x08\0\x08\0\0\0\0 and more", "a whole image"),
            (
                b"\0\0\0\x20ftypavif and more",
                "expected a png, jpeg, webp, bmp, tiff, gif or ppm image, got Avif",
            ),
            (b"", "got an empty file"),
            (b"no image at all", "got something else"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 30931841\n",
                "got a Git LFS pointer, which stands in place of the file; fetch",
            ),
            (&one[..], "sides of 2 to 16384 pixels, got 1 x 9"),
            (&huge[..], "x.png: "),
        ] {
            let error = ImageFile::from_bytes("x.png", bytes).unwrap_err().to_string();
            assert!(error.starts_with("x.png: ") && error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn neither_a_thumbnail_nor_what_is_appended_ends_an_image() {
        let thumbnail = [0xff, 0xe1, 0, 8, 0xff, 0xda, 1, 2, 0xff, 0xd9];
        let scan = [0xff, 0xda, 0, 2, 3, 0xff, 0x00, 4, 0xff, 0xd3, 5];
        let appended = [b'f', b't', b'y', b'p', 0xff, 0xda, 0, 2, 7];
        let start = [0xff, 0xd8];
        let whole = [&start[..], &thumbnail, &scan, &[0xff, 0xd9]].concat();
        assert!(has_end(&whole) && has_end(&[&whole[..], &appended].concat()));
        for torn in 0..whole.len() {
            assert!(!has_end(&whole[..torn]), "{torn}");
        }
        assert!(has_end(&encoded(color(), ImageFormat::Jpeg)));
    }
}
