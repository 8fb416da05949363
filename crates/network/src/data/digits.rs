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
use super::{Dataset, DatasetOrigin, Splits, numbered_classes};
use crate::error::{Error, Result};

const COMPRESSED: &[u8] = include_bytes!("digits.bin.gz");
const IMAGES: usize = 1797;
const SIDE: usize = 8;
const CLASSES: usize = 10;
const SOURCE: &str = concat!(
    "E. Alpaydin, C. Kaynak, \"Optical Recognition of Handwritten Digits\", ",
    "UCI Machine Learning Repository, 1998, CC BY 4.0"
);

/// The digits with their fixed split: of five successive images of one class the first is for test, the second
/// for validation, three for training. (Of any five images it would not do: the file counts 0 to 9 in stretches.)
pub(super) fn open() -> Result<Dataset> {
    let (pixels, labels) = unpack(COMPRESSED)?;
    let places = places_in_class(&labels);
    let all = ImageSet::new(pixels, labels, [SIDE, SIDE, 1], CLASSES)?;
    let part = |name, keep: fn(usize) -> bool| {
        let part = all.filter(|i| keep(places[i] % 5));
        part.ok_or_else(|| Error::invalid("digits", name, "some images", "none"))
    };
    let splits = Splits {
        train: part("train", |place| place > 1)?.into(),
        val: part("val", |place| place == 1)?.into(),
        test: Some(part("test", |place| place == 0)?.into()),
    };
    let origin = DatasetOrigin { name: "digits".to_owned(), source: SOURCE.to_owned(), flip: false };
    Dataset::new(origin, numbered_classes(CLASSES), splits)
}

/// For each image, how many of its class stand before it.
fn places_in_class(labels: &[u32]) -> Vec<usize> {
    let mut seen = [0; CLASSES];
    labels
        .iter()
        .map(|label| {
            let count = &mut seen[*label as usize % CLASSES];
            *count += 1;
            *count - 1
        })
        .collect()
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
    use crate::data::{Images, Split};

    #[test]
    fn the_split_is_the_documented_one() {
        let digits = open().unwrap();
        let count = |split| digits.split(split).unwrap().len();
        assert_eq!((count(Split::Train), count(Split::Val), count(Split::Test)), (1071, 362, 364));
        for split in [Split::Train, Split::Val, Split::Test] {
            let set = digits.split(split).unwrap();
            assert_eq!(set.labels()[..5], [0, 1, 2, 3, 4], "the file starts with 0 to 9, three times");
            for class in 0..CLASSES as u32 {
                let share =
                    set.labels().iter().filter(|label| **label == class).count() as f64 / set.len() as f64;
                assert!((0.09..0.11).contains(&share), "{class} in {split}: {share}");
            }
        }
    }

    #[test]
    fn the_pixels_are_scaled_to_a_byte() {
        // scikit-learn: load_digits().images[0][0] = [0, 0, 5, 13, 9, 1, 0, 0]
        let digits = open().unwrap();
        let first = digits.split(Split::Test).unwrap().load(0).unwrap();
        assert_eq!(first.image().unwrap().pixels().bytes().unwrap()[..8], [0, 0, 80, 207, 143, 16, 0, 0]);
        let Images::Pixels(train) = digits.train() else { panic!("in memory") };
        assert_eq!(train.all_pixels().bytes().unwrap().iter().max(), Some(&255));
    }

    #[test]
    fn the_data_is_the_data() {
        let digits = open().unwrap();
        // blake3 of the same bytes, made in Python from scikit-learn's digits.csv.gz
        assert_eq!(digits.hash(), "79bd44380908253f7d783b8f59308de688a4a934594294ef58f00f83005b6f15");
        assert_eq!(
            (digits.classes().len(), digits.flip(), digits.size(), digits.channels()),
            (10, false, 8, 1)
        );
    }

    #[test]
    fn a_broken_file_is_refused() {
        for bytes in [&COMPRESSED[..COMPRESSED.len() / 2], &[][..], &b"not gzip"[..]] {
            let message = unpack(bytes).unwrap_err().to_string();
            assert!(message.starts_with("digits: embedded file: expected 1797 x 65 bytes"), "{message}");
        }
    }
}
