//! The embedded data set: 1,797 handwritten digits of 8 x 8 pixels, for tests and first steps.
//!
//! `digits.bin.gz` holds 1,797 x 64 pixel values of 0 to 16, then 1,797 labels, a byte each: the test part of
//! the UCI set, in the order in which scikit-learn ships it. Knows nothing of files. It was made by
//!
//! ```python
//! rows = [[int(float(v)) for v in line.split(",")] for line in gzip.open("digits.csv.gz", "rt")]
//! data = bytes(v for row in rows for v in row[:64]) + bytes(row[64] for row in rows)
//! open("digits.bin.gz", "wb").write(gzip.compress(data, 9, mtime=0))
//! ```

use std::io::Read;

use super::image_set::ImageSet;
use super::{Dataset, Origin, Splits, numbered_classes};
use crate::error::{Error, Result};

const COMPRESSED: &[u8] = include_bytes!("digits.bin.gz");
const IMAGES: usize = 1797;
const SIDE: usize = 8;
const CLASSES: usize = 10;
const SOURCE: &str = concat!(
    "E. Alpaydin, C. Kaynak, \"Optical Recognition of Handwritten Digits\", ",
    "UCI Machine Learning Repository, 1998, CC BY 4.0"
);

/// The digits with their fixed split: of five successive images the first is for test, the second for
/// validation, three for training.
pub(super) fn open() -> Result<Dataset> {
    let (pixels, labels) = unpack(COMPRESSED)?;
    let all = ImageSet::new(pixels, labels, [SIDE, SIDE, 1], CLASSES)?;
    let part = |name, keep: fn(usize) -> bool| {
        all.filter(keep).ok_or_else(|| Error::invalid("digits", name, "some images", "none"))
    };
    let splits = Splits {
        train: part("train", |i| i % 5 > 1)?,
        val: part("val", |i| i % 5 == 1)?,
        test: Some(part("test", |i| i % 5 == 0)?),
    };
    let origin = Origin { name: "digits".to_owned(), source: SOURCE.to_owned(), flip: false };
    Dataset::new(origin, numbered_classes(CLASSES), splits)
}

fn unpack(compressed: &[u8]) -> Result<(Vec<u8>, Vec<u32>)> {
    let broken = |got: String| Error::invalid("digits", "embedded file", "1797 x 65 bytes", got);
    let mut bytes = Vec::with_capacity(IMAGES * (SIDE * SIDE + 1));
    let mut decoder = flate2::read::GzDecoder::new(compressed);
    decoder.read_to_end(&mut bytes).map_err(|error| broken(error.to_string()))?;
    if bytes.len() != IMAGES * (SIDE * SIDE + 1) {
        return Err(broken(format!("{} bytes", bytes.len())));
    }
    let (pixels, labels) = bytes.split_at(IMAGES * SIDE * SIDE);
    // 0..=16 to 0..=255, to the nearest; the file's values were counts of ink in 4 x 4 blocks
    let pixels = pixels.iter().map(|value| ((u16::from(*value) * 255 + 8) / 16) as u8).collect();
    Ok((pixels, labels.iter().copied().map(u32::from).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Split;

    #[test]
    fn the_split_is_the_documented_one() {
        let digits = open().unwrap();
        let count = |split| digits.split(split).unwrap().len();
        assert_eq!((count(Split::Train), count(Split::Val), count(Split::Test)), (1077, 360, 360));
        // the file starts 0 1 2 3 4 5 6 7 8 9 0
        assert_eq!(digits.split(Split::Test).unwrap().labels()[..3], [0, 5, 0]);
        assert_eq!(digits.val().labels()[..2], [1, 6]);
        assert_eq!(digits.train().labels()[..4], [2, 3, 4, 7]);
    }

    #[test]
    fn the_pixels_are_scaled_to_a_byte() {
        // scikit-learn: load_digits().images[0][0] = [0, 0, 5, 13, 9, 1, 0, 0]
        let digits = open().unwrap();
        let row = &digits.split(Split::Test).unwrap().pixels(0)[..8];
        assert_eq!(row, [0, 0, 80, 207, 143, 16, 0, 0]);
        assert_eq!(digits.train().all_pixels().iter().max(), Some(&255));
    }

    #[test]
    fn the_data_is_the_data() {
        let digits = open().unwrap();
        // blake3 of the same bytes, made in Python from scikit-learn's digits.csv.gz
        assert_eq!(digits.hash(), "27a1fd66bd78eabe2148a212f676d9b662f47cb5ed84f9b717d602199103512d");
        assert_eq!((digits.classes().len(), digits.flip(), digits.shape()), (10, false, [8, 8, 1]));
    }

    #[test]
    fn a_broken_file_is_refused() {
        for bytes in [&COMPRESSED[..COMPRESSED.len() / 2], &[][..], &b"not gzip"[..]] {
            let message = unpack(bytes).unwrap_err().to_string();
            assert!(message.starts_with("digits: embedded file: expected 1797 x 65 bytes"), "{message}");
        }
    }
}
