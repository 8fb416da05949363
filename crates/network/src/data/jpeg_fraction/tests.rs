use base::random::rng_for;
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{ExtendedColorType, ImageEncoder, Rgb};
use rand::Rng;
use space::Extent;

use super::*;
use crate::data::augment::{Augmentation, Crop, Part, Wanted};
use crate::data::image_file::{ImageFile, InTurn};
use crate::data::{Grey, Image, Normalization, Orient, Preprocess};

/// Waves and edges in three colors, as a photograph has them.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let edge = if (x / 61 + y / 47) % 2 == 0 { 60.0 } else { -20.0 };
        let value = |period: f64| {
            let wave = ((f64::from(x) * 0.7 + f64::from(y)) / period).sin();
            (110.0 + 60.0 * wave + edge).clamp(0.0, 255.0) as u8
        };
        Rgb([value(90.0), value(53.0), value(200.0)])
    })
}

fn jpeg(image: &RgbImage, orientation: Orientation) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, 95);
    // a note of EXIF with the orientation alone
    let mut exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0".to_vec();
    exif[19] = orientation.to_exif();
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(image, image.width(), image.height(), ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn preprocess() -> Preprocess {
    Preprocess::photographs(Normalization::new(vec![0.0; 3], vec![1.0 / 255.0; 3]).unwrap())
}

fn varied(jpeg_oversampling: f32) -> Augmentation {
    let ratio = [0.75, 1.33];
    let flip = true;
    Augmentation {
        min_area: 0.3,
        ratio,
        min_width: None,
        flip,
        brightness: 0.0,
        saturation: 0.0,
        jpeg_oversampling,
        rand_augment: None,
        erasing: 0.0,
        mixup: 0.0,
        cutmix: 0.0,
    }
}

/// What training shows at 32 pixels of an image's bytes, and the fraction that it was decoded at.
fn view(bytes: &[u8], augmentation: &Augmentation, seed: u64) -> (Vec<f32>, usize) {
    let mut rng = rng_for("view", seed, &[]);
    let mut crop = Crop::default();
    let fraction = |size| {
        crop = augmentation.crop(size, Extent::square(32), &mut rng);
        augmentation.fraction(crop, Extent::square(32))
    };
    let file = ImageFile::from_bytes_in_turn("x", bytes, InTurn { orient: Orient::Exif, fraction }).unwrap();
    let [height, width] = file.size();
    let fraction = file.fraction();
    let pixels = file.into_pixels(3, Grey::Rec601).unwrap();
    let image = Image::new(&pixels, [height, width, 3]).unwrap();
    let mut out = vec![0.0; 3 * 32 * 32];
    let wanted = Wanted { resolution: Extent::square(32), preprocess: &preprocess() };
    augmentation.show(&Part { image, fraction, crop }, &wanted, &mut rng, &mut out);
    (out, fraction)
}

#[test]
fn a_view_of_a_fraction_is_that_of_the_whole() {
    let orientations = [Orientation::NoTransforms, Orientation::Rotate90, Orientation::Rotate270FlipH];
    // sides that are no multiples of 8 leave blocks in part; turned ones of these are decoded whole
    for (width, height, orientation) in
        [(1000, 752), (1003, 757)].into_iter().flat_map(|(w, h)| orientations.map(|turned| (w, h, turned)))
    {
        let bytes = jpeg(&picture(width, height), orientation);
        let mut fractions = Vec::new();
        for seed in 0..12 {
            let (whole, one) = view(&bytes, &varied(0.0), seed);
            let (shown, fraction) = view(&bytes, &varied(2.0), seed);
            assert_eq!(one, 1);
            let apart: f32 = whole.iter().zip(&shown).map(|(one, other)| (one - other).abs()).sum();
            let mean = apart / whole.len() as f32;
            assert!(mean < 1.5, "{width} x {height} {orientation:?}, {seed}: 1/{fraction}, {mean} apart");
            fractions.push(fraction);
        }
        let odd_and_turned = width == 1003 && orientation != Orientation::NoTransforms;
        assert_eq!(fractions.iter().any(|fraction| *fraction > 1), !odd_and_turned, "{fractions:?}");
    }
}

#[test]
fn a_fraction_leaves_as_many_pixels_as_the_recipe_says() {
    let fractions = |oversampling: f32| {
        [63, 64, 127, 128, 255, 256, 511, 512, 4000].map(|side| {
            let crop = Crop { height: side, width: 2 * side, ..Crop::default() };
            varied(oversampling).fraction(crop, Extent::square(32))
        })
    };
    assert_eq!(fractions(1.0), [1, 2, 2, 4, 4, 8, 8, 8, 8]);
    assert_eq!(fractions(2.0), [1, 1, 1, 2, 2, 4, 4, 8, 8]);
    assert_eq!(fractions(0.0), [1; 9]);
}

#[test]
fn sides_are_rounded_up_and_what_cannot_be_scaled_is_left() {
    let bytes = jpeg(&picture(101, 67), Orientation::NoTransforms);
    for (fraction, size) in [(2, (51, 34)), (4, (26, 17)), (8, (13, 9))] {
        let image = decode(&bytes, [67, 101], fraction).unwrap();
        assert_eq!((image.width(), image.height(), image.color().has_color()), (size.0, size.1, true));
    }
    assert!(decode(&bytes, [67, 105], 2).is_none(), "other sides than said");
    assert!(decode(b"no jpeg", [67, 101], 2).is_none());
    let grey = DynamicImage::from(picture(64, 64)).into_luma8();
    let mut bytes = Vec::new();
    DynamicImage::from(grey).write_with_encoder(JpegEncoder::new(&mut bytes)).unwrap();
    assert!(!decode(&bytes, [64, 64], 4).unwrap().color().has_color());
}

#[test]
fn damage_is_an_error_or_an_image_but_no_panic() {
    let bytes = jpeg(&picture(80, 64), Orientation::NoTransforms);
    let mut rng = rng_for("damage", 0, &[]);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..damaged.len());
            damaged[at] = rng.random();
        }
        damaged.truncate(rng.random_range(damaged.len() / 2..=damaged.len()));
        let how = InTurn { orient: Orient::Exif, fraction: |_| 4 };
        let _ = ImageFile::from_bytes_in_turn("x", &damaged, how);
        let _ = decode(&damaged, [64, 80], 2);
    }
}
